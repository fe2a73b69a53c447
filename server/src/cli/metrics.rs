//! The metrics in `sheaf run show`: a few per round, and all of the newest model that was evaluated.

use sheaf_common::metrics::{Figure, Report};
use sheaf_common::status::RunStatus;

use super::survey;
use super::table::{Align, card, table};
use super::units::count;

/// The names of the columns by round; none where nothing was evaluated.
pub(super) fn columns(status: &RunStatus) -> Vec<String> {
    headline(status).iter().map(|figure| figure.name.to_uppercase()).collect()
}

/// A report's cells under [`columns`].
pub(super) fn cells(status: &RunStatus, report: Option<&Report>) -> Vec<String> {
    match report {
        Some(report) => report.headline().into_iter().map(|figure| number(figure.value)).collect(),
        None => headline(status).iter().map(|_| number(None)).collect(),
    }
}

/// All metrics of the final model, or else of the newest that a round started from.
pub(super) fn metrics(status: &RunStatus) -> Option<String> {
    let newest = status.history.iter().rev().find_map(|record| {
        Some((format!("the model that round {} started from", record.round), record.global_metrics.as_ref()?))
    });
    if let Some(survey) = status.final_metrics.as_ref().and_then(Report::survey) {
        return Some(survey::text(survey));
    }
    let left_out = status.spec.validation.leave_out.as_ref();
    let name = left_out.map_or_else(
        || "the final model".into(),
        |site| format!("the final model at {site}, which was left out"),
    );
    let last = status.final_metrics.as_ref().map(|report| (name, report));
    let (model, report) = last.or(newest).filter(|(_, report)| report.num_examples() > 0)?;
    Some(all(&format!("{model}, on {} validation examples", count(report.num_examples())), report))
}

/// All metrics of the run's result on what neither trained nor chose it.
pub(super) fn test(status: &RunStatus) -> Option<String> {
    let report = status.test_metrics.as_ref()?;
    let examples = count(report.num_examples());
    Some(all(&format!("test: the model after round {}, on {examples} test examples", status.result), report))
}

fn all(title: &str, report: &Report) -> String {
    let figures: Vec<(&str, String)> =
        report.figures().iter().map(|figure| (figure.name, bounded(figure))).collect();
    let mut text = format!("{title}\n{}", card(&figures));
    if !report.per_class().is_empty() {
        text.push_str("\n\n");
        text.push_str(&labels(report));
    }
    text
}

fn labels(report: &Report) -> String {
    let numbers = ["PRECISION", "RECALL", "F1", "ROC AUC", "PR AUC", "EXAMPLES"];
    let columns: Vec<(&str, Align)> =
        [("LABEL", Align::Left)].into_iter().chain(numbers.map(|name| (name, Align::Right))).collect();
    let rows = report.per_class().iter().map(|class| {
        let ratios = [Some(class.precision), Some(class.recall), Some(class.f1), class.roc_auc, class.pr_auc];
        let ends = (class.label.clone(), count(class.support));
        [ends.0].into_iter().chain(ratios.map(number)).chain([ends.1]).collect::<Vec<_>>()
    });
    table(&columns, rows)
}

/// The headline of any report of the run: all are of one kind.
fn headline(status: &RunStatus) -> Vec<Figure> {
    let mut reports = status.history.iter().filter_map(|record| record.global_metrics.as_ref());
    reports.next().or(status.final_metrics.as_ref()).map(Report::headline).unwrap_or_default()
}

/// A number to four places; a dash where there is none.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.4}"))
}

fn bounded(figure: &Figure) -> String {
    match figure.error {
        Some(error) => format!("{} ± {error:.4}", number(figure.value)),
        None => number(figure.value),
    }
}

#[cfg(test)]
mod tests {
    use sheaf_common::metrics::{Counts, Kind, Regression, Scale};
    use sheaf_common::time::Timestamp;

    use super::super::run_card::run_card;
    use super::super::tests::busy;

    /// Whatever the kind of task, what its report holds is shown.
    #[test]
    fn metrics_of_other_tasks_are_shown_too() {
        let mut counts = Regression::default();
        [(0.0, 0.5), (1.0, 1.0), (2.0, 2.0)].iter().for_each(|(target, made)| counts.observe(*target, *made));
        let kind = Kind::Regression { target: Scale { mean: 0.0, std: 1.0 } };
        let mut done = busy();
        for record in &mut done.history {
            record.global_metrics = None;
        }
        done.final_metrics = Some(Counts::from(counts).report(&kind));
        let text = run_card(&done, Timestamp(0));
        for expected in [
            "TRAIN LOSS     MAE    RMSE      R²\n    1  20.0s       2/2      0.2500       -       -       -\n",
            "  end      -         -           -  0.1667  0.2887  0.8750\nMAE to R²: the global model",
            "the final model, on 3 validation examples\nMAE   0.1667\nRMSE  0.2887\nR²    0.8750\n\n",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
