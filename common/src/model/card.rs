//! The `README.md` of an exported model: what it is, how it was made, how good it is and how to open it.

mod metrics;
mod usage;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::message::ExportPlan;
use crate::model::config::ModelConfig;
use crate::run::{
    Architecture, BatchNorm, GraphKind, ModelSource, RunSpec, SecAggSpec, SecureAggregation, Target,
    TaskInput,
};
use crate::status::{Answer, RoundOutcome, RoundRecord, RunStatus};

/// The card of the exported model, in Markdown. `config` is the imported model's, `None` for a fresh one.
pub fn card(plan: &ExportPlan, config: Option<&ModelConfig>) -> String {
    let spec = &plan.job.spec;
    [
        front_matter(spec),
        format!("# {}\n", plan.status.summary.run),
        about(plan),
        privacy(spec),
        metrics::section(plan),
        usage::usage(spec, config),
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
    if spec.model.batch_norm == BatchNorm::Local {
        line(
            "Batch normalisation",
            "every site kept the means and variances that it counted; here are those of the pretrained model, so count \
             them anew on your data before you rely on it"
                .into(),
        );
    }
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
