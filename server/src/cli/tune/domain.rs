//! The values that a searched key may have: how `search.toml` says it, and how one is drawn.

use rand::Rng;
use sheaf_common::config::Invalid;
use toml::Value;

const FORMS: &str = "write a list of values, or { uniform = [low, high] }, { log_uniform = [low, high] }, { integer = [low, high] } or \
                     { choice = [values] }; a key with dots is written in quotes, as in \"training.learning_rate\"";

/// Where the values of a key come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Domain {
    /// One of these, each as likely. At least one, none twice.
    Choice(Vec<Value>),
    /// A whole number, both ends included.
    Integer { low: i64, high: i64 },
    /// A number between two others.
    Uniform { low: f64, high: f64 },
    /// A number whose logarithm is uniform.
    LogUniform { low: f64, high: f64 },
}

impl Domain {
    /// Reads what is written at `key` (of `search.toml`).
    pub(super) fn read(key: &str, written: &Value) -> Result<Self, Invalid> {
        let form = || Invalid::new(key, FORMS);
        if let Some(values) = written.as_array() {
            return choice(key, values);
        }
        let mut entries = written.as_table().ok_or_else(form)?.iter();
        let (Some((word, value)), None) = (entries.next(), entries.next()) else { return Err(form()) };
        let values = value.as_array().ok_or_else(form)?;
        match word.as_str() {
            "choice" => choice(key, values),
            "integer" => {
                let (low, high) = bounds(key, values, Value::as_integer)?;
                Ok(Self::Integer { low, high })
            }
            "uniform" => {
                let (low, high) = bounds(key, values, real)?;
                Ok(Self::Uniform { low, high })
            }
            "log_uniform" => {
                let (low, high) = bounds(key, values, real)?;
                if low <= 0.0 {
                    return Err(Invalid::new(
                        key,
                        format!("{low} has no logarithm: both ends must be above 0"),
                    ));
                }
                Ok(Self::LogUniform { low, high })
            }
            _ => Err(form()),
        }
    }

    /// One of the values.
    pub(super) fn draw(&self, random: &mut impl Rng) -> Value {
        match self {
            Self::Choice(values) => {
                let index = below(values.len() as u128, random);
                // `below` is below the length, which is at least 1.
                usize::try_from(index).ok().and_then(|index| values.get(index)).unwrap_or(&values[0]).clone()
            }
            Self::Integer { low, high } => {
                let drawn = i128::from(*low) + below(span(*low, *high), random) as i128;
                Value::Integer(i64::try_from(drawn).unwrap_or(*high))
            }
            Self::Uniform { low, high } => {
                let share = unit(random);
                Value::Float((low * (1.0 - share) + high * share).clamp(*low, *high))
            }
            Self::LogUniform { low, high } => {
                let share = unit(random);
                Value::Float((low.ln() * (1.0 - share) + high.ln() * share).exp().clamp(*low, *high))
            }
        }
    }

    /// How many values there are; `None` for real numbers.
    pub(super) fn size(&self) -> Option<u128> {
        match self {
            Self::Choice(values) => Some(values.len() as u128),
            Self::Integer { low, high } => Some(span(*low, *high)),
            Self::Uniform { .. } | Self::LogUniform { .. } => None,
        }
    }

    /// The values one by one, if they were written so.
    pub(super) fn choices(&self) -> Option<&[Value]> {
        match self {
            Self::Choice(values) => Some(values),
            Self::Integer { .. } | Self::Uniform { .. } | Self::LogUniform { .. } => None,
        }
    }
}

fn choice(key: &str, values: &[Value]) -> Result<Domain, Invalid> {
    if values.is_empty() {
        return Err(Invalid::new(key, "names no value"));
    }
    let twice = |(index, value): &(usize, &Value)| values[..*index].contains(value);
    match values.iter().enumerate().find(twice) {
        Some((_, value)) => Err(Invalid::new(key, format!("{value} is listed twice"))),
        None => Ok(Domain::Choice(values.to_vec())),
    }
}

fn bounds<T: Copy + PartialOrd>(
    key: &str,
    values: &[Value],
    read: impl Fn(&Value) -> Option<T>,
) -> Result<(T, T), Invalid> {
    let read: Option<Vec<T>> = values.iter().map(read).collect();
    match read.as_deref() {
        Some([low, high]) if low < high => Ok((*low, *high)),
        Some(_) | None => Err(Invalid::new(
            key,
            "write [low, high], two finite numbers of which the first is less (whole ones for `integer`)",
        )),
    }
}

fn real(value: &Value) -> Option<f64> {
    let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))?;
    number.is_finite().then_some(number)
}

fn span(low: i64, high: i64) -> u128 {
    (i128::from(high) - i128::from(low)).unsigned_abs() + 1
}

/// Uniform in [0, 1), in steps of 2^-53.
fn unit(random: &mut impl Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform below `count`, which is at most 2^64; 0 for 0.
fn below(count: u128, random: &mut impl Rng) -> u128 {
    (u128::from(random.next_u64()) * count) >> 64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sheaf_common::seed;

    use super::*;

    fn read(written: &str) -> Result<Domain, Invalid> {
        let table: toml::Table = toml::from_str(&format!("x = {written}")).unwrap();
        Domain::read("search.x", &table["x"])
    }

    #[test]
    fn the_forms_are_read() {
        assert_eq!(read("[1, 2]").unwrap(), Domain::Choice(vec![Value::Integer(1), Value::Integer(2)]));
        assert_eq!(read("{ choice = [1, 2] }"), read("[1, 2]"));
        assert_eq!(read("{ integer = [-3, 4] }").unwrap(), Domain::Integer { low: -3, high: 4 });
        assert_eq!(read("{ uniform = [0, 0.5] }").unwrap(), Domain::Uniform { low: 0.0, high: 0.5 });
        let rates = read("{ log_uniform = [1e-5, 1e-2] }").unwrap();
        assert_eq!(rates, Domain::LogUniform { low: 1e-5, high: 1e-2 });
        assert_eq!((rates.size(), read("{ integer = [-3, 4] }").unwrap().size()), (None, Some(8)));
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for (written, problem) in [
            ("0.1", "write a list of values"),
            ("{ loguniform = [1, 2] }", "write a list of values"),
            ("{ uniform = [1, 2], integer = [1, 2] }", "write a list of values"),
            ("[]", "names no value"),
            ("[1, 2, 1]", "1 is listed twice"),
            ("{ uniform = [2, 1] }", "write [low, high]"),
            ("{ uniform = [0, inf] }", "write [low, high]"),
            ("{ integer = [1, 2.5] }", "write [low, high]"),
            ("{ integer = [1, 2, 3] }", "write [low, high]"),
            ("{ log_uniform = [0, 1] }", "0 has no logarithm"),
        ] {
            let invalid = read(written).unwrap_err();
            assert!(invalid.problem.starts_with(problem), "{written}: {}", invalid.problem);
        }
    }

    /// A tenth of the draws of a logarithm over five decades lies below half a decade.
    #[test]
    fn logarithms_are_uniform() {
        let domain = Domain::LogUniform { low: 1e-5, high: 1.0 };
        let mut random = seed::stream(1, &["test"]);
        let drawn: Vec<f64> = (0..4000).filter_map(|_| domain.draw(&mut random).as_float()).collect();
        for edge in 1..10 {
            let below = drawn.iter().filter(|value| value.log10() < -5.0 + 0.5 * f64::from(edge)).count();
            let expected = 400 * usize::try_from(edge).unwrap();
            assert!(below.abs_diff(expected) < 120, "{edge}: {below} instead of {expected}");
        }
    }

    proptest! {
        #[test]
        fn draws_stay_within(low in any::<i64>(), high in any::<i64>(), scale in 1e-9..1e9f64, seed in any::<u64>()) {
            prop_assume!(low < high);
            let mut random = seed::stream(seed, &["test"]);
            let whole = Domain::Integer { low, high }.draw(&mut random).as_integer().unwrap();
            prop_assert!((low..=high).contains(&whole));
            for domain in [Domain::Uniform { low: -scale, high: scale }, Domain::Uniform { low: f64::MIN, high: f64::MAX }] {
                let Domain::Uniform { low, high } = domain else { unreachable!() };
                let real = domain.draw(&mut random).as_float().unwrap();
                prop_assert!((low..=high).contains(&real));
            }
            let real = Domain::LogUniform { low: scale, high: scale * 2.0 }.draw(&mut random).as_float().unwrap();
            prop_assert!((scale..=scale * 2.0).contains(&real));
        }
    }
}
