use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn threshold(sites: u32, colluding: Option<u32>) -> Option<u32> {
    Graph::complete(sites, colluding).map(|graph| graph.threshold())
}

#[test]
fn the_quorum_is_the_documented_one() {
    let defaults = [
        (2, 2),
        (3, 3),
        (4, 3),
        (5, 4),
        (6, 5),
        (7, 5),
        (8, 6),
        (10, 7),
        (20, 14),
        (50, 34),
        (100, 67),
        (200, 134),
    ];
    for (sites, expected) in defaults {
        assert_eq!(threshold(sites, None), Some(expected), "{sites} sites");
    }
    assert_eq!(threshold(3, Some(0)), Some(2));
    assert_eq!(threshold(3, Some(1)), Some(3));
    assert_eq!(threshold(6, Some(2)), Some(5));
    assert_eq!(quorum(u32::MAX, u32::MAX), u32::MAX);
}

#[test]
fn what_cannot_be_promised_is_refused() {
    assert_eq!(Graph::complete(0, None), None);
    assert_eq!(Graph::complete(1, None), None);
    assert_eq!(Graph::complete(5, Some(5)), None);
    assert_eq!(Graph::complete(5, Some(u32::MAX)), None);
    assert_eq!(threshold(5, Some(4)), Some(5));
    assert_eq!(Graph::regular(3, &[0; 32]), None);
}

#[test]
fn on_the_complete_graph_everybody_holds_a_share() {
    let graph = Graph::complete(4, None).unwrap();
    assert_eq!(graph.neighbours(1), [0, 2, 3]);
    assert_eq!(graph.holders(1), [0, 1, 2, 3]);
    assert!(graph.neighbours(4).is_empty());
}

#[test]
fn the_order_of_the_ring_is_golden() {
    assert_eq!(permutation(10, &[7; 32]), [1, 7, 6, 9, 0, 5, 2, 8, 3, 4]);
}

#[test]
fn draws_are_uniform() {
    let mut stream = Stream::new(&[1; 16]);
    let mut counts = [0u32; 6];
    for _ in 0..60_000 {
        counts[draw(&mut stream, 6) as usize] += 1;
    }
    // Six standard deviations.
    assert!(counts.iter().all(|count| count.abs_diff(10_000) < 550), "{counts:?}");
}

/// Everybody that can be reached from rank 0.
fn reached(graph: &Graph) -> BTreeSet<u32> {
    let (mut reached, mut next) = (BTreeSet::from([0]), vec![0]);
    while let Some(rank) = next.pop() {
        next.extend(graph.neighbours(rank).into_iter().filter(|other| reached.insert(*other)));
    }
    reached
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_regular_graph_is_regular_symmetric_and_connected(sites in 10u32..400, seed: [u8; 32]) {
        let graph = Graph::regular(sites, &seed).unwrap();
        prop_assert_eq!(&graph, &Graph::regular(sites, &seed).unwrap());
        let Graph::Regular { degree, .. } = &graph else { unreachable!("asked for a regular one") };
        for rank in 0..sites {
            let neighbours = graph.neighbours(rank);
            prop_assert_eq!(neighbours.len(), *degree as usize);
            prop_assert!(neighbours.windows(2).all(|pair| pair[0] < pair[1]), "sorted, nobody twice");
            prop_assert!(!neighbours.contains(&rank));
            prop_assert!(neighbours.iter().all(|other| graph.neighbours(*other).contains(&rank)));
            prop_assert_eq!(neighbours, graph.holders(rank));
        }
        prop_assert_eq!(reached(&graph).len(), sites as usize);
        prop_assert!(graph.threshold() <= *degree);
    }
}
