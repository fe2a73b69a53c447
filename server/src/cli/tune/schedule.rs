//! How many trials get how many rounds, so that the budget holds whatever happens.

use crate::cli::units::plural;

/// Trials that are run with equally many rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rung {
    /// Trials at most.
    pub(super) trials: usize,
    /// Rounds of each.
    pub(super) rounds: u32,
}

/// Rungs in order: each has the best trials of the one before, which start again from scratch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) rungs: Vec<Rung>,
}

impl Schedule {
    /// `trials` of `rounds` each; as many as `budget` rounds pay for. `None` if not for one.
    pub(super) fn flat(trials: usize, rounds: u32, budget: u64) -> Option<Self> {
        let paid = usize::try_from(budget / u64::from(rounds.max(1))).unwrap_or(usize::MAX);
        let trials = trials.min(paid);
        (trials > 0).then(|| Self { rungs: vec![Rung { trials, rounds }] })
    }

    /// Successive halving (Jamieson and Talwalkar 2016): from rung to rung a trial in `eta` is kept, and has `eta` times as
    /// many rounds, `rounds` in the last. It begins with the most trials, up to `trials`, for which `budget` pays; `None`
    /// if not for one.
    pub(super) fn halving(trials: usize, rounds: u32, least: u32, eta: u32, budget: u64) -> Option<Self> {
        let rungs = |trials| Self { rungs: rungs(trials, rounds, least, eta) };
        (1..=trials).rev().map(rungs).find(|schedule| schedule.rounds() <= budget)
    }

    /// Rounds in all, at most.
    pub(super) fn rounds(&self) -> u64 {
        self.rungs.iter().map(|rung| rung.trials as u64 * u64::from(rung.rounds)).sum()
    }

    /// Trials of the first rung.
    pub(super) fn trials(&self) -> usize {
        self.rungs.first().map_or(0, |rung| rung.trials)
    }
}

/// `9 trials of 1 round, the best 3 again with 3, the best 1 again with 9`.
impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, rung) in self.rungs.iter().enumerate() {
            if index == 0 {
                let (trials, rounds) = (rung.trials as u64, u64::from(rung.rounds));
                write!(f, "{} of {}", plural(trials, "trial"), plural(rounds, "round"))?;
            } else {
                write!(f, ", the best {} again with {}", rung.trials, rung.rounds)?;
            }
        }
        Ok(())
    }
}

/// The rungs that `trials` trials climb: the last has all the rounds, and those before it are begun while there is a
/// choice to make and enough rounds to make it by.
fn rungs(trials: usize, rounds: u32, least: u32, eta: u32) -> Vec<Rung> {
    let eta = eta.max(2);
    let fewer = |trials: &usize| (*trials > 1).then(|| trials.div_ceil(eta as usize));
    let shorter = |rounds: &u32| Some(rounds / eta).filter(|rounds| *rounds >= least.max(1));
    let kept: Vec<usize> = std::iter::successors(Some(trials), fewer).collect();
    let lengths: Vec<u32> = std::iter::successors(Some(rounds), shorter).take(kept.len()).collect();
    let climb = kept.into_iter().zip(lengths.into_iter().rev());
    climb.map(|(trials, rounds)| Rung { trials, rounds }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(schedule: &Schedule) -> Vec<(usize, u32)> {
        schedule.rungs.iter().map(|rung| (rung.trials, rung.rounds)).collect()
    }

    #[test]
    fn a_third_is_kept_and_has_three_times_the_rounds() {
        let schedule = Schedule::halving(27, 27, 1, 3, 1000).unwrap();
        assert_eq!(pairs(&schedule), [(27, 1), (9, 3), (3, 9), (1, 27)]);
        assert_eq!(schedule.rounds(), 108);
        assert_eq!(
            schedule.to_string(),
            "27 trials of 1 round, the best 9 again with 3, the best 3 again with 9, the best 1 again with 27"
        );
    }

    #[test]
    fn the_last_rung_has_all_rounds_and_the_first_not_too_few() {
        assert_eq!(pairs(&Schedule::halving(9, 10, 2, 3, 1000).unwrap()), [(9, 3), (3, 10)]);
        assert_eq!(pairs(&Schedule::halving(5, 10, 1, 3, 1000).unwrap()), [(5, 1), (2, 3), (1, 10)]);
        assert_eq!(pairs(&Schedule::halving(2, 10, 1, 3, 1000).unwrap()), [(2, 3), (1, 10)]);
        assert_eq!(pairs(&Schedule::halving(8, 8, 1, 2, 1000).unwrap()), [(8, 1), (4, 2), (2, 4), (1, 8)]);
    }

    #[test]
    fn a_budget_lessens_the_trials_and_then_says_no() {
        assert_eq!(pairs(&Schedule::flat(20, 5, 42).unwrap()), [(8, 5)]);
        assert_eq!(Schedule::flat(20, 5, 4), None);
        assert_eq!(pairs(&Schedule::halving(27, 27, 1, 3, 107).unwrap())[0].0, 26);
        assert_eq!(Schedule::halving(27, 27, 1, 3, 26), None);
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded(
            trials in 1usize..300, rounds in 1u32..200, least in 1u32..20, eta in 2u32..6, budget in 0u64..5000,
        ) {
            let flat = Schedule::flat(trials, rounds, budget);
            prop_assert_eq!(flat.is_none(), budget < u64::from(rounds));
            let halving = Schedule::halving(trials, rounds, least, eta, budget);
            prop_assert_eq!(halving.is_none(), budget < u64::from(rounds));
            for schedule in flat.into_iter().chain(halving) {
                prop_assert!(schedule.rounds() <= budget);
                prop_assert!((1..=trials).contains(&schedule.trials()));
                prop_assert_eq!(schedule.rungs.last().unwrap().rounds, rounds);
                for pair in schedule.rungs.windows(2) {
                    prop_assert!(pair[0].trials > pair[1].trials && pair[0].rounds < pair[1].rounds);
                }
            }
        }
    }
}
