//! Low-rank adapters: their tensors, their names (PEFT's), and what they make of a weight.

use crate::params::ParamTensor;
use crate::run::Lora;

use super::config::ModelConfig;

/// The adapter's two factors of a weight, `A` and `B`.
const FACTORS: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// The dense layers that get an adapter: those that the run names, or else those that PEFT takes for such a model.
pub(super) fn targets(lora: &Lora, config: Option<&ModelConfig>) -> Vec<String> {
    match config {
        Some(config) if lora.targets.is_empty() => {
            config.lora_targets().iter().map(|target| (*target).to_owned()).collect()
        }
        Some(_) | None => lora.targets.clone(),
    }
}

/// The last part of a dense layer's name, by which it can be a target; `None` for other tensors.
pub(super) fn target_of(tensor: &ParamTensor) -> Option<&str> {
    let layer = tensor.name.strip_suffix(".weight").filter(|_| tensor.shape.len() == 2)?;
    layer.rsplit('.').next()
}

/// Whether `target` names this dense layer.
pub(super) fn is_target(target: &str, tensor: &ParamTensor) -> bool {
    target_of(tensor) == Some(target)
}

/// The two tensors that are trained in place of a weight `[outputs, inputs]`, or the other way round when
/// `inputs_first`: `A` `[rank, inputs]` and `B` `[outputs, rank]`.
pub(super) fn adapter(lora: &Lora, weight: &ParamTensor, inputs_first: bool) -> [ParamTensor; 2] {
    let [a, b] = factor_names(&weight.name);
    let rank = u64::from(lora.rank);
    let (mut outputs, mut inputs) = (weight.shape[0], weight.shape[1]);
    if inputs_first {
        (outputs, inputs) = (inputs, outputs);
    }
    [ParamTensor { name: a, shape: vec![rank, inputs] }, ParamTensor { name: b, shape: vec![outputs, rank] }]
}

/// The names of the factors of the weight with this name.
pub fn factor_names(weight: &str) -> [String; 2] {
    let layer = weight.strip_suffix(".weight").unwrap_or(weight);
    FACTORS.map(|factor| format!("{layer}{factor}"))
}

/// A matrix `[rows, columns]`, row-major, with rows and columns exchanged.
pub(super) fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let columns = columns.max(1);
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns)).copied().collect()
}

/// The dense layer of which a tensor is the factor `A`; `None` when it is another tensor.
pub(super) fn adapted(name: &str) -> Option<&str> {
    name.strip_suffix(FACTORS[0])
}

/// Whether a tensor is the factor `A`, or else `B`; `None` when it is neither.
pub(super) fn is_a(name: &str) -> Option<bool> {
    let [a, b] = FACTORS.map(|factor| name.ends_with(factor));
    (a || b).then_some(a)
}

impl Lora {
    /// The factor on `B A`.
    pub fn scale(&self) -> f64 {
        self.alpha / f64::from(self.rank)
    }

    /// Adds `scale * B A` to rows of a weight: `rows` holds whole rows from number `first` on, `a` and `b` are the
    /// factors, row-major.
    pub fn merge(&self, rows: &mut [f32], first: usize, a: &[f32], b: &[f32]) {
        let rank = self.rank as usize;
        let inputs = a.len() / rank.max(1);
        for (row, b) in rows.chunks_mut(inputs.max(1)).zip(b.chunks(rank.max(1)).skip(first)) {
            for (column, value) in row.iter_mut().enumerate() {
                let product: f64 = b
                    .iter()
                    .enumerate()
                    .map(|(at, b)| f64::from(*b) * f64::from(a[at * inputs + column]))
                    .sum();
                *value = (f64::from(*value) + self.scale() * product) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::LoraBias;

    #[test]
    fn merging_adds_the_product_of_the_factors_wherever_it_begins() {
        let lora = Lora { rank: 2, alpha: 4.0, targets: Vec::new(), dropout: 0.0, bias: LoraBias::None };
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.5, -1.0, 2.0];
        let mut whole = [1.0; 6];
        lora.merge(&mut whole, 0, &a, &b);
        // Row 0: 1 * [1 2 3] + 0.5 * [4 5 6], twice, on top of 1.
        assert_eq!(whole, [7.0, 10.0, 13.0, 15.0, 17.0, 19.0]);
        let mut second = [1.0; 3];
        lora.merge(&mut second, 1, &a, &b);
        assert_eq!(second, whole[3..]);
    }
}
