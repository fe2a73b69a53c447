//! The parameters that travel: their names and shapes in one agreed order.
//!
//! A blob of parameters (the trainable part of the global model, or a `Delta`) is the little-endian f32 values
//! of every tensor of the spec, row-major, one after the other, with nothing between them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of one value on the wire and on disk.
pub const VALUE_BYTES: u64 = 4;

/// One tensor that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamTensor {
    /// Its name in the model, as Hugging Face writes it.
    pub name: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
}

impl ParamTensor {
    /// Number of values; the largest there is when they are more, which only a liar writes.
    pub fn numel(&self) -> u64 {
        self.shape.iter().fold(1, |values, length| values.saturating_mul(*length))
    }
}

/// The tensors that travel, in order. Server and site derive it independently and compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// The tensors, in the order in which their values are laid out.
    pub tensors: Vec<ParamTensor>,
}

impl ParamSpec {
    /// Number of values over all tensors.
    pub fn numel(&self) -> u64 {
        self.tensors.iter().fold(0, |values, tensor| values.saturating_add(tensor.numel()))
    }

    /// Bytes of a blob of these parameters.
    pub fn bytes(&self) -> u64 {
        self.numel().saturating_mul(VALUE_BYTES)
    }
}

/// The parameters that travel in a run, phase by phase. They only grow: what a phase trains the next one trains too, in
/// the same order, with more in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    first: ParamSpec,
    /// By the round that each begins with, above 1.
    later: BTreeMap<u32, ParamSpec>,
}

/// Phases that do not grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGrowing {
    /// A tensor is left out again.
    #[error(
        "`{tensor}` is trained before round {round} and not from it on; a phase trains all that the one before it did"
    )]
    Left {
        /// The round that the phase begins with.
        round: u32,
        /// The tensor.
        tensor: String,
    },
    /// Nothing new is trained.
    #[error("from round {0} on the same is trained as before it; leave the phase out, or let it train more")]
    Same(u32),
}

impl Phases {
    /// These, and from `round` on, which is later than all so far, `next`.
    pub fn then(mut self, round: u32, next: ParamSpec) -> Result<Self, NotGrowing> {
        let before = self.after(round);
        let mut kept = before.tensors.iter().peekable();
        for tensor in &next.tensors {
            kept.next_if(|kept| *kept == tensor);
        }
        if let Some(left) = kept.next() {
            return Err(NotGrowing::Left { round, tensor: left.name.clone() });
        }
        if next.tensors.len() == before.tensors.len() {
            return Err(NotGrowing::Same(round));
        }
        self.later.insert(round, next);
        Ok(self)
    }

    /// What travels once `completed` rounds are over: what the next round trains, and the form in which the global
    /// parameters after `completed` rounds are kept.
    pub fn after(&self, completed: u32) -> &ParamSpec {
        let begun = self.later.range(..=completed.saturating_add(1)).next_back();
        begun.map_or(&self.first, |(_, params)| params)
    }
}

impl From<ParamSpec> for Phases {
    /// The same in every round.
    fn from(first: ParamSpec) -> Self {
        Self { first, later: BTreeMap::new() }
    }
}

/// The values as the bytes of a blob.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The bytes of a blob as values; a tail of fewer than four bytes is ignored.
pub fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(names: &[&str]) -> ParamSpec {
        let tensors = names.iter().map(|name| ParamTensor { name: (*name).into(), shape: vec![2] }).collect();
        ParamSpec { tensors }
    }

    #[test]
    fn a_phase_lasts_until_the_next_begins() {
        let (head, last, all) = (spec(&["c"]), spec(&["b", "c"]), spec(&["a", "b", "c"]));
        let phases = Phases::from(head.clone()).then(3, last.clone()).unwrap().then(4, all.clone()).unwrap();
        let each = [0, 1, 2, 3, 4, u32::MAX].map(|completed| phases.after(completed));
        assert_eq!(each, [&head, &head, &last, &all, &all, &all]);
        assert_eq!(Phases::from(head.clone()).after(7), &head);
    }

    #[test]
    fn phases_that_do_not_grow_are_refused() {
        let phases = |first: &[&str], next: &[&str]| {
            Phases::from(spec(first)).then(4, spec(next)).unwrap_err().to_string()
        };
        assert_eq!(
            phases(&["b", "c"], &["a", "c"]),
            "`b` is trained before round 4 and not from it on; a phase trains all that the one before it did"
        );
        assert_eq!(
            phases(&["b", "c"], &["b", "c"]),
            "from round 4 on the same is trained as before it; leave the phase out, or let it train more"
        );
        assert!(
            phases(&["b", "c"], &["c", "a", "b"]).starts_with("`c` is trained"),
            "the order is part of it"
        );
    }
}
