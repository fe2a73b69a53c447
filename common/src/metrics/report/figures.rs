//! A report as a list of named figures, so that whoever prints or stores metrics need not know every kind of task.

use std::fmt;

use super::{
    ClassReport, ClassificationReport, LanguageReport, MultiLabelReport, RegressionReport, Report,
    SurveyReport,
};

/// A metric with its names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Its name for programs: the report's field.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// The metric; `None` where the examples have none.
    pub value: Option<f64>,
    /// The most by which binning can have changed it; `None` where nothing was binned.
    pub error: Option<f64>,
}

/// The figures of a table or a line, by kind.
const HEADLINE: [&str; 9] =
    ["loss", "perplexity", "accuracy", "token_accuracy", "macro_f1", "roc_auc", "mae", "rmse", "r2"];

impl Report {
    /// Examples counted; for a language model, texts.
    pub fn num_examples(&self) -> u64 {
        match self {
            Self::Classification(report) => report.num_examples,
            Self::MultiLabel(report) => report.num_examples,
            Self::Regression(report) => report.num_examples,
            Self::Language(report) => report.num_examples,
            Self::Survey(report) => report.num_examples,
        }
    }

    /// The report on a classifier, if it is one.
    pub fn classification(&self) -> Option<&ClassificationReport> {
        match self {
            Self::Classification(report) => Some(report),
            Self::MultiLabel(_) | Self::Regression(_) | Self::Language(_) | Self::Survey(_) => None,
        }
    }

    /// The report on what sites hold, if it is one.
    pub fn survey(&self) -> Option<&SurveyReport> {
        match self {
            Self::Survey(report) => Some(report),
            Self::Classification(_) | Self::MultiLabel(_) | Self::Regression(_) | Self::Language(_) => None,
        }
    }

    /// Each label against the rest, where there are labels.
    pub fn per_class(&self) -> &[ClassReport] {
        match self {
            Self::Classification(report) => &report.per_class,
            Self::MultiLabel(report) => &report.per_class,
            Self::Regression(_) | Self::Language(_) | Self::Survey(_) => &[],
        }
    }

    /// All metrics of the model as a whole; a survey has no model.
    pub fn figures(&self) -> Vec<Figure> {
        match self {
            Self::Classification(report) => classification(report),
            Self::MultiLabel(report) => multi_label(report),
            Self::Regression(report) => regression(report),
            Self::Language(report) => language(report),
            Self::Survey(_) => Vec::new(),
        }
    }

    /// The few that fit a line.
    pub fn headline(&self) -> Vec<Figure> {
        self.figures().into_iter().filter(|figure| HEADLINE.contains(&figure.key)).collect()
    }
}

/// The headline as one line: `loss 0.5000, accuracy 0.9000`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |figure: Figure| Some(format!("{} {:.4}", figure.name, figure.value?));
        let figures: Vec<String> = self.headline().into_iter().filter_map(some).collect();
        f.write_str(&figures.join(", "))
    }
}

fn exact(key: &'static str, name: &'static str, value: f64) -> Figure {
    Figure { key, name, value: Some(value), error: None }
}

fn binned(key: &'static str, name: &'static str, value: Option<f64>, error: Option<f64>) -> Figure {
    Figure { key, name, value, error }
}

fn classification(report: &ClassificationReport) -> Vec<Figure> {
    vec![
        exact("loss", "loss", report.loss),
        exact("accuracy", "accuracy", report.accuracy),
        exact("balanced_accuracy", "balanced accuracy", report.balanced_accuracy),
        exact("macro_precision", "macro precision", report.macro_precision),
        exact("macro_recall", "macro recall", report.macro_recall),
        exact("macro_f1", "macro F1", report.macro_f1),
        exact("weighted_precision", "weighted precision", report.weighted_precision),
        exact("weighted_recall", "weighted recall", report.weighted_recall),
        exact("weighted_f1", "weighted F1", report.weighted_f1),
        binned("roc_auc", "ROC AUC", report.roc_auc, report.roc_auc_error),
        binned("pr_auc", "PR AUC", report.pr_auc, report.pr_auc_error),
        exact("mcc", "Matthews correlation", report.mcc),
        exact("cohen_kappa", "Cohen's kappa", report.cohen_kappa),
        exact("brier_score", "Brier score", report.brier_score),
        exact("calibration_error", "calibration error", report.calibration_error),
    ]
}

fn multi_label(report: &MultiLabelReport) -> Vec<Figure> {
    vec![
        exact("loss", "loss", report.loss),
        exact("accuracy", "accuracy", report.accuracy),
        exact("micro_precision", "micro precision", report.micro_precision),
        exact("micro_recall", "micro recall", report.micro_recall),
        exact("micro_f1", "micro F1", report.micro_f1),
        exact("macro_precision", "macro precision", report.macro_precision),
        exact("macro_recall", "macro recall", report.macro_recall),
        exact("macro_f1", "macro F1", report.macro_f1),
        exact("weighted_precision", "weighted precision", report.weighted_precision),
        exact("weighted_recall", "weighted recall", report.weighted_recall),
        exact("weighted_f1", "weighted F1", report.weighted_f1),
        binned("roc_auc", "ROC AUC", report.roc_auc, report.roc_auc_error),
        binned("micro_roc_auc", "micro ROC AUC", report.micro_roc_auc, report.micro_roc_auc_error),
        binned("pr_auc", "PR AUC", report.pr_auc, report.pr_auc_error),
    ]
}

fn regression(report: &RegressionReport) -> Vec<Figure> {
    vec![
        exact("mae", "MAE", report.mae),
        exact("rmse", "RMSE", report.rmse),
        binned("r2", "R²", report.r2, None),
    ]
}

fn language(report: &LanguageReport) -> Vec<Figure> {
    vec![
        exact("loss", "loss", report.loss),
        exact("perplexity", "perplexity", report.perplexity),
        exact("token_accuracy", "token accuracy", report.token_accuracy),
    ]
}
