//! Whatever the way, nothing is lost, nobody goes without, and the seed decides.

use rand::RngExt;

use super::*;

const LABELS: u32 = 10;

fn labels(count: usize) -> Vec<u32> {
    (0..count).map(|place| place as u32 * 7 % LABELS).collect()
}

fn dealt(how: &Partition, clients: u32, seed: u64) -> Vec<Vec<usize>> {
    let labels = labels(1000);
    let by = By { labels: &labels, values: None, seed };
    let holdings = divide(how, NonZeroU32::new(clients).unwrap(), (0..1000).collect(), &by).unwrap();
    (0..clients).map(|client| holdings.of(client).to_vec()).collect()
}

fn kinds() -> Vec<Partition> {
    let per_client = NonZeroU32::new(2).unwrap();
    vec![
        Partition::Iid,
        Partition::Dirichlet { alpha: 0.1 },
        Partition::Dirichlet { alpha: 100.0 },
        Partition::Shards { per_client },
        Partition::Quantity { sigma: 1.5 },
    ]
}

#[test]
fn every_example_goes_to_one_client_and_every_client_has_one() {
    for how in kinds() {
        for clients in [1, 7, 50, 500] {
            let dealt = dealt(&how, clients, 3);
            assert!(dealt.iter().all(|own| !own.is_empty()), "{how:?}");
            let mut all = dealt.concat();
            all.sort_unstable();
            assert_eq!(all, (0..1000).collect::<Vec<_>>(), "{how:?}");
        }
    }
}

#[test]
fn the_seed_decides() {
    for how in kinds() {
        assert_eq!(dealt(&how, 20, 1), dealt(&how, 20, 1));
        assert_ne!(dealt(&how, 20, 1), dealt(&how, 20, 2), "{how:?}");
    }
}

/// The mean over clients of how many labels they have.
fn variety(dealt: &[Vec<usize>]) -> f64 {
    let all = labels(1000);
    let of = |own: &Vec<usize>| by_label(&all, own.iter().copied()).len() as f64;
    dealt.iter().map(of).sum::<f64>() / dealt.len() as f64
}

#[test]
fn shards_give_few_labels_and_dirichlet_as_many_as_its_concentration_says() {
    let sizes = |dealt: &[Vec<usize>]| dealt.iter().map(Vec::len).collect::<Vec<_>>();
    let per_client = NonZeroU32::new(2).unwrap();
    let shards = dealt(&Partition::Shards { per_client }, 50, 1);
    assert_eq!(sizes(&shards), [20; 50]);
    assert!(variety(&shards) <= 2.0, "100 shards of 100 examples a label");
    let [uneven, even] = [0.05, 100.0].map(|alpha| variety(&dealt(&Partition::Dirichlet { alpha }, 20, 1)));
    assert!(uneven < 4.0 && even > 9.0, "{uneven} {even}");
    assert_eq!(sizes(&dealt(&Partition::Iid, 8, 1)), [125; 8]);
    let mut quantities = sizes(&dealt(&Partition::Quantity { sigma: 1.0 }, 20, 1));
    quantities.sort_unstable();
    assert!(quantities[19] > 5 * quantities[4], "{quantities:?}");
}

#[test]
fn a_column_makes_a_client_of_every_value() {
    let labels = labels(6);
    let by = By { labels: &labels, values: Some(&[0, 1, 0, 2, 1, 0]), seed: 1 };
    let column = Partition::Column("hospital".into());
    let divide = |clients: u32| divide(&column, NonZeroU32::new(clients).unwrap(), (0..6).collect(), &by);
    let holdings = divide(3).unwrap();
    assert_eq!((holdings.of(0), holdings.of(1), holdings.of(2)), (&[0, 2, 5][..], &[1, 4][..], &[3][..]));
    assert_eq!(divide(4).unwrap_err(), PartitionError::Values { values: 3 });
}

#[test]
fn too_few_examples_are_said_to_be_too_few() {
    let labels = labels(5);
    let by = By { labels: &labels, values: None, seed: 1 };
    let divide = |how: &Partition| divide(how, NonZeroU32::new(4).unwrap(), (0..5).collect(), &by);
    assert!(divide(&Partition::Iid).is_ok());
    let shards = Partition::Shards { per_client: NonZeroU32::new(2).unwrap() };
    assert!(
        divide(&shards).unwrap_err().to_string().contains("5 examples cannot be divided among 4 clients")
    );
    let same = By { labels: &[1; 5], ..by };
    let alike = super::divide(&shards, NonZeroU32::MIN, (0..5).collect(), &same);
    assert_eq!(alike.unwrap_err(), PartitionError::NoLabels);
}

#[test]
fn who_has_most_gives_to_who_has_nothing() {
    // As it is said, in as many steps as there are clients for each that is hungry.
    let slowly = |mut parts: Vec<Vec<usize>>| {
        while let Some(hungry) = parts.iter().position(Vec::is_empty) {
            let most = parts.iter().map(Vec::len).max().unwrap();
            let giver = parts.iter().position(|part| part.len() == most).unwrap();
            let place = parts[giver].pop().unwrap();
            parts[hungry].push(place);
        }
        parts
    };
    for seed in 0..200 {
        let random = &mut sheaf_common::seed::stream(seed, &["hungry"]);
        let mut parts: Vec<Vec<usize>> = vec![Vec::new(); 12];
        for place in 0..20 {
            let client = random.random_range(0..12usize).min(random.random_range(0..12));
            parts[client].push(place);
        }
        let mut fed = parts.clone();
        feed_the_hungry(&mut fed);
        assert_eq!(fed, slowly(parts));
    }
}
