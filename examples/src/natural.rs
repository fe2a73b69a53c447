//! A natural partition: parties keep their own examples, and a quarter of each party's is set aside for the common
//! test set.

use rand::seq::SliceRandom;

use crate::example::{Choice, Site};
use crate::table::Table;

/// One example in so many is tested on.
const TEST_EVERY: usize = 4;

/// All that each party has, by its name, of rows and whose they are; in the order in which parties come up.
pub(crate) fn parties(
    rows: impl Iterator<Item = (String, Vec<String>)>,
    table: impl Fn(Vec<Vec<String>>) -> Table,
) -> Vec<Site> {
    let mut parties = Vec::<Site>::new();
    for (name, row) in rows {
        match parties.iter_mut().find(|party| party.name == name) {
            Some(party) => party.train.rows.push(row),
            None => parties.push(Site { name, train: table(vec![row]) }),
        }
    }
    parties
}

/// The sites with what they train on, and the rows of all of them that are tested on, of parties with all that
/// they have.
///
/// With fewer sites than parties, the first ones take part; with more, the largest party is divided until there
/// are enough.
pub(crate) fn partition(parties: Vec<Site>, choice: Choice) -> (Vec<Site>, Vec<Vec<String>>) {
    let mut test = Vec::new();
    let mut set_aside = |party: Site| {
        let (train, tested) = split(&party, choice);
        test.extend(tested);
        Site { train: party.train.with_rows(train), ..party }
    };
    let sites = as_many(parties, choice).into_iter().map(&mut set_aside).collect();
    (sites, test)
}

/// As many sites as were asked for.
fn as_many(mut parties: Vec<Site>, choice: Choice) -> Vec<Site> {
    let sites = choice.sites.get();
    parties.truncate(sites);
    while parties.len() < sites {
        let sizes = parties.iter().enumerate().map(|(place, party)| (party.train.rows.len(), place));
        let Some((_, largest)) = sizes.max_by_key(|(size, place)| (*size, std::cmp::Reverse(*place))) else {
            break;
        };
        let halves = divide(parties.remove(largest), choice);
        parties.splice(largest..largest, halves);
    }
    parties
}

/// Two parties of half the examples each, of every label.
fn divide(party: Site, choice: Choice) -> [Site; 2] {
    let Site { name, train } = party;
    let mut halves = [Vec::new(), Vec::new()];
    for (label, mut rows) in train.by_label() {
        rows.shuffle(&mut choice.stream("division", &[&name, label]));
        for row in rows {
            let smaller = usize::from(halves[1].len() < halves[0].len());
            halves[smaller].push(row.clone());
        }
    }
    let [first, second] = halves;
    let half = |ending: &str, rows| Site { name: format!("{name}-{ending}"), train: train.with_rows(rows) };
    [half("a", first), half("b", second)]
}

/// Shuffled, one in [`TEST_EVERY`] of each label for the test set, the rest for training.
fn split(party: &Site, choice: Choice) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (label, mut rows) in party.train.by_label() {
        rows.shuffle(&mut choice.stream("test", &[&party.name, label]));
        let tested = rows.len() / TEST_EVERY;
        test.extend(rows[..tested].iter().map(|row| (*row).clone()));
        train.extend(rows[tested..].iter().map(|row| (*row).clone()));
    }
    train.shuffle(&mut choice.stream("order", &[&party.name]));
    (train, test)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::table::Format;

    /// Hospitals of the heart example, of their real sizes; a patient is a number and a label.
    fn hospitals() -> Vec<Site> {
        let sizes = [
            ("cleveland", 165, 139),
            ("hungary", 187, 106),
            ("va-long-beach", 51, 149),
            ("switzerland", 8, 115),
        ];
        let hospital = |(name, no, yes): (&str, usize, usize)| {
            let row = |i| vec![format!("{name} {i}"), if i < no { "no" } else { "yes" }.to_owned()];
            let rows = (0..no + yes).map(row).collect();
            let train = Table { format: Format::Csv, columns: vec!["id", "disease"], label: 1, rows };
            Site { name: name.to_owned(), train }
        };
        sizes.map(hospital).to_vec()
    }

    fn dealt(seed: u64, sites: usize) -> (Vec<Site>, Vec<Vec<String>>) {
        let sites = NonZeroUsize::new(sites).unwrap();
        partition(hospitals(), Choice { example: "heart", seed, sites, reduced: false })
    }

    #[test]
    fn patients_stay_at_their_hospital_and_nobody_is_both_trained_and_tested_on() {
        let (sites, test) = dealt(1, 4);
        for site in &sites {
            assert!(site.train.rows.iter().all(|row| row[0].starts_with(&site.name)));
        }
        let rows = sites.iter().flat_map(|site| &site.train.rows).chain(&test);
        let everybody: BTreeSet<&str> = rows.clone().map(|row| row[0].as_str()).collect();
        assert_eq!((everybody.len(), rows.count()), (920, 920));
        let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
        assert_eq!(names, ["cleveland", "hungary", "va-long-beach", "switzerland"]);
    }

    #[test]
    fn a_quarter_of_each_hospital_is_tested_on_with_its_share_of_the_disease() {
        let (_, test) = dealt(1, 4);
        let of = |name: &str, label: &str| {
            test.iter().filter(|row| row[0].starts_with(name) && row[1] == label).count()
        };
        assert_eq!([of("cleveland", "no"), of("cleveland", "yes")], [41, 34]);
        assert_eq!([of("switzerland", "no"), of("switzerland", "yes")], [2, 28]);
        assert_eq!(test.len(), 226);
    }

    #[test]
    fn other_numbers_of_sites_leave_out_or_divide_hospitals() {
        let names = |sites| dealt(1, sites).0.into_iter().map(|site| site.name).collect::<Vec<_>>();
        assert_eq!(names(2), ["cleveland", "hungary"]);
        assert_eq!(names(5), ["cleveland-a", "cleveland-b", "hungary", "va-long-beach", "switzerland"]);
        for sites in 2..=16 {
            let (dealt, test) = dealt(3, sites);
            assert_eq!(dealt.len(), sites);
            assert!(dealt.iter().all(|site| site.train.label_counts().len() == 2));
            assert!(!test.is_empty());
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(dealt(7, 4), dealt(7, 4));
        assert_ne!(dealt(7, 4), dealt(8, 4));
    }
}
