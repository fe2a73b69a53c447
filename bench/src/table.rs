//! The table that is printed.

use comfy_table::{CellAlignment, Table, presets};

use crate::result::Row;
use crate::simulation;

/// The columns that hold words.
const WORKLOAD: usize = 0;
const CONTESTANT: usize = 3;

pub(crate) fn of(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "workload",
        "MB",
        "clients",
        "contestant",
        "seconds (min to max)",
        "MB/s, clients/s",
        "CPU s",
        "peak MB",
        "loopback / payload",
    ]);
    for (number, column) in table.column_iter_mut().enumerate() {
        if ![WORKLOAD, CONTESTANT].contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        table.add_row(cells(row));
    }
    table
}

/// Why contestants failed, a line each.
pub(crate) fn failures(rows: &[Row]) -> String {
    let of = |row: &Row| {
        let Row { workload, contestant, size_mb, clients, failure, .. } = row;
        let why = failure.as_ref()?;
        Some(format!("{workload}, {size_mb} MB x {clients}: {contestant} failed: {why}\n"))
    };
    rows.iter().filter_map(of).collect()
}

fn cells(row: &Row) -> [String; 9] {
    let number = |value: Option<f64>, digits| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    let seconds = match (&row.failure, row.seconds, row.min, row.max) {
        (Some(_), ..) => "failed".into(),
        (None, Some(seconds), Some(min), Some(max)) => {
            // Of what takes less than a hundredth three digits would be nothing.
            let digits = if seconds < 0.01 { 5 } else { 3 };
            format!("{seconds:.digits$} ({min:.digits$} to {max:.digits$})")
        }
        (None, ..) => "-".into(),
    };
    // Bytes once for each client and way in a round, and once where there are no clients; virtual clients once a round.
    let done = match row.workload {
        "round" | "secure round" | "crowd" => Some(2.0 * f64::from(row.clients) * row.size_mb),
        "simulation" => Some(f64::from(simulation::ROUNDS * row.clients)),
        _ if row.clients == 1 && row.size_mb > 0.0 => Some(row.size_mb),
        _ => None,
    };
    [
        row.workload.into(),
        format!("{}", row.size_mb),
        row.clients.to_string(),
        row.contestant.into(),
        seconds,
        number(done.zip(row.seconds).map(|(done, seconds)| done / seconds), 0),
        number(row.cpu_seconds, 2),
        number(row.server_rss_mb, 0),
        number(row.wire, 3),
    ]
}
