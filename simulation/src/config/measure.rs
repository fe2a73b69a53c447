//! A quantity that differs from client to client: how it is written, and how a client's own is drawn.

use rand::Rng;
use rand_distr::{Distribution, LogNormal, Uniform};
use serde::Deserialize;
use sheaf_common::config::Invalid;

/// A positive quantity of each client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The same for all.
    Fixed(f64),
    /// From a log-normal distribution: a few have far more than most.
    LogNormal {
        /// Half of the clients have less.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Anything between two bounds.
    Uniform {
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
}

/// How it is written: a number, or a table that names a distribution by its parameters.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "write a number, { median = …, sigma = … } or { min = …, max = … }")]
pub(super) enum Written {
    Number(f64),
    LogNormal(LogNormalFile),
    Uniform(UniformFile),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogNormalFile {
    median: f64,
    sigma: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UniformFile {
    min: f64,
    max: f64,
}

/// Largest number that means anything for a client, and largest spread.
const MOST: f64 = 1e12;
const SIGMA_MAX: f64 = 5.0;

impl Written {
    /// The meaning of what is written at `key`; whether it may be 0 is `least`'s to say.
    pub(super) fn meaning(self, key: &str, least: f64) -> Result<Measure, Invalid> {
        let sound = |key: String, value: f64| {
            if value >= least && value <= MOST {
                Ok(())
            } else {
                Err(Invalid::new(key, format!("must be from {least} to {MOST:e}")))
            }
        };
        match self {
            Self::Number(value) => sound(key.to_owned(), value).map(|()| Measure::Fixed(value)),
            Self::LogNormal(LogNormalFile { median, sigma }) => {
                sound(format!("{key}.median"), median)?;
                if !(0.0..=SIGMA_MAX).contains(&sigma) {
                    return Err(Invalid::new(
                        format!("{key}.sigma"),
                        format!("must be from 0 to {SIGMA_MAX}"),
                    ));
                }
                Ok(Measure::LogNormal { median, sigma })
            }
            Self::Uniform(UniformFile { min, max }) => {
                sound(format!("{key}.min"), min)?;
                sound(format!("{key}.max"), max)?;
                if min > max {
                    return Err(Invalid::new(format!("{key}.max"), format!("must be at least min, {min}")));
                }
                Ok(Measure::Uniform { min, max })
            }
        }
    }
}

impl Measure {
    /// A client's own.
    pub fn draw(self, random: &mut impl Rng) -> f64 {
        match self {
            Self::Fixed(value) => value,
            Self::LogNormal { median, sigma } => {
                // The spread was checked when it was read, and one that is not finite is none.
                LogNormal::new(0.0, sigma).map_or(median, |spread| median * spread.sample(random))
            }
            Self::Uniform { min, max } => {
                Uniform::new_inclusive(min, max).map_or(min, |range| range.sample(random))
            }
        }
    }
}
