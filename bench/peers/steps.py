"""The steps of training that `client/examples/steps.rs` times, with PyTorch: `steps.py MODEL TRAINABLE STEPS DEVICE`.

Frozen layers are computed in every step, without a gradient: nothing here keeps what they gave.
"""

import json
import os
import pathlib
import sys
import time

import torch

model, trainable, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
# What is made from here on is there.
torch.set_default_device(sys.argv[4])
torch.manual_seed(0)


def efficientnet():
    import timm

    net = timm.create_model("tf_efficientnet_lite0", num_classes=2).eval()
    pixels = torch.randint(256, (32, 3, 224, 224), dtype=torch.uint8)
    return net, net.classifier, [], 32, lambda: net((pixels.float() / 255 - 127 / 255) / (128 / 255))


def minilm():
    import transformers

    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(cache) / "sheaf/data/minilm"
    config = transformers.BertConfig.from_pretrained(folder, num_labels=2)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    net = transformers.BertForSequenceClassification(config).train()
    ids = torch.full((16, 64), 1996)
    mask = torch.ones_like(ids)
    return net, net.classifier, net.bert.encoder.layer, 16, lambda: net(input_ids=ids, attention_mask=mask).logits


def mlp():
    from torch import nn

    net = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2))
    rows = torch.rand(64, 128)
    return net, net[-1], [], 64, lambda: net(rows)


net, head, layers, batch, forward = {"efficientnet-lite0": efficientnet, "minilm": minilm, "mlp": mlp}[model]()
if trainable == "lora":
    import peft

    targets = ["query", "value"]
    net = peft.get_peft_model(net, peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=targets))
elif trainable != "all":
    net.requires_grad_(False)
    count = int(trainable.partition(":")[2] or 0)
    for part in [head, *list(layers)[len(layers) - count :]]:
        part.requires_grad_(True)
optimizer = torch.optim.AdamW([each for each in net.parameters() if each.requires_grad], lr=1e-5, weight_decay=0.01)
labels = torch.arange(batch) % 2
# All is made, and every call would ask for it.
torch.set_default_device(None)
began = []
for _ in range(steps + 1):
    began.append((time.perf_counter(), time.process_time()))
    loss = torch.nn.functional.cross_entropy(forward(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()
# The peak that getrusage(2) tells may be that of the process before exec.
peak_kb = int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
counted = began[2:]
seconds = [after[0] - before[0] for before, after in zip(counted, counted[1:])]
print(
    json.dumps(
        {
            "seconds": seconds,
            "cpu_seconds": (counted[-1][1] - counted[0][1]) / len(seconds),
            "peak_mb": peak_kb * 1024 / 1e6,
        }
    )
)
