//! How to open an exported model and compute what it gives, without Sheaf.

use crate::model::config::ModelConfig;
use crate::run::{Pooling, RunSpec, Target, TaskInput};

/// The card's section on use.
pub(super) fn usage(spec: &RunSpec, config: Option<&ModelConfig>) -> String {
    if let Some(ModelConfig::Script(_)) = config {
        return script_usage(spec);
    }
    let of_hugging_face =
        matches!(config, Some(ModelConfig::Image(image)) if image.architecture.hugging_face().is_some());
    match &spec.task.input {
        TaskInput::Text { max_length, .. } => match &spec.task.target {
            Target::NextToken { template, .. } => language_usage(template),
            Target::Label { .. } | Target::Labels { .. } | Target::Number(_) | Target::Nothing => {
                text_usage(spec, *max_length)
            }
        },
        TaskInput::Table { .. } => table_usage(&spec.task.target),
        TaskInput::Image { .. } if of_hugging_face => vit_usage(&spec.task.target),
        TaskInput::Image { .. } => image_usage(&spec.task.target),
        TaskInput::Nothing => "## Use\n\n`model.safetensors` holds one tensor, `values`.\n".into(),
    }
}

fn language_usage(template: &str) -> String {
    // A string of JSON is one of Python, too.
    let template = serde_json::Value::from(template);
    format!(
        "## Use\n\n```python\n\
         from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         tokenizer = AutoTokenizer.from_pretrained(\".\")\n\
         model = AutoModelForCausalLM.from_pretrained(\".\").eval()\n\
         prompt = {template}.replace(\"{{text}}\", \"a text\")\n\
         batch = tokenizer(prompt, return_tensors=\"pt\")\n\
         out = model.generate(**batch, max_new_tokens=40, do_sample=False)[0, batch.input_ids.shape[1]:]\n\
         print(tokenizer.decode(out, skip_special_tokens=True))\n```\n"
    )
}

fn text_usage(spec: &RunSpec, max_length: u32) -> String {
    let (warning, logits) = match spec.model.pooling {
        Pooling::Cls => ("", "    logits = model(**batch).logits\n"),
        Pooling::Mean => (
            "The classifier reads the *mean* of the token vectors. `AutoModelForSequenceClassification` and \
             `pipeline(...)` open this folder, but they would feed it the first token instead and predict nonsense: \
             pool as below.\n\n",
            "    hidden = model.base_model(**batch).last_hidden_state\n    \
             mask = batch[\"attention_mask\"].unsqueeze(-1).to(hidden.dtype)\n    \
             dense = getattr(model.classifier, \"out_proj\", model.classifier)\n    \
             logits = dense((hidden * mask).sum(1) / mask.sum(1))\n",
        ),
    };
    let print = print_names(&spec.task.target);
    format!(
        "## Use\n\n{warning}```python\n\
         import torch\n\
         from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n\
         tokenizer = AutoTokenizer.from_pretrained(\".\")\n\
         model = AutoModelForSequenceClassification.from_pretrained(\".\").eval()\n\
         texts = [\"a text\"]\n\
         batch = tokenizer(texts, truncation=True, max_length={max_length}, padding=True, return_tensors=\"pt\")\n\
         with torch.no_grad():\n{logits}\
         {print}\n```\n"
    )
}

/// Prints what the logits say, by the names in a `config.json` of Hugging Face's.
fn print_names(target: &Target) -> String {
    match target {
        Target::Number(number) => format!("print(logits[0].item() * {} + {})", number.std, number.mean),
        Target::Labels { .. } => {
            "print([model.config.id2label[i] for i, logit in enumerate(logits[0].tolist()) if logit > 0])"
                .into()
        }
        Target::Label { .. } | Target::NextToken { .. } | Target::Nothing => {
            "print(model.config.id2label[logits.argmax(-1)[0].item()])".to_owned()
        }
    }
}

fn vit_usage(target: &Target) -> String {
    format!("{VIT_USAGE}{}\n```\n", print_names(target))
}

/// How to compute the outputs of a vision transformer of Hugging Face's.
const VIT_USAGE: &str = r#"## Use

```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained(".")
model = AutoModelForImageClassification.from_pretrained(".").eval()
image = Image.open("image.png").convert("RGB")
# The run read the largest square in an image's middle; the processor alone would squeeze the whole image into one.
side = min(image.size)
left, top = (image.width - side) // 2, (image.height - side) // 2
image = image.crop((left, top, left + side, top + side))
with torch.no_grad():
    logits = model(**processor(image, return_tensors="pt")).logits
"#;

fn table_usage(target: &Target) -> String {
    let print = match target {
        Target::Number(_) => {
            "number = config[\"number\"]\nprint(float(logits({})[0]) * number[\"std\"] + number[\"mean\"])"
        }
        Target::Labels { .. } => {
            "print([label for label, logit in zip(config[\"labels\"], logits({})) if logit > 0])"
        }
        Target::Label { .. } | Target::NextToken { .. } | Target::Nothing => {
            "print(config[\"labels\"][int(np.argmax(logits({})))])"
        }
    };
    format!("{TABLE_USAGE}\n{TABLE_INPUTS}\n{TABLE_LOGITS}\n{print}\n```\n")
}

fn image_usage(target: &Target) -> String {
    let (print, pixels) = (print_logits(target), PIXELS);
    format!(
        "{IMAGE_USAGE}\n{pixels}with torch.no_grad():\n    logits = model(values.permute(2, 0, 1)[None].float())\n\
         {print}\n```\n"
    )
}

fn script_usage(spec: &RunSpec) -> String {
    let (libraries, values) = match &spec.task.input {
        TaskInput::Image { .. } => ("import numpy as np\nfrom PIL import Image\n", PIXELS),
        TaskInput::Table { .. } | TaskInput::Text { .. } | TaskInput::Nothing => ("", TABLE_INPUTS),
    };
    let batch = match &spec.task.input {
        TaskInput::Image { .. } => "values.permute(2, 0, 1)[None].float()",
        TaskInput::Table { .. } | TaskInput::Text { .. } | TaskInput::Nothing => {
            "torch.tensor([list(inputs({}))], dtype=torch.float32)"
        }
    };
    let print = print_logits(&spec.task.target);
    format!(
        "## Use\n\n{SCRIPT_ABOUT}\n```python\nimport json\nimport torch\n{libraries}{SCRIPT_USAGE}\n{values}\
         with torch.no_grad():\n    logits = module({batch})\n{print}\n```\n"
    )
}

/// What `logits`, a tensor of one row, say.
fn print_logits(target: &Target) -> String {
    match target {
        Target::Number(number) => {
            format!("print(logits[0].item() * {} + {})", number.std, number.mean)
        }
        Target::Labels { .. } => {
            "print([label for label, logit in zip(config[\"labels\"], logits[0].tolist()) if logit > 0])"
                .into()
        }
        Target::Label { .. } | Target::NextToken { .. } | Target::Nothing => {
            "print(config[\"labels\"][logits.argmax(-1)[0].item()])".to_owned()
        }
    }
}

/// What an exported TorchScript module is.
const SCRIPT_ABOUT: &str = "\
`model.pt` is the TorchScript module as it was imported, and `model.safetensors` has the values that its parameters have \
now, under its own names. To load a module is to run its code. `sheaf model import` takes this folder as a pretrained model.
";

/// How to load it with PyTorch.
const SCRIPT_USAGE: &str = r#"from safetensors.torch import load_file

config = json.load(open("config.json"))
module = torch.jit.load("model.pt", map_location="cpu").eval()
# Buffers and frozen parameters are as they are in model.pt.
_, unexpected = module.load_state_dict(load_file("model.safetensors"), strict=False)
assert not unexpected
"#;

/// How to compute the outputs of an image model with the library whose names its tensors have.
const IMAGE_USAGE: &str = r#"## Use

The tensors have the names of torchvision (`model_type` begins with `torchvision_`) or timm (`timm_`): make the same
architecture there with as many outputs. Batch normalisation keeps the statistics of the base model.
`sheaf model import` takes this folder as a pretrained model.

```python
import json
import numpy as np
import timm, torch
from PIL import Image
from safetensors.torch import load_file

config = json.load(open("config.json"))
weights = load_file("model.safetensors")
outputs = len(next(weights[name] for name in ("classifier.bias", "head.bias", "fc.bias") if name in weights))
# EfficientNet-Lite0; for others vit_tiny_patch16_224 …, or torchvision.models.resnet18(num_classes=outputs) …
model = timm.create_model("tf_efficientnet_lite0", num_classes=outputs).eval()
model.load_state_dict(weights, strict=False)
"#;

/// How to make the values that an image model reads of an image.
const PIXELS: &str = r#"image = Image.open("image.png").convert("RGB" if len(config["mean"]) == 3 else "L")
side = min(image.size)
left, top = (image.width - side) // 2, (image.height - side) // 2
image = image.crop((left, top, left + side, top + side)).resize((config["image_size"],) * 2, Image.BILINEAR)
pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).reshape(image.height, image.width, -1)
values = (pixels - torch.tensor(config["mean"])) / torch.tensor(config["std"])
"#;

/// How to compute the outputs of a tabular model with numpy alone, before its inputs are made.
const TABLE_USAGE: &str = r#"## Use

`config.json` lists the columns (`features`) in the order of the model's inputs. A numeric column becomes two
inputs, `(x - mean) / std` and 0, or 0 and 1 where the value is missing; a categorical one becomes one input per
category, all 0 where the value is missing.
`sheaf model import` takes this folder as a pretrained model.

```python
import json
import numpy as np
from safetensors.numpy import load_file

config, weights = json.load(open("config.json")), load_file("model.safetensors")
"#;

/// How to make the inputs of a tabular model of a row, a dict of its columns.
const TABLE_INPUTS: &str = r#"def same(a, b):
    try:
        return float(a) == float(b)
    except ValueError:
        return str(a) == b

def inputs(row):
    for feature in config["features"]:
        value = row.get(feature["column"])
        missing = value is None or value == "" or any(same(value, word) for word in feature["missing"])
        if feature["type"] == "numeric":
            yield from (0.0, 1.0) if missing else ((float(value) - feature["mean"]) / feature["std"], 0.0)
        else:
            yield from (float(not missing and str(value) == category) for category in feature["categories"])
"#;

/// How to compute the outputs from them.
const TABLE_LOGITS: &str = r#"def logits(row):
    x = np.array(list(inputs(row)), dtype=np.float32)
    if config["model_type"] == "softmax":
        return weights["weight"] @ x + weights["bias"]
    last = len(config["hidden"])
    for i in range(last + 1):
        x = weights[f"layers.{i}.weight"] @ x + weights[f"layers.{i}.bias"]
        x = np.maximum(x, 0) if i < last else x
    return x
"#;
