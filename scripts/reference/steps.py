"""Times the steps of training that `cargo run --release -p sheaf-client --example steps` times, with PyTorch.

Needs torch, and timm or transformers and peft. Run it as
    OMP_NUM_THREADS=1 python scripts/reference/steps.py efficientnet-lite0|minilm all|last:2|head|lora STEPS
It prints the same two medians. Frozen layers are computed in every step, without a gradient: nothing here keeps them.
"""

import pathlib
import sys
import time

import torch

model, trainable, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)


def efficientnet():
    import timm

    net = timm.create_model("tf_efficientnet_lite0", num_classes=2).eval()
    pixels = torch.randint(256, (8, 3, 224, 224), dtype=torch.uint8)
    return net, net.classifier, [], lambda: net((pixels.float() / 255 - 127 / 255) / (128 / 255))


def minilm():
    import transformers

    folder = pathlib.Path.home() / ".cache/sheaf/data/minilm"
    config = transformers.BertConfig.from_pretrained(folder, num_labels=2)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    net = transformers.BertForSequenceClassification(config).train()
    ids = torch.full((16, 64), 1996)
    mask = torch.ones_like(ids)
    return net, net.classifier, net.bert.encoder.layer, lambda: net(input_ids=ids, attention_mask=mask).logits


net, head, layers, forward = {"efficientnet-lite0": efficientnet, "minilm": minilm}[model]()
if trainable == "lora":
    import peft

    targets = ["query", "value"]
    net = peft.get_peft_model(net, peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=targets))
elif trainable != "all":
    net.requires_grad_(False)
    count = int(trainable.partition(":")[2] or 0)
    for part in [head, *list(layers)[len(layers) - count :]]:
        part.requires_grad_(True)
trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.01)
labels = torch.arange(8 if model == "efficientnet-lite0" else 16) % 2
processor, clock = [], []
for _ in range(steps):
    since = time.thread_time(), time.perf_counter()
    loss = torch.nn.functional.cross_entropy(forward(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()
    processor.append(1e3 * (time.thread_time() - since[0]))
    clock.append(1e3 * (time.perf_counter() - since[1]))
median = lambda times: sorted(times[2:])[len(times[2:]) // 2]
print(f"{model} {trainable} {steps}: processor {median(processor):.1f} ms, clock {median(clock):.1f} ms a step")
