//! Which settings are tried: all combinations, or some drawn from the search's seed.

use sheaf_common::seed;
use toml::Value;

use super::domain::Domain;

/// Keys of `run.toml` with the values that a trial gives them, in the order of `search.toml`.
pub(super) type Settings = Vec<(String, Value)>;

/// Each trial is a run, which the server keeps; a search beyond this is a slip of the pen.
pub(super) const TRIALS_MAX: usize = 999;

/// So many draws for a trial are enough to find one of few combinations that was not drawn yet.
const DRAWS_PER_TRIAL: usize = 100;

/// How many combinations there are; `None` when a key has real numbers, or more than can be counted.
pub(super) fn combinations(search: &[(String, Domain)]) -> Option<u128> {
    search.iter().try_fold(1u128, |count, (_, domain)| count.checked_mul(domain.size()?))
}

/// All combinations of lists, the last key changing fastest; `None` when there are more than [`TRIALS_MAX`], or a key has
/// no list.
pub(super) fn grid(search: &[(String, Domain)]) -> Option<Vec<Settings>> {
    combinations(search).filter(|count| *count <= TRIALS_MAX as u128)?;
    search.iter().try_fold(vec![Settings::new()], |begun, (key, domain)| {
        let choices = domain.choices()?;
        let longer = |settings: &Settings| {
            let settings = settings.clone();
            let key = key.clone();
            choices.iter().map(move |value| {
                let mut settings = settings.clone();
                settings.push((key.clone(), value.clone()));
                settings
            })
        };
        Some(begun.iter().flat_map(longer).collect())
    })
}

/// At most `most` different combinations; fewer when there are no more.
///
/// Each key of each draw has a stream of its own: with more trials the first ones stay what they were, and so does what
/// is drawn for a key when another one is added.
pub(super) fn random(search: &[(String, Domain)], seed: u64, most: usize) -> Vec<Settings> {
    let most = combinations(search).map_or(most, |all| most.min(usize::try_from(all).unwrap_or(most)));
    let mut trials: Vec<Settings> = Vec::new();
    for draw in 1..=most.saturating_mul(DRAWS_PER_TRIAL) {
        if trials.len() == most {
            break;
        }
        let number = draw.to_string();
        let value = |(key, domain): &(String, Domain)| {
            (key.clone(), domain.draw(&mut seed::stream(seed, &["tune", &number, key])))
        };
        let settings: Settings = search.iter().map(value).collect();
        if !trials.contains(&settings) {
            trials.push(settings);
        }
    }
    trials
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn lists(lengths: &[usize]) -> Vec<(String, Domain)> {
        let list = |length| Domain::Choice((0..length).map(|value| Value::Integer(value as i64)).collect());
        lengths.iter().enumerate().map(|(key, length)| (format!("training.k{key}"), list(*length))).collect()
    }

    fn texts(trials: &[Settings]) -> Vec<String> {
        trials.iter().map(|settings| format!("{settings:?}")).collect()
    }

    #[test]
    fn the_last_key_of_a_grid_changes_fastest() {
        let trials = grid(&lists(&[2, 3])).unwrap();
        let values: Vec<Vec<i64>> = trials
            .iter()
            .map(|trial| trial.iter().filter_map(|(_, value)| value.as_integer()).collect())
            .collect();
        assert_eq!(values, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
    }

    #[test]
    fn a_grid_that_is_too_large_or_has_no_end_is_none() {
        assert_eq!(grid(&lists(&[10, 10, 10])), None);
        assert_eq!(grid(&[("training.x".into(), Domain::Uniform { low: 0.0, high: 1.0 })]), None);
        assert_eq!(grid(&lists(&[usize::from(u8::MAX); 9])), None);
    }

    #[test]
    fn more_trials_and_more_keys_leave_what_was_drawn() {
        let one = vec![("training.x".to_owned(), Domain::Uniform { low: 0.0, high: 1.0 })];
        let mut two = one.clone();
        two.push(("training.y".to_owned(), Domain::Uniform { low: 0.0, high: 1.0 }));
        let (few, many, wide) = (random(&one, 3, 4), random(&one, 3, 9), random(&two, 3, 4));
        assert_eq!(few, many[..4]);
        assert!(few.iter().zip(&wide).all(|(few, wide)| few[0] == wide[0]));
        assert_ne!(wide[0][0].1, wide[0][1].1);
    }

    proptest! {
        #[test]
        fn a_grid_has_every_combination_once(lengths in prop::collection::vec(1usize..6, 1..5)) {
            let search = lists(&lengths);
            let count: usize = lengths.iter().product();
            let trials = grid(&search).unwrap();
            prop_assert_eq!(trials.len(), count);
            prop_assert_eq!(texts(&trials).into_iter().collect::<BTreeSet<_>>().len(), count);
        }

        #[test]
        fn the_same_seed_gives_the_same_trials_and_none_twice(
            lengths in prop::collection::vec(1usize..6, 1..4), seed in any::<u64>(), most in 1usize..60,
        ) {
            let search = lists(&lengths);
            let trials = random(&search, seed, most);
            prop_assert_eq!(&trials, &random(&search, seed, most));
            prop_assert_eq!(trials.len(), most.min(lengths.iter().product()));
            prop_assert_eq!(texts(&trials).into_iter().collect::<BTreeSet<_>>().len(), trials.len());
        }
    }
}
