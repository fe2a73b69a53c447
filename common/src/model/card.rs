//! The `README.md` of an exported model: what it is, how it was made, how good it is and how to open it.

mod metrics;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::message::ExportPlan;
use crate::run::{
    Architecture, GraphKind, ModelSource, Pooling, RunSpec, SecAggSpec, SecureAggregation, Target, TaskInput,
};
use crate::status::{Answer, RoundOutcome, RoundRecord, RunStatus};

/// The card of the exported model, in Markdown.
pub fn card(plan: &ExportPlan) -> String {
    let spec = &plan.job.spec;
    [
        front_matter(spec),
        format!("# {}\n", plan.status.summary.run),
        about(plan),
        privacy(spec),
        metrics::section(plan),
        usage(spec),
    ]
    .join("\n")
}

fn front_matter(spec: &RunSpec) -> String {
    let number = matches!(spec.task.target, Target::Number(_));
    let keys = match (&spec.task.input, &spec.task.target) {
        (_, Target::NextToken { .. }) => "library_name: transformers\npipeline_tag: text-generation\n",
        (TaskInput::Text { .. }, _) => "library_name: transformers\npipeline_tag: text-classification\n",
        (TaskInput::Table { .. }, _) if number => "pipeline_tag: tabular-regression\n",
        (TaskInput::Table { .. }, _) => "pipeline_tag: tabular-classification\n",
        (TaskInput::Image { .. }, _) => "pipeline_tag: image-classification\n",
        (TaskInput::Nothing, _) => "",
    };
    format!("---\n{keys}tags:\n- federated-learning\n- sheaf\n---\n")
}

fn about(plan: &ExportPlan) -> String {
    let spec = &plan.job.spec;
    let base = match &spec.model.source {
        ModelSource::Imported(name) => format!("`{name}`, pretrained"),
        ModelSource::Fresh(Architecture::Mlp(hidden)) => {
            format!("a multi-layer perceptron, hidden layers {hidden:?}")
        }
        ModelSource::Fresh(Architecture::Softmax) => "softmax regression".into(),
        ModelSource::Fresh(Architecture::Constant(_)) => {
            "no model: a vector that measures the protocol".into()
        }
    };
    let trained = match spec.model.lora {
        Some(_) if matches!(spec.task.target, Target::NextToken { .. }) => {
            "low-rank adapters, merged into the weights here".to_owned()
        }
        Some(_) => "low-rank adapters, merged into the weights here, and the head".to_owned(),
        None => spec.model.trained(),
    };
    let labels: Vec<String> = spec.task.labels().iter().map(|label| cell(label)).collect();
    let rounds = completed(&plan.status, plan.round);
    let mut lines =
        String::from("Trained by federated learning with Sheaf: the data stayed at the sites.\n\n");
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "- {name}: {value}");
    };
    line("Base", base);
    line("Trained", format!("{trained}, {} values", plan.job.params.numel()));
    match &spec.task.target {
        Target::Label { .. } => line("Labels", labels.join(", ")),
        Target::Labels { .. } => line("Labels", format!("any of {}", labels.join(", "))),
        Target::Number(number) => line(
            "Number",
            format!("`{}`, in units of {} from {} on", cell(&number.column), number.std, number.mean),
        ),
        Target::NextToken { .. } | Target::Nothing => {}
    }
    if spec.task.target != Target::Nothing {
        line("Data set", format!("`{}`, as each site has it", cell(&spec.task.dataset)));
    }
    line("Rounds", format!("{} of {}", plan.round, spec.rounds));
    line("Sites", sites(&rounds));
    line("Seed", spec.seed.to_string());
    line("Parameters", format!("`{}` (BLAKE3)", plan.job.global));
    lines
}

/// The rounds that made the model, without abandoned attempts.
fn completed(status: &RunStatus, last: u32) -> Vec<&RoundRecord> {
    status
        .history
        .iter()
        .filter(|record| record.round <= last && matches!(record.outcome, RoundOutcome::Completed(_)))
        .collect()
}

fn sites(rounds: &[&RoundRecord]) -> String {
    let counted = |record: &RoundRecord| {
        let accepted =
            record.participants.iter().filter(|participant| participant.answer == Answer::Accepted);
        accepted.map(|participant| participant.site.clone()).collect::<BTreeSet<_>>()
    };
    let sizes = || rounds.iter().map(|record| counted(record).len());
    let all: BTreeSet<_> = rounds.iter().flat_map(|record| counted(record)).collect();
    match (sizes().min(), sizes().max()) {
        (Some(least), Some(most)) if least < most => {
            format!("{} in all, {least} to {most} per round", all.len())
        }
        (Some(_), Some(_)) => format!("{} in all, {} in every round", all.len(), sizes().max().unwrap_or(0)),
        _ => "none".into(),
    }
}

fn privacy(spec: &RunSpec) -> String {
    match spec.secure_aggregation {
        SecureAggregation::Off => {
            "## Privacy\n\n**Secure aggregation was off: the server saw the update of every single site.** No noise \
             was added to the updates. What a model has learned can be asked of it: treat it as confidential as the \
             data that it was trained on, unless you have reason not to.\n"
        }
        SecureAggregation::Required(SecAggSpec { graph: GraphKind::Complete, .. }) => {
            "## Privacy\n\nSecure aggregation was required: updates were encrypted, and the server learned only \
             their sum, even had it lied. No noise was added: what a model has learned can be asked of it, so treat \
             it as confidential as the data that it was trained on, unless you have reason not to.\n"
        }
        SecureAggregation::Required(SecAggSpec { graph: GraphKind::Regular, .. }) => {
            "## Privacy\n\nSecure aggregation was required on a regular graph: a server that follows the protocol \
             learned only the sum of the updates. **A server that lies could have learned more.** No noise was added: \
             treat the model as confidential as the data that it was trained on, unless you have reason not to.\n"
        }
    }
    .to_owned()
}

/// Text that cannot break out of its table cell or line.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn usage(spec: &RunSpec) -> String {
    match &spec.task.input {
        TaskInput::Text { max_length, .. } => match &spec.task.target {
            Target::NextToken { template, .. } => language_usage(template),
            Target::Label { .. } | Target::Labels { .. } | Target::Number(_) | Target::Nothing => {
                text_usage(spec, *max_length)
            }
        },
        TaskInput::Table { .. } => table_usage(&spec.task.target),
        TaskInput::Image { .. } => String::new(),
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
    let print = match &spec.task.target {
        Target::Number(number) => format!("print(logits[0].item() * {} + {})", number.std, number.mean),
        Target::Labels { .. } => {
            "print([model.config.id2label[i] for i, logit in enumerate(logits[0].tolist()) if logit > 0])"
                .into()
        }
        Target::Label { .. } | Target::NextToken { .. } | Target::Nothing => {
            "print(model.config.id2label[logits.argmax(-1)[0].item()])".to_owned()
        }
    };
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
    format!("{TABLE_USAGE}\n{print}\n```\n")
}

/// How to compute the outputs of a tabular model with numpy alone.
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

def same(a, b):
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

def logits(row):
    x = np.array(list(inputs(row)), dtype=np.float32)
    if config["model_type"] == "softmax":
        return weights["weight"] @ x + weights["bias"]
    last = len(config["hidden"])
    for i in range(last + 1):
        x = weights[f"layers.{i}.weight"] @ x + weights[f"layers.{i}.bias"]
        x = np.maximum(x, 0) if i < last else x
    return x
"#;
