//! Lists as tables without lines, as `kubectl` prints them.

use comfy_table::{CellAlignment, Row, Table, presets};

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// The text of a table. Its columns are named in capitals; two spaces part them.
pub(super) fn table<R: Into<Row>>(columns: &[(&str, Align)], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|(name, _)| *name));
    table.add_rows(rows);
    for (column, (_, align)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    table.trim_fmt()
}

/// `key  value` lines, the values under one another; a value of several lines stays in its column.
pub(super) fn card(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let below = format!("\n{:width$}  ", "");
    let lines = lines.iter().map(|(key, value)| format!("{key:width$}  {}", value.replace('\n', &below)));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_lines_and_no_tails() {
        let text = table(
            &[("RUN", Align::Left), ("ROUNDS", Align::Right)],
            [["a", "1/10"], ["a-long-name", "10/10"]],
        );
        assert_eq!(text, "RUN          ROUNDS\na              1/10\na-long-name   10/10");
    }

    #[test]
    fn a_card_keeps_its_columns() {
        let text = card(&[("run", "a".into()), ("state", "failed\nno sites".into())]);
        assert_eq!(text, "run    a\nstate  failed\n       no sites");
    }
}
