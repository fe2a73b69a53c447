//! Deals documents out to desks, so that each sees mostly its own topics and all together see every one.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use sheaf_common::seed;

use crate::example::{Choice, Site};
use crate::table::Table;

/// Documents of each desk.
pub(super) const DESK_SIZE: usize = 150;
/// Those of them that are not of the desk's own topics: one in seven.
const STRAY: usize = 21;
/// Least number of topics that a desk has for its own.
const OWN_TOPICS: usize = 2;

/// The documents of one topic that nobody has yet.
type Piles<'a> = BTreeMap<&'a str, Vec<&'a Vec<String>>>;

/// Gives each desk [`DESK_SIZE`] of `documents`, none of them twice.
///
/// The topics are shuffled and dealt out in turn, so that with four desks each of the eight is the own topic of
/// exactly one. First each desk gets its strays, from all other topics in turn; then it is filled up from its own
/// topics in equal parts, and when these run out, from whatever is left.
pub(super) fn partition(documents: &Table, choice: Choice) -> Vec<Site> {
    let desks = choice.sites.get();
    let mut piles = piles(documents, choice.seed);
    let own = own_topics(&piles, desks, choice.seed);
    let mut dealt: Vec<Vec<Vec<String>>> = vec![Vec::new(); desks];
    for (desk, own) in dealt.iter_mut().zip(&own) {
        let others: Vec<&str> = piles
            .keys()
            .copied()
            .filter(|topic| !own.contains(topic))
            .collect();
        fill(desk, STRAY, &others, &mut piles);
    }
    for (desk, own) in dealt.iter_mut().zip(&own) {
        fill(desk, DESK_SIZE, own, &mut piles);
    }
    for desk in &mut dealt {
        let all: Vec<&str> = piles.keys().copied().collect();
        fill(desk, DESK_SIZE, &all, &mut piles);
    }
    let sites = dealt.into_iter().enumerate().map(|(number, mut rows)| {
        let name = format!("desk-{}", number + 1);
        rows.shuffle(&mut seed::stream(choice.seed, &["newswire desk", &name]));
        Site {
            name,
            train: documents.with_rows(rows),
        }
    });
    sites.collect()
}

/// The documents by topic, shuffled.
fn piles(documents: &Table, seed: u64) -> Piles<'_> {
    let mut piles = documents.by_label();
    for (topic, pile) in &mut piles {
        pile.shuffle(&mut seed::stream(seed, &["newswire topic", topic]));
    }
    piles
}

/// Each desk's own topics: dealt out in turn from the shuffled ones, again and again if there are many desks.
fn own_topics<'a>(piles: &Piles<'a>, desks: usize, seed: u64) -> Vec<Vec<&'a str>> {
    let mut topics: Vec<&str> = piles.keys().copied().collect();
    topics.shuffle(&mut seed::stream(seed, &["newswire topics"]));
    let each = topics.len().div_ceil(desks).max(OWN_TOPICS).min(topics.len());
    let turn = |desk: usize| (0..each).map(move |place| desk * each + place);
    (0..desks)
        .map(|desk| turn(desk).map(|place| topics[place % topics.len()]).collect())
        .collect()
}

/// Fills a desk up to `size` from the piles of `topics` in turn, for as long as they last.
fn fill<'a>(desk: &mut Vec<Vec<String>>, size: usize, topics: &[&'a str], piles: &mut Piles<'a>) {
    loop {
        let before = desk.len();
        for topic in topics {
            if desk.len() == size {
                return;
            }
            desk.extend(piles.get_mut(topic).and_then(Vec::pop).cloned());
        }
        if desk.len() == before {
            return;
        }
    }
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
        Table {
            format: Format::Tsv,
            columns: vec!["topic", "text"],
            label: 0,
            rows: rows.collect(),
        }
    }

    fn choice(seed: u64, sites: usize) -> Choice {
        Choice {
            seed,
            sites: NonZeroUsize::new(sites).unwrap(),
        }
    }

    #[test]
    fn every_desk_has_its_share_and_no_document_is_dealt_twice() {
        for sites in 2..=16 {
            let desks = partition(&documents(), choice(1, sites));
            assert_eq!(desks.len(), sites);
            assert!(
                desks.iter().all(|desk| desk.train.rows.len() == DESK_SIZE),
                "{sites} desks"
            );
            let texts: BTreeSet<&str> = desks
                .iter()
                .flat_map(|desk| &desk.train.rows)
                .map(|row| row[1].as_str())
                .collect();
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
                assert!(
                    counts[0] + counts[1] >= DESK_SIZE * 5 / 6,
                    "{:?}",
                    desk.train.label_counts()
                );
            }
            let topics: BTreeSet<&str> = desks
                .iter()
                .flat_map(|desk| desk.train.label_counts().into_keys())
                .collect();
            assert_eq!(topics.len(), 8);
        }
    }

    #[test]
    fn the_seed_decides() {
        let documents = documents();
        assert_eq!(
            partition(&documents, choice(7, 4)),
            partition(&documents, choice(7, 4))
        );
        assert_ne!(
            partition(&documents, choice(7, 4)),
            partition(&documents, choice(8, 4))
        );
    }
}
