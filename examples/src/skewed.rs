//! Deals documents out to desks, so that each sees mostly its own topics and all together see every one.

use rand::seq::SliceRandom;
use sheaf_common::seed;

use crate::example::{Choice, Site};
use crate::table::Table;

/// Documents of each desk.
pub(super) const DESK_SIZE: usize = 150;
/// Those of them that come from the whole archive, whatever they are about: one in five.
const STRAY: usize = 30;
/// Least number of topics that a desk has for its own.
const OWN_TOPICS: usize = 2;

/// Gives each desk [`DESK_SIZE`] of `documents`, none of them twice.
///
/// The topics are shuffled and dealt out in turn, so that with four desks each of the eight is the own topic of
/// exactly one. First each desk gets its strays, drawn from all documents that are not of its own topics; then it
/// is filled up from its own topics in equal parts, and when these run out, from whatever is left.
pub(super) fn partition(documents: &Table, choice: Choice) -> Vec<Site> {
    let Choice { seed, sites } = choice;
    let mut archive: Vec<&Row> = documents.rows.iter().collect();
    archive.shuffle(&mut seed::stream(seed, &["newswire archive"]));
    let own = own_topics(documents, sites.get(), seed);
    let mut desks: Vec<Vec<Row>> = vec![Vec::new(); sites.get()];
    for (desk, own) in desks.iter_mut().zip(&own) {
        take(desk, STRAY, &mut archive, |row| !own.contains(&documents.label_of(row)));
    }
    for (desk, own) in desks.iter_mut().zip(&own) {
        let own_size = DESK_SIZE - STRAY;
        for (place, topic) in own.iter().enumerate() {
            let size = STRAY + own_size * (place + 1) / own.len();
            take(desk, size, &mut archive, |row| documents.label_of(row) == *topic);
        }
        take(desk, DESK_SIZE, &mut archive, |row| own.contains(&documents.label_of(row)));
    }
    for desk in &mut desks {
        take(desk, DESK_SIZE, &mut archive, |_| true);
    }
    let site =
        |(number, rows): (usize, Vec<Row>)| site(format!("desk-{}", number + 1), rows, documents, seed);
    desks.into_iter().enumerate().map(site).collect()
}

type Row = Vec<String>;

/// A desk whose file does not tell in which order it was filled.
fn site(name: String, mut rows: Vec<Row>, documents: &Table, seed: u64) -> Site {
    rows.shuffle(&mut seed::stream(seed, &["newswire desk", &name]));
    Site { name, train: documents.with_rows(rows) }
}

/// Each desk's own topics: dealt out in turn from the shuffled ones, again and again if there are many desks.
fn own_topics(documents: &Table, desks: usize, seed: u64) -> Vec<Vec<&str>> {
    let mut topics: Vec<&str> = documents.label_counts().into_keys().collect();
    topics.shuffle(&mut seed::stream(seed, &["newswire topics"]));
    let each = topics.len().div_ceil(desks).max(OWN_TOPICS).min(topics.len());
    let own = |desk: usize| (0..each).map(|place| topics[(desk * each + place) % topics.len()]).collect();
    (0..desks).map(own).collect()
}

/// Fills a desk up to `size` with documents that fit, as long as there are any.
fn take(desk: &mut Vec<Row>, size: usize, archive: &mut Vec<&Row>, fits: impl Fn(&Row) -> bool) {
    archive.retain(|row| {
        let taken = desk.len() < size && fits(row);
        if taken {
            desk.push((*row).clone());
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

    fn choice(seed: u64, sites: usize) -> Choice {
        Choice { seed, sites: NonZeroUsize::new(sites).unwrap() }
    }

    #[test]
    fn every_desk_has_its_share_and_no_document_is_dealt_twice() {
        for sites in 2..=16 {
            let desks = partition(&documents(), choice(1, sites));
            assert_eq!(desks.len(), sites);
            assert!(desks.iter().all(|desk| desk.train.rows.len() == DESK_SIZE), "{sites} desks");
            let texts: BTreeSet<&str> =
                desks.iter().flat_map(|desk| &desk.train.rows).map(|row| row[1].as_str()).collect();
            assert_eq!(texts.len(), sites * DESK_SIZE, "{sites} desks");
        }
    }

    #[test]
    fn each_desk_sees_mostly_two_topics_and_all_desks_see_every_topic() {
        for seed in 0..20 {
            let desks = partition(&documents(), choice(seed, 4));
            for desk in &desks {
                let mut counts: Vec<usize> = desk.train.label_counts().into_values().collect();
                counts.sort_unstable_by(|a, b| b.cmp(a));
                assert!(counts[0] + counts[1] >= DESK_SIZE * 7 / 10, "{:?}", desk.train.label_counts());
            }
            let topics: BTreeSet<&str> =
                desks.iter().flat_map(|desk| desk.train.label_counts().into_keys()).collect();
            assert_eq!(topics.len(), 8);
        }
    }

    #[test]
    fn the_seed_decides() {
        let documents = documents();
        assert_eq!(partition(&documents, choice(7, 4)), partition(&documents, choice(7, 4)));
        assert_ne!(partition(&documents, choice(7, 4)), partition(&documents, choice(8, 4)));
    }
}
