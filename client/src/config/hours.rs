//! The hours of the day at which a site begins something: `"20:00-06:00"`.

use std::fmt;
use std::str::FromStr;

/// From one minute of the day to another, in the site's own time; past midnight when the end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
}

/// What is written is not two times of day.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not two different times of day, such as \"20:00-06:00\"")]
pub struct BadHours(String);

impl Hours {
    /// Whether a minute of the day, from 0 to 1439, is among them.
    pub fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(written: &str) -> Result<Self, BadHours> {
        let minute = |time: &str| {
            let (hour, minute) = time.trim().split_once(':')?;
            let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            let (hour, minute): (u16, u16) = if digits(hour) && digits(minute) {
                (hour.parse().ok()?, minute.parse().ok()?)
            } else {
                return None;
            };
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        written
            .split_once('-')
            .and_then(|(from, to)| Some(Self { from: minute(from)?, to: minute(to)? }))
            .filter(|hours| hours.from != hours.to)
            .ok_or_else(|| BadHours(written.to_owned()))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_not_among_them_and_midnight_is_no_border() {
        let day: Hours = "08:30-17:00".parse().unwrap();
        assert_eq!([509, 510, 1019, 1020].map(|minute| day.contains(minute)), [false, true, true, false]);
        let night: Hours = "20:00-06:00".parse().unwrap();
        assert_eq!(
            [1199, 1200, 1439, 0, 359, 360].map(|minute| night.contains(minute)),
            [false, true, true, true, true, false]
        );
        assert_eq!(night.to_string(), "20:00-06:00");
    }

    #[test]
    fn what_is_no_time_of_day_is_refused() {
        for written in [
            "",
            "20:00",
            "20-06",
            "8:00-9:00",
            "24:00-06:00",
            "20:60-21:00",
            "20:00-20:00",
            "20:00-06:00-07:00",
            "+1:00-02:00",
        ] {
            assert!(written.parse::<Hours>().is_err(), "{written}");
        }
    }
}
