//! Quantities as people read them.

/// Bytes: `512 B`, `14.2 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        // What rounds to 1000.0 belongs to the next unit.
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A time in seconds: `0.42 ms`, `12.3 s`, `4.2 min`, `3.1 h`.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5400.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A metric to four places; a dash where there is none.
pub(super) fn metric(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        assert_eq!(
            [0, 999, 1000, 999_960, 14_200_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "1.0 MB", "14.2 MB"]
        );
        assert_eq!([0.00042, 12.34, 252.0, 11_160.0].map(seconds), ["0.42 ms", "12.3 s", "4.2 min", "3.1 h"]);
        assert_eq!([Some(0.98765), None].map(metric), ["0.9877", "-"]);
    }
}
