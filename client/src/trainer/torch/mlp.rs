//! A multi-layer perceptron: dense layers with ReLU and dropout between them.

use tch::{TchError, Tensor};

use super::network::{Linear, Mode, Stage, drop_some};
use super::source::Source;
use crate::trainer::TrainError;

/// The stages `layers.0`, `layers.1` … of a perceptron with `inputs` inputs, hidden layers of these widths and
/// `num_labels` outputs.
pub(super) fn stages(
    source: &mut Source<'_>,
    inputs: u64,
    hidden: &[u64],
    num_labels: u64,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let mut stages: Vec<Box<dyn Stage>> = Vec::new();
    let mut width = inputs;
    for (layer, outputs) in hidden.iter().copied().chain([num_labels]).enumerate() {
        let linear = Linear::open(source, &format!("layers.{layer}"), width, outputs)?;
        stages.push(Box::new(Dense { linear, is_hidden: layer < hidden.len() }));
        width = outputs;
    }
    Ok(stages)
}

/// One dense layer, `[batch, 1, inputs]` to `[batch, 1, outputs]`.
struct Dense {
    linear: Linear,
    /// Whether ReLU and dropout follow.
    is_hidden: bool,
}

impl Stage for Dense {
    fn parameters(&self) -> Vec<&Tensor> {
        self.linear.parameters().to_vec()
    }

    fn apply(&self, values: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let values = self.linear.apply(values, mode)?;
        if self.is_hidden { drop_some(values.f_relu()?, mode) } else { Ok(values) }
    }
}
