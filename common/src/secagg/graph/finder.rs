//! How few neighbours are enough: the parameters of Bell et al. 2020, as Google's `graph_parameter_finder`
//! has them, for a server that follows the protocol.
//!
//! Chances are computed in floating point, whose last bits differ between machines; the degree is an integer
//! with room to both sides, so that this does not show.

use std::f64::consts::LN_2;

/// Security parameter: privacy fails with probability at most 2^-40.
const SIGMA: f64 = 40.0;

/// Correctness parameter: a round fails for want of shares with probability at most 2^-20.
const ETA: f64 = 20.0;

/// The part of the sites of which the worst is assumed.
#[derive(Clone, Copy, Debug)]
pub struct Assumptions {
    /// So large a part, below 1, sides with the server.
    pub corrupt: f64,
    /// So large a part, below 1, drops out.
    pub dropouts: f64,
}

/// A regular graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degree {
    /// Neighbours of a site; even.
    pub degree: u32,
    /// Shares that bring a secret back.
    pub threshold: u32,
}

impl Assumptions {
    /// The least degree and threshold for so many sites; `None` when the complete graph is needed.
    pub fn least_degree(&self, sites: u32) -> Option<Degree> {
        let chances = Chances::new(sites, self);
        // Were nobody assumed corrupt, one share would be enough.
        (chances.corrupt > 0).then_some(())?;
        (2..sites).step_by(2).find_map(|degree| {
            let threshold = chances.is_connected(degree).then(|| chances.least_threshold(degree))?;
            (threshold <= chances.most_threshold(degree)).then_some(Degree { degree, threshold })
        })
    }
}

struct Chances {
    sites: u32,
    corrupt: u32,
    dropouts: u32,
    /// Logarithm of the factorial of each number up to `sites`.
    factorial: Vec<f64>,
}

impl Chances {
    fn new(sites: u32, assumptions: &Assumptions) -> Self {
        let part = |of: f64| (f64::from(sites) * of).floor() as u32;
        let mut factorial = vec![0.0];
        factorial.extend((1..=sites).scan(0.0, |sum, number| {
            *sum += f64::from(number).ln();
            Some(*sum)
        }));
        Self { sites, corrupt: part(assumptions.corrupt), dropouts: part(assumptions.dropouts), factorial }
    }

    /// Whether, corrupt and dropped sites taken away, the rest hangs together but for a chance of
    /// 2^-(sigma + 1).
    fn is_connected(&self, degree: u32) -> bool {
        let gone = self.corrupt.saturating_add(self.dropouts).min(self.sites);
        if degree > gone || degree + 1 >= self.sites {
            return true;
        }
        let (n, k) = (f64::from(self.sites), f64::from(degree));
        let pairs = (n * (n - k - 1.0) / 2.0).ln();
        let all_gone = self.ln_factorial(gone) - self.ln_factorial(gone - degree);
        let choices = self.ln_factorial(self.sites) - self.ln_factorial(self.sites - degree);
        pairs + all_gone - choices < -(SIGMA + 1.0) * LN_2
    }

    /// One more than a site has corrupt neighbours, but for a chance of 2^-(sigma + 1) over all sites.
    fn least_threshold(&self, degree: u32) -> u32 {
        let bound = (-(SIGMA + 1.0)).exp2() / f64::from(self.sites);
        let mut more = 0.0;
        let too_many = (0..=degree).rev().find(|count| {
            more += self.chance(self.corrupt, degree, *count);
            more > bound
        });
        // With `too_many` corrupt neighbours in reach and no more, that number must not suffice.
        too_many.unwrap_or(0) + 1
    }

    /// As many as a site has neighbours that stay, but for a chance of 2^-eta over all sites.
    fn most_threshold(&self, degree: u32) -> u32 {
        let bound = (-ETA).exp2() / f64::from(self.sites);
        let mut fewer = 0.0;
        let reached = (0..=degree).find(|count| {
            fewer += self.chance(self.sites - self.dropouts.min(self.sites), degree, *count);
            fewer > bound
        });
        reached.unwrap_or(degree)
    }

    /// That of `degree` sites drawn out of all exactly `count` are among the `marked` ones (hypergeometric).
    fn chance(&self, marked: u32, degree: u32, count: u32) -> f64 {
        if count > marked || degree - count > self.sites - marked {
            return 0.0;
        }
        let ways = self.ln_choose(marked, count) + self.ln_choose(self.sites - marked, degree - count);
        (ways - self.ln_choose(self.sites, degree)).exp()
    }

    fn ln_choose(&self, of: u32, count: u32) -> f64 {
        self.ln_factorial(of) - self.ln_factorial(count) - self.ln_factorial(of - count)
    }

    fn ln_factorial(&self, number: u32) -> f64 {
        self.factorial[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_degrees_come_out() {
        let table = [
            (0.05, 0.05, [None, Some((12, 6)), Some((20, 11)), Some((30, 17)), Some((34, 20))]),
            (0.1, 0.1, [Some((4, 2)), Some((22, 11)), Some((34, 19)), Some((48, 27)), Some((54, 31))]),
            (0.2, 0.1, [Some((4, 3)), Some((32, 21)), Some((46, 30)), Some((68, 44)), Some((80, 51))]),
            (0.33, 0.1, [Some((6, 4)), Some((42, 32)), Some((66, 47)), Some((102, 72)), Some((126, 88))]),
            (0.33, 0.33, [Some((8, 4)), Some((68, 34)), Some((122, 64)), Some((286, 150)), Some((422, 221))]),
        ];
        for (corrupt, dropouts, row) in table {
            for (sites, expected) in [10, 100, 200, 1000, 10_000].into_iter().zip(row) {
                let found = Assumptions { corrupt, dropouts }.least_degree(sites);
                let expected = expected.map(|(degree, threshold)| Degree { degree, threshold });
                assert_eq!(found, expected, "{sites} sites, {corrupt} corrupt, {dropouts} dropped");
            }
        }
    }

    #[test]
    fn a_few_sites_need_the_complete_graph() {
        for sites in 0..4 {
            assert_eq!(Assumptions { corrupt: 0.33, dropouts: 0.1 }.least_degree(sites), None);
        }
    }
}
