//! Patients stay at their hospital; a quarter of each hospital's is set aside for the common test set.

use rand::seq::SliceRandom;
use sheaf_common::seed;

use crate::example::{Choice, Site};
use crate::table::Table;

/// One patient in so many is tested on.
const TEST_EVERY: usize = 4;

/// A hospital and all its patients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hospital {
    pub(super) name: String,
    pub(super) patients: Table,
}

/// The sites with what they train on, and the patients of all of them that are tested on.
///
/// With fewer sites than hospitals, the first ones take part; with more, the largest hospital is divided until
/// there are enough.
pub(super) fn partition(hospitals: Vec<Hospital>, choice: Choice) -> (Vec<Site>, Vec<Vec<String>>) {
    let hospitals = as_many(hospitals, choice);
    let (mut sites, mut test) = (Vec::new(), Vec::new());
    for Hospital { name, patients } in hospitals {
        let (train, tested) = split(&patients, choice.seed, &name);
        test.extend(tested);
        sites.push(Site { name, train: patients.with_rows(train) });
    }
    (sites, test)
}

/// As many sites as were asked for.
fn as_many(mut hospitals: Vec<Hospital>, choice: Choice) -> Vec<Hospital> {
    let sites = choice.sites.get();
    hospitals.truncate(sites);
    while hospitals.len() < sites {
        let sizes =
            hospitals.iter().enumerate().map(|(place, hospital)| (hospital.patients.rows.len(), place));
        let Some((_, largest)) = sizes.max_by_key(|(size, place)| (*size, std::cmp::Reverse(*place))) else {
            break;
        };
        let [first, second] = divide(hospitals.remove(largest), choice.seed);
        hospitals.insert(largest, second);
        hospitals.insert(largest, first);
    }
    hospitals
}

/// Two hospitals of half the patients each, with and without the disease.
fn divide(hospital: Hospital, seed: u64) -> [Hospital; 2] {
    let Hospital { name, patients } = hospital;
    let mut halves = [Vec::new(), Vec::new()];
    for (label, mut rows) in patients.by_label() {
        rows.shuffle(&mut seed::stream(seed, &["heart division", &name, label]));
        for row in rows {
            let smaller = usize::from(halves[1].len() < halves[0].len());
            halves[smaller].push(row.clone());
        }
    }
    let [first, second] = halves;
    let half = |ending: &str, rows| Hospital {
        name: format!("{name}-{ending}"),
        patients: patients.with_rows(rows),
    };
    [half("a", first), half("b", second)]
}

/// Shuffled, one in [`TEST_EVERY`] with and without the disease for the test set, the rest for training.
fn split(patients: &Table, seed: u64, name: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (label, mut rows) in patients.by_label() {
        rows.shuffle(&mut seed::stream(seed, &["heart test", name, label]));
        let tested = rows.len() / TEST_EVERY;
        test.extend(rows[..tested].iter().map(|row| (*row).clone()));
        train.extend(rows[tested..].iter().map(|row| (*row).clone()));
    }
    train.shuffle(&mut seed::stream(seed, &["heart order", name]));
    (train, test)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::table::Format;

    /// Hospitals of the real sizes; a patient is a number and a label.
    fn hospitals() -> Vec<Hospital> {
        let sizes = [
            ("cleveland", 165, 139),
            ("hungary", 187, 106),
            ("va-long-beach", 51, 149),
            ("switzerland", 8, 115),
        ];
        let hospital = |(name, no, yes): (&str, usize, usize)| {
            let row = |i| vec![format!("{name} {i}"), if i < no { "no" } else { "yes" }.to_owned()];
            let rows = (0..no + yes).map(row).collect();
            let patients = Table { format: Format::Csv, columns: vec!["id", "disease"], label: 1, rows };
            Hospital { name: name.to_owned(), patients }
        };
        sizes.map(hospital).to_vec()
    }

    fn dealt(seed: u64, sites: usize) -> (Vec<Site>, Vec<Vec<String>>) {
        partition(hospitals(), Choice { seed, sites: NonZeroUsize::new(sites).unwrap() })
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
