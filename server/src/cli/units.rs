//! Quantities as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sheaf_common::time::Timestamp;
use time::OffsetDateTime;

/// Bytes: `512 B`, `14.2 MB`.
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        // What rounds to 1000.0 belongs to the next unit.
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A number with its thousands set apart: `22,713,216`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 site`, `4 sites`.
pub(super) fn plural(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{} {noun}s", count(number)) }
}

/// How long something took: `0.4s`, `12.3s`, `4m10s`, `3h05m`, `2d04h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 59.95 {
        return format!("{seconds:.1}s");
    }
    coarse(duration)
}

/// How long something takes or is ago, to the second: `12s`, `4m10s`, `3h05m`, `2d04h`.
pub(super) fn coarse(duration: Duration) -> String {
    let seconds = (duration.as_millis() + 500) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 60 => format!("{seconds}s"),
        () if minutes < 60 => format!("{minutes}m{:02}s", seconds % 60),
        () if hours < 24 => format!("{hours}h{:02}m", minutes % 60),
        () => format!("{days}d{:02}h", hours % 24),
    }
}

/// How long ago `then` was at `now`; clocks that disagree show no negative age.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    coarse(now.since(then))
}

/// The clock of this machine.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A point in time for programs, RFC 3339 in UTC with milliseconds.
pub(super) fn rfc3339(at: Timestamp) -> String {
    let nanos = i128::from(at.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or_else(
        |_| format!("{}ms", at.0),
        |at| format!("{}.{:03}Z", date_and_time(at, 'T'), at.millisecond()),
    )
}

/// A point in time for people, in UTC: `2026-05-01 12:30:00`.
pub(super) fn date_and_time(at: OffsetDateTime, between: char) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}{between}{:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_people_read_them() {
        let cases =
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn counts_as_people_read_them() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (22_713_216, "22,713,216")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert_eq!((plural(1, "site"), plural(0, "site")), ("1 site".into(), "0 sites".into()));
    }

    #[test]
    fn durations_as_people_read_them() {
        let cases =
            [(400, "0.4s"), (59_949, "59.9s"), (59_999, "1m00s"), (250_000, "4m10s"), (11_100_000, "3h05m")];
        for (millis, text) in cases {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(duration(Duration::from_secs(187_200)), "2d04h");
        assert_eq!(coarse(Duration::from_millis(12_499)), "12s");
        duration(Duration::MAX);
    }

    #[test]
    fn times_for_programs() {
        assert_eq!(rfc3339(Timestamp(1_777_638_600_042)), "2026-05-01T12:30:00.042Z");
        assert_eq!(rfc3339(Timestamp(u64::MAX)), format!("{}ms", u64::MAX));
        assert_eq!(age(Timestamp(5000), Timestamp(1000)), "0s");
    }
}
