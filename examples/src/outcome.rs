//! What was measured, as `result.json` for programs and as a table for people.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::baselines::Baselines;
use crate::example::Example;
use crate::federation::Federated;
use crate::metric::{Metric, Score};
use crate::work::{Work, WriteError};

const FILE: &str = "result.json";
/// The plot of metrics by round.
pub(crate) const PLOT_FILE: &str = "metrics.svg";

/// What a demo measured.
pub(crate) struct Outcome {
    result: Report,
    metrics: &'static [Metric],
    rows: Vec<Row>,
    model: String,
}

/// `result.json`. Its form is an interface.
#[derive(Serialize)]
struct Report {
    example: &'static str,
    seed: u64,
    secure_aggregation: String,
    alone: BTreeMap<String, Score>,
    federated: Score,
    pooled: Score,
    bytes: Bytes,
    /// The whole demo, without the build.
    seconds: f64,
}

/// What the sites sent and fetched.
#[derive(Serialize)]
struct Bytes {
    up: u64,
    down: u64,
}

/// A line of the table.
struct Row {
    name: String,
    score: Score,
    /// Bytes that sites sent and fetched.
    moved: Option<(u64, u64)>,
    time: Duration,
}

impl Outcome {
    /// Puts together what was measured.
    pub(crate) fn new(
        example: &Example,
        federated: &Federated,
        baselines: Baselines,
        time: Duration,
    ) -> Self {
        let Baselines { alone, pooled, federated: score } = baselines;
        let metrics = example.metrics;
        let only = |score: &Score| score.only(metrics);
        let result = Report {
            example: example.choice.example,
            seed: example.choice.seed,
            secure_aggregation: federated.history.secure_aggregation.clone(),
            alone: alone.iter().map(|site| (site.name.clone(), only(&site.score))).collect(),
            federated: only(&score),
            pooled: only(&pooled.score),
            bytes: Bytes { up: federated.bytes_up, down: federated.bytes_down },
            seconds: (time.as_secs_f64() * 10.0).round() / 10.0,
        };
        let mut rows: Vec<Row> = alone
            .into_iter()
            .map(|site| Row {
                name: format!("{} alone", site.name),
                score: site.score,
                moved: None,
                time: site.time,
            })
            .collect();
        let moved = Some((federated.bytes_up, federated.bytes_down));
        rows.push(Row { name: "federated".into(), score, moved, time: federated.time });
        rows.push(Row { name: "pooled".into(), score: pooled.score, moved: None, time: pooled.time });
        Self { result, metrics, rows, model: federated.model.clone() }
    }

    /// Writes `result.json`.
    pub(crate) fn write(&self, work: &Work) -> Result<(), WriteError> {
        work.write_json(FILE, &self.result)
    }

    /// Prints the table and says where everything is.
    pub(crate) fn print(&self, work: &Work) {
        println!("\n== What federating was worth: the models on the common test set\n");
        println!("{}\n", self.table());
        let place = |file: &str| work.path(file).display().to_string();
        println!("result   {}", place(FILE));
        println!("plot     {}", place(PLOT_FILE));
        println!("model    {}", place(&self.model));
        println!("all of it took {:.0} seconds", self.result.seconds);
    }

    fn table(&self) -> String {
        let titles = self.metrics.iter().map(|metric| metric.title);
        let header = [""].into_iter().chain(titles).chain(["sent", "fetched", "seconds"]);
        let mut lines = vec![header.map(str::to_owned).collect()];
        for Row { name, score, moved, time } in &self.rows {
            let value = |metric: &Metric| or_dash(score.value(*metric), |value| format!("{value:.4}"));
            let mut line = vec![name.clone()];
            line.extend(self.metrics.iter().map(value));
            line.push(or_dash(moved.map(|(up, _)| up), megabytes));
            line.push(or_dash(moved.map(|(_, down)| down), megabytes));
            line.push(format!("{:.1}", time.as_secs_f64()));
            lines.push(line);
        }
        aligned(&lines)
    }
}

fn or_dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Cells in columns: the first to the left, the others to the right.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell: &String| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let cell = |(column, cell): (usize, &String)| match widths[column] {
        width if column == 0 => format!("  {cell:width$}"),
        width => format!("  {cell:>width$}"),
    };
    let line = |line: &Vec<String>| line.iter().enumerate().map(cell).collect::<String>();
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_result_has_the_form_that_was_promised() {
        let score = json!({ "accuracy": 0.75, "roc_auc": null });
        let federated = json!({ "accuracy": 0.75, "roc_auc": 0.875 });
        let read = |score: &serde_json::Value| serde_json::from_value::<Score>(score.clone()).unwrap();
        let result = Report {
            example: "newswire",
            seed: 1,
            secure_aggregation: "off".into(),
            alone: BTreeMap::from([("desk-1".to_owned(), read(&score))]),
            federated: read(&federated),
            pooled: read(&score),
            bytes: Bytes { up: 1, down: 2 },
            seconds: 3.5,
        };
        let expected = json!({
            "example": "newswire",
            "seed": 1,
            "secure_aggregation": "off",
            "alone": { "desk-1": score },
            "federated": federated,
            "pooled": score,
            "bytes": { "up": 1, "down": 2 },
            "seconds": 3.5,
        });
        assert_eq!(json!(result), expected);
    }

    #[test]
    fn columns_are_aligned() {
        let lines = [vec!["".to_owned(), "n".into()], vec!["site".into(), "12".into()]];
        assert_eq!(aligned(&lines), "         n\n  site  12");
    }
}
