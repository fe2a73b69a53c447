//! How fast bulk may go and when: a site's up-link may be needed by others, and by day more than by night. Control
//! messages are never held back.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

/// A limited transfer moves at most what may go in this time at once.
const PIECE: Duration = Duration::from_millis(250);

/// Bytes moved at once at least, however low the limit.
const PIECE_MIN: u64 = 4 << 10;

/// The hours are looked at so often: a change of clocks must not be missed.
const LOOK: Duration = Duration::from_secs(30);

const DAY: u16 = 24 * 60;

/// Bytes per second, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// As a number.
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    fn time_for(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.0 as f64)
    }
}

/// What is written is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rate; write \"2MB/s\", \"500kB/s\" or \"16Mbit/s\"")]
pub struct BadRate(String);

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let bad = || BadRate(text.to_owned());
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, unit) = text.split_at(split);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let factor = match unit.trim_start() {
            "B/s" => 1.0,
            "kB/s" => 1e3,
            "MB/s" => 1e6,
            "GB/s" => 1e9,
            "kbit/s" => 125.0,
            "Mbit/s" => 125e3,
            "Gbit/s" => 125e6,
            _ => return Err(bad()),
        };
        let rate = number * factor;
        if (1.0..=1e12).contains(&rate) { Ok(Self(rate as u64)) } else { Err(bad()) }
    }
}

/// Hours of every day, such as those of the night.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes since midnight.
    from: u16,
    to: u16,
    utc: bool,
}

/// What is written names no hours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` are no hours; write \"20:00-06:00\" in this machine's local time, or \"20:00-06:00 UTC\"")]
pub struct BadHours(String);

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        let bad = || BadHours(text.to_owned());
        let (hours, utc) = match text.strip_suffix(" UTC") {
            Some(hours) => (hours, true),
            None => (text, false),
        };
        let (from, to) = hours.split_once('-').ok_or_else(bad)?;
        let hours = Self { from: minutes(from).ok_or_else(bad)?, to: minutes(to).ok_or_else(bad)?, utc };
        if hours.from == hours.to { Err(bad()) } else { Ok(hours) }
    }
}

fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| (digits.len() == 2).then(|| digits.parse::<u16>().ok()).flatten();
    let (hour, minute) = (two(hour)?, two(minute)?);
    let time = hour * 60 + minute;
    (minute < 60 && time < DAY).then_some(time)
}

impl Hours {
    /// Whether it is one of them now, by the machine's clock.
    pub fn are_now(self) -> bool {
        self.hold(&Clock::Wall)
    }

    fn hold(self, clock: &Clock) -> bool {
        let now = if self.utc { clock.utc() } else { clock.local() };
        if self.from < self.to {
            (self.from..self.to).contains(&now)
        } else {
            now >= self.from || now < self.to
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, utc } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)?;
        if *utc { f.write_str(" UTC") } else { Ok(()) }
    }
}

/// Tells the minute of the day.
#[derive(Clone, Copy, Debug, Default)]
enum Clock {
    /// The machine's.
    #[default]
    Wall,
    /// Of a simulation that started at this instant, at noon, two hours east of Greenwich.
    #[cfg(test)]
    Simulated(Instant),
}

impl Clock {
    fn utc(&self) -> u16 {
        match self {
            Self::Wall => minute_of(&jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)),
            #[cfg(test)]
            Self::Simulated(start) => ((start.elapsed().as_secs() / 60 + 10 * 60) % u64::from(DAY)) as u16,
        }
    }

    fn local(&self) -> u16 {
        match self {
            Self::Wall => minute_of(&jiff::Zoned::now()),
            #[cfg(test)]
            Self::Simulated(_) => (self.utc() + 2 * 60) % DAY,
        }
    }
}

fn minute_of(time: &jiff::Zoned) -> u16 {
    u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs())
}

/// What is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of all that is sent, together.
    pub upload: Option<Rate>,
    /// Of all that is fetched, together.
    pub download: Option<Rate>,
    /// When bulk may move at all.
    pub hours: Option<Hours>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Keeps all transfers of a party within its limits.
#[derive(Debug, Default)]
pub struct Pace {
    limits: Limits,
    clock: Clock,
    /// When what was moved so far will have had its time.
    up: Mutex<Option<Instant>>,
    down: Mutex<Option<Instant>>,
}

impl Pace {
    /// Within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Bytes to move at once, of `most`.
    pub(crate) fn piece(&self, way: Way, most: usize) -> usize {
        match self.limit(way) {
            Some(Rate(rate)) => {
                let piece = (rate as f64 * PIECE.as_secs_f64()) as u64;
                most.min(usize::try_from(piece.max(PIECE_MIN)).unwrap_or(most))
            }
            None => most,
        }
    }

    /// Waits until bulk may move.
    pub(crate) async fn open(&self) {
        let Some(hours) = self.limits.hours else { return };
        if !hours.hold(&self.clock) {
            info!(%hours, "a transfer waits for network.bulk_hours");
            while !hours.hold(&self.clock) {
                sleep(LOOK).await;
            }
        }
    }

    /// Waits until `bytes` may have been moved.
    pub(crate) async fn take(&self, way: Way, bytes: usize) {
        self.open().await;
        let Some(rate) = self.limit(way) else { return };
        let free = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        let due = {
            let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let due = free.map_or(now, |free| free.max(now)) + rate.time_for(bytes);
            *free = Some(due);
            due
        };
        sleep_until(due).await;
    }

    fn limit(&self, way: Way) -> Option<Rate> {
        match way {
            Way::Up => self.limits.upload,
            Way::Down => self.limits.download,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_bytes_and_bits() {
        let rate = |text: &str| text.parse::<Rate>().map(Rate::bytes_per_second);
        assert_eq!(rate("2MB/s"), Ok(2_000_000));
        assert_eq!(rate("1.5 MB/s"), Ok(1_500_000));
        assert_eq!(rate("16Mbit/s"), Ok(2_000_000));
        assert_eq!(rate("500kB/s"), Ok(500_000));
        for text in ["", "2", "2MB", "MB/s", "-1MB/s", "0MB/s", "1e9GB/s", "2mb/s", "9999GB/s", "1.2.3MB/s"] {
            assert_eq!(rate(text), Err(BadRate(text.to_owned())));
        }
    }

    #[test]
    fn hours_may_go_past_midnight() {
        for text in ["20:00-06:00", "08:30-17:00 UTC"] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        for text in ["", "20:00", "20:00-20:00", "24:00-06:00", "8:00-9:00", "08:60-09:00", "20:00-06:00 CET"]
        {
            assert_eq!(text.parse::<Hours>(), Err(BadHours(text.to_owned())));
        }
    }

    fn pace(hours: Option<&str>, upload: Option<&str>) -> Pace {
        let limits = Limits {
            upload: upload.map(|text| text.parse().unwrap()),
            download: None,
            hours: hours.map(|text| text.parse().unwrap()),
        };
        Pace { clock: Clock::Simulated(Instant::now()), ..Pace::new(limits) }
    }

    #[tokio::test(start_paused = true)]
    async fn transfers_share_one_limit() {
        let pace = pace(None, Some("2MB/s"));
        let start = Instant::now();
        let piece = pace.piece(Way::Up, 1 << 20);
        assert_eq!(
            (piece, pace.piece(Way::Up, 100), pace.piece(Way::Down, 1 << 20)),
            (500_000, 100, 1 << 20)
        );
        let one = async {
            for _ in 0..10 {
                pace.take(Way::Up, piece).await;
            }
        };
        let other = async {
            for _ in 0..10 {
                pace.take(Way::Up, piece).await;
            }
            pace.take(Way::Down, 1 << 30).await;
        };
        tokio::join!(one, other);
        let took = start.elapsed().as_secs_f64();
        assert!((took - 5.0).abs() < 0.05, "ten megabytes at two a second: {took}");
    }

    #[tokio::test(start_paused = true)]
    async fn bulk_waits_for_its_hours() {
        // It is noon here, and ten o'clock UTC.
        for (hours, wait) in
            [("20:00-06:00", 8), ("20:00-06:00 UTC", 10), ("11:00-13:00", 0), ("10:00-12:00", 22)]
        {
            let pace = pace(Some(hours), None);
            let start = Instant::now();
            pace.open().await;
            let waited = start.elapsed().as_secs_f64() / 3600.0;
            assert!((waited - f64::from(wait)).abs() < 0.02, "{hours}: {waited}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_within_the_hours_goes_on_in_the_next() {
        let pace = pace(Some("11:00-13:00"), Some("1kB/s"));
        let start = Instant::now();
        for _ in 0..72 {
            // A hundred seconds each: two hours of them, of which one is left today.
            pace.take(Way::Up, 100_000).await;
        }
        let hours = start.elapsed().as_secs_f64() / 3600.0;
        assert!((hours - 24.0).abs() < 0.1, "an hour, 22 of waiting, an hour: {hours}");
    }
}
