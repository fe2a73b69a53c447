//! The table of a comparison: a row for each variant, means with standard deviations over seeds.

use std::fmt;
use std::path::Path;

use crate::compare::{Mean, Target, Variant, is_loss, points};
use crate::output::{OutputError, Report, write_csv};

/// Rows of cells, the first of which is the header.
pub(super) struct Table(Vec<Vec<String>>);

/// The table of these variants.
pub(super) fn of(variants: &[Variant], metric: &str, target: Option<Target>) -> Table {
    let mut header = vec![
        "variant".to_owned(),
        "seeds".into(),
        "rounds".into(),
        metric.to_owned(),
        format!("best {metric}"),
    ];
    if let Some(Target(target)) = target {
        header.push(format!("rounds to {target}"));
    }
    header.extend(["MiB sent", "simulated minutes", "real seconds"].map(str::to_owned));
    let best = if is_loss(metric) { f64::min } else { f64::max };
    let row = |variant: &Variant| {
        let values = |report: &Report| points(report, metric).into_iter().map(|point| point.value);
        let mut cells = vec![
            variant.name.clone(),
            variant.reports.len().to_string(),
            cell(variant.mean(|report| Some(f64::from(report.rounds))), 0),
            cell(variant.mean(|report| values(report).next_back()), 4),
            cell(variant.mean(|report| values(report).reduce(best)), 4),
        ];
        if let Some(target) = target {
            let reached = variant.rounds_to(metric, target);
            let all = variant.reports.len();
            let some = reached
                .filter(|mean| mean.count < all)
                .map(|mean| format!(" ({} of {all} seeds)", mean.count));
            cells.push(format!("{}{}", cell(reached, 0), some.unwrap_or_default()));
        }
        let sent = |report: &Report| (report.traffic.up + report.traffic.down) as f64 / f64::from(1 << 20);
        cells.extend([
            cell(variant.mean(|report| Some(sent(report))), 1),
            cell(variant.mean(|report| Some(report.simulated_seconds / 60.0)), 1),
            cell(variant.mean(|report| Some(report.real_seconds)), 1),
        ]);
        cells
    };
    Table([header].into_iter().chain(variants.iter().map(row)).collect())
}

/// A mean and, over several seeds, its standard deviation.
fn cell(mean: Option<Mean>, digits: usize) -> String {
    match mean {
        None => "–".to_owned(),
        Some(Mean { mean, count: 1, .. }) => format!("{mean:.digits$}"),
        Some(Mean { mean, sd, .. }) => format!("{mean:.digits$} ± {sd:.digits$}"),
    }
}

impl Table {
    /// Writes it as CSV.
    pub(super) fn write(&self, path: &Path) -> Result<(), OutputError> {
        write_csv(path, &self.0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        let mut rows = self.0.iter();
        if let Some(header) = rows.next() {
            table.set_header(header);
        }
        rows.for_each(|row| _ = table.add_row(row));
        table.fmt(f)
    }
}
