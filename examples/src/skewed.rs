//! A simulated partition: deals examples out to parties, so that each sees mostly labels of its own and all together
//! see every one.

use rand::seq::SliceRandom;

use crate::example::{Choice, Site};
use crate::table::Table;

/// Least number of labels that a party has for its own.
const OWN_LABELS: usize = 2;

/// How an example is partitioned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skewed {
    /// What a party is called; its number follows.
    pub(crate) party: &'static str,
    /// Examples of each party.
    pub(crate) size: usize,
    /// Those of them that are drawn from all others', whatever they are.
    pub(crate) strays: usize,
}

type Row = Vec<String>;

impl Skewed {
    /// Gives each party its share of `examples`, none of them twice.
    ///
    /// The labels are shuffled and dealt out in turn, so that with four parties each of eight is the own label of
    /// exactly one. First each party gets its strays, drawn from all examples that are not of its own labels; then it
    /// is filled up from its own labels in equal parts, and when these run out, from whatever is left.
    pub(crate) fn partition(self, examples: &Table, choice: Choice) -> Vec<Site> {
        let mut archive: Vec<&Row> = examples.rows.iter().collect();
        archive.shuffle(&mut choice.stream("archive", &[]));
        let own = own_labels(examples, choice);
        let mut parties: Vec<Vec<Row>> = vec![Vec::new(); own.len()];
        for (party, own) in parties.iter_mut().zip(&own) {
            take(party, self.strays, &mut archive, |row| !own.contains(&examples.label_of(row)));
        }
        for (party, own) in parties.iter_mut().zip(&own) {
            let own_size = self.size - self.strays;
            for (place, label) in own.iter().enumerate() {
                let size = self.strays + own_size * (place + 1) / own.len();
                take(party, size, &mut archive, |row| examples.label_of(row) == *label);
            }
            take(party, self.size, &mut archive, |row| own.contains(&examples.label_of(row)));
        }
        for party in &mut parties {
            take(party, self.size, &mut archive, |_| true);
        }
        let site = |(number, rows): (usize, Vec<Row>)| self.site(number + 1, rows, examples, choice);
        parties.into_iter().enumerate().map(site).collect()
    }

    /// A party whose file does not tell in which order it was filled.
    fn site(self, number: usize, mut rows: Vec<Row>, examples: &Table, choice: Choice) -> Site {
        let name = format!("{}-{number}", self.party);
        rows.shuffle(&mut choice.stream(self.party, &[&name]));
        Site { name, train: examples.with_rows(rows) }
    }
}

/// Each party's own labels: dealt out in turn from the shuffled ones, again and again if there are many parties.
fn own_labels(examples: &Table, choice: Choice) -> Vec<Vec<&str>> {
    let parties = choice.sites.get();
    let mut labels: Vec<&str> = examples.label_counts().into_keys().collect();
    // The stream has its name from the first example; with another name desks would get other documents.
    labels.shuffle(&mut choice.stream("topics", &[]));
    let each = labels.len().div_ceil(parties).max(OWN_LABELS).min(labels.len());
    let own = |party: usize| (0..each).map(|place| labels[(party * each + place) % labels.len()]).collect();
    (0..parties).map(own).collect()
}

/// Fills a party up to `size` with examples that fit, as long as there are any.
fn take(party: &mut Vec<Row>, size: usize, archive: &mut Vec<&Row>, fits: impl Fn(&Row) -> bool) {
    archive.retain(|row| {
        let taken = party.len() < size && fits(row);
        if taken {
            party.push((*row).clone());
        }
        !taken
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::table::Format;

    /// As many documents of each topic as Reuters R8 has for training.
    fn documents() -> Table {
        let topics = [
            ("acq", 1596),
            ("crude", 253),
            ("earn", 2840),
            ("grain", 41),
            ("interest", 190),
            ("money-fx", 206),
            ("ship", 108),
            ("trade", 251),
        ];
        let rows = topics.iter().flat_map(|(topic, count)| {
            (0..*count).map(move |i| vec![(*topic).to_owned(), format!("{topic} {i}")])
        });
        Table { format: Format::Tsv, columns: vec!["topic", "text"], label: 0, rows: rows.collect() }
    }

    /// As the newswire example deals them out.
    const SKEWED: Skewed = Skewed { party: "desk", size: 150, strays: 30 };

    fn dealt(seed: u64, sites: usize) -> Vec<Site> {
        let sites = NonZeroUsize::new(sites).unwrap();
        SKEWED.partition(&documents(), Choice { example: "newswire", seed, sites, reduced: false })
    }

    #[test]
    fn every_desk_has_its_share_and_no_document_is_dealt_twice() {
        for sites in 2..=16 {
            let desks = dealt(1, sites);
            assert_eq!(desks.len(), sites);
            assert!(desks.iter().all(|desk| desk.train.rows.len() == SKEWED.size), "{sites} desks");
            let texts: BTreeSet<&str> =
                desks.iter().flat_map(|desk| &desk.train.rows).map(|row| row[1].as_str()).collect();
            assert_eq!(texts.len(), sites * SKEWED.size, "{sites} desks");
        }
    }

    #[test]
    fn each_desk_sees_mostly_two_topics_and_all_desks_see_every_topic() {
        for seed in 0..20 {
            let desks = dealt(seed, 4);
            for desk in &desks {
                let mut counts: Vec<usize> = desk.train.label_counts().into_values().collect();
                counts.sort_unstable_by(|a, b| b.cmp(a));
                assert!(counts[0] + counts[1] >= SKEWED.size * 7 / 10, "{:?}", desk.train.label_counts());
            }
            let topics: BTreeSet<&str> =
                desks.iter().flat_map(|desk| desk.train.label_counts().into_keys()).collect();
            assert_eq!(topics.len(), 8);
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(dealt(7, 4), dealt(7, 4));
        assert_ne!(dealt(7, 4), dealt(8, 4));
    }
}
