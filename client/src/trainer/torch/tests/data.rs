//! The way of examples into padded batches and back.

use tch::{Device, Kind, Tensor};

use crate::trainer::torch::ragged::Ragged;
use crate::trainer::torch::values;

/// Examples of 2, 1 and 3 rows of one value each: 0, 1 | 2 | 3, 4, 5.
fn ragged() -> Ragged {
    Ragged::new(Tensor::arange(6, (Kind::Float, Device::Cpu)).view([6, 1]), [2, 1, 3])
}

#[test]
fn a_batch_is_padded_to_its_longest_example() {
    let batch = ragged().batch(&[1, 0], Device::Cpu).unwrap();
    assert_eq!(batch.values.size(), [2, 2, 1]);
    assert_eq!(values(&batch.values.narrow(0, 1, 1)).unwrap(), [0.0, 1.0]);
    let real = Vec::<bool>::try_from(batch.real.unwrap().flatten(0, -1)).unwrap();
    assert_eq!(real, [true, false, true, true]);
    assert!(ragged().batch(&[2], Device::Cpu).unwrap().real.is_none());
}

#[test]
fn rows_of_a_padded_batch_return_to_their_places() {
    let mut copy = Ragged::new(Tensor::zeros([6, 1], (Kind::Float, Device::Cpu)), [2, 1, 3]);
    for examples in [[2, 0].as_slice(), &[1]] {
        copy.put(examples, &ragged().batch(examples, Device::Cpu).unwrap().values).unwrap();
    }
    for example in 0..3 {
        let rows = |from: &Ragged| values(&from.batch(&[example], Device::Cpu).unwrap().values).unwrap();
        assert_eq!(rows(&copy), rows(&ragged()));
    }
}

#[test]
fn buckets_keep_similar_lengths_together_within_the_limit() {
    let lengths = [5, 1, 9, 4, 5, 20, 2];
    let rows = lengths.iter().sum::<usize>() as i64;
    let ragged = Ragged::new(Tensor::zeros([rows, 1], (Kind::Float, Device::Cpu)), lengths);
    assert_eq!(ragged.by_length(10), [vec![5], vec![2], vec![0, 4], vec![3, 6], vec![1]]);
}
