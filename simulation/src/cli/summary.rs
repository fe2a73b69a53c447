//! What a simulation came to, on one screen.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::output::Report;
use crate::rounds::Score;

/// Metrics of the summary, in this order.
const SHOWN: [&str; 7] = ["accuracy", "token_accuracy", "macro_f1", "roc_auc", "rmse", "r2", "loss"];

/// The summary of a report that is in `out`.
pub(super) fn of(report: &Report, out: &Path) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |what: &str, value: String| _ = writeln!(text, "{what:<16}{value}");
    line("run", format!("{}: {}", report.run, because(&report.state, &report.detail)));
    line("clients", report.clients.to_string());
    let abandoned = match report.abandoned {
        0 => String::new(),
        count => format!(", {count} attempts abandoned"),
    };
    line("rounds", format!("{}{abandoned}", report.rounds));
    for (what, score) in [
        ("test", Some(&report.test)),
        ("validation", Some(&report.validation)),
        ("clients' test", Some(&report.clients_test)),
        ("pooled", report.baselines.pooled.as_ref()),
        ("local", report.baselines.local.as_ref()),
    ] {
        let said = score.map(metrics).unwrap_or_default();
        if !said.is_empty() {
            line(what, said);
        }
    }
    if let Some([best, worst]) = &report.baselines.local_range {
        line("  best of them", metrics(best));
        line("  worst of them", metrics(worst));
    }
    if let Some((name, why)) = report.baselines.failed.iter().next() {
        let others = report.baselines.failed.len() - 1;
        let more = if others == 0 { String::new() } else { format!(", and {others} more") };
        line("  not trained", format!("{name} ({why}){more}"));
    }
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    line("sent", format!("{} up, {} down", mib(report.traffic.up), mib(report.traffic.down)));
    line("simulated time", time(report.simulated_seconds));
    line("real time", time(report.real_seconds));
    line("peak memory", mib(report.peak_memory));
    line("results", out.display().to_string());
    text
}

fn because(state: &str, detail: &str) -> String {
    if detail.is_empty() { state.to_owned() } else { format!("{state}, {detail}") }
}

fn metrics(score: &Score) -> String {
    let said = SHOWN.iter().filter_map(|name| score.get(*name).map(|value| format!("{name} {value:.4}")));
    said.collect::<Vec<_>>().join(", ")
}

fn time(seconds: f64) -> String {
    let whole = Duration::from_millis((seconds * 1000.0) as u64);
    humantime::format_duration(whole).to_string()
}
