//! How good the exported model is: the pooled metrics as the card shows them.

use std::fmt::Write;

use super::cell;
use crate::message::ExportPlan;
use crate::metrics::{CalibrationReport, ClassReport, Report};

/// The section on metrics.
pub(super) fn section(plan: &ExportPlan) -> String {
    let status = &plan.status;
    let known = |report: &&Report| report.num_examples() > 0;
    let validation = status.metrics_after(plan.round).filter(known);
    let tested = status.test_metrics.as_ref().filter(|_| plan.round == status.result).filter(known);
    let mut text = match (validation, tested) {
        (None, None) => return "## Metrics\n\nThe model was not evaluated at the sites.\n".into(),
        (Some(report), _) => figures("Metrics", &measured_on(plan, report.num_examples()), report),
        (None, Some(_)) => String::new(),
    };
    if let Some(report) = tested {
        let examples = report.num_examples();
        let what = format!(
            "On the test examples of the sites ({examples} in all), which neither trained nor chose the model, measured \
             once when training was over"
        );
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&figures("Test", &what, report));
    }
    text
}

fn figures(title: &str, measured_on: &str, report: &Report) -> String {
    let mut text = format!(
        "## {title}\n\n{measured_on}. The areas under curves are of binned scores, and exact to what stands behind \
         the ±:\n\n| metric | value |\n|---|---|\n"
    );
    for figure in report.figures() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {} |", figure.name, bounded(figure.value, figure.error));
    }
    if !report.per_class().is_empty() {
        text.push_str(&labels(report.per_class()));
    }
    if let Some(report) = report.classification() {
        text.push_str(&calibration(&report.calibration));
    }
    text
}

fn measured_on(plan: &ExportPlan, examples: u64) -> String {
    let status = &plan.status;
    let is_last = plan.round == status.summary.completed_rounds;
    match status.spec.validation.leave_out.as_ref().filter(|_| is_last) {
        Some(site) => format!("On all {examples} examples of {site}, which took no part in the training"),
        None => format!(
            "On the validation examples of the sites ({examples} in all), computed from their added counts as if \
             all examples lay in one place"
        ),
    }
}

fn labels(classes: &[ClassReport]) -> String {
    let mut text = "\n| label | precision | recall | F1 | ROC AUC | PR AUC | examples |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for class in classes {
        let _ = writeln!(
            text,
            "| {} | {:.4} | {:.4} | {:.4} | {} | {} | {} |",
            cell(&class.label),
            class.precision,
            class.recall,
            class.f1,
            shown(class.roc_auc),
            shown(class.pr_auc),
            class.support
        );
    }
    text
}

/// The bins that hold anything.
fn calibration(bins: &[CalibrationReport]) -> String {
    let mut text =
        "\nHow often the predicted label was right, by its probability:\n\n| probability | mean | right | examples \
         |\n|---|---|---|---|\n"
            .to_owned();
    for bin in bins.iter().filter(|bin| bin.num_examples > 0) {
        let (above, to, examples) = (bin.above, bin.to, bin.num_examples);
        let (mean, right) = (shown(bin.confidence), shown(bin.accuracy));
        let _ = writeln!(text, "| {above:.1} to {to:.1} | {mean} | {right} | {examples} |");
    }
    text
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.4}"))
}

fn bounded(value: Option<f64>, error: Option<f64>) -> String {
    match error {
        Some(error) => format!("{} ± {error:.4}", shown(value)),
        None => shown(value),
    }
}
