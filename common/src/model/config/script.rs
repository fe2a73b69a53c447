//! `config.json` of a TorchScript module: what goes in and out of it, and which parameters it has. All of it was said or
//! read when the module was imported, so that nobody needs to run it to know what would travel.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BadConfig, bad, within};
use crate::model::foreign::TENSORS_MAX;
use crate::model::tensors::Blocks;
use crate::params::ParamTensor;

/// Most values of a module, all parameters together.
const VALUES_MAX: u64 = 1 << 40;

/// A TorchScript module.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptConfig {
    /// What it takes.
    pub input: ScriptInput,
    /// Outputs: it gives `[batch, outputs]`.
    pub outputs: u64,
    /// What the outputs mean, once a run has trained it; empty before.
    pub labels: Vec<String>,
    /// Whether it counts batches (batch normalisation), and so always runs as it does in evaluation.
    pub has_statistics: bool,
    /// Its parameters, in its own order.
    pub parameters: Vec<ParamTensor>,
}

/// What a TorchScript module takes.
#[derive(Clone, Debug, PartialEq)]
pub enum ScriptInput {
    /// Rows of a table, `[batch, width]`.
    Table {
        /// Values of a row.
        width: u64,
    },
    /// Square images, `[batch, channels, size, size]`.
    Image {
        /// Side in pixels.
        size: u64,
        /// Mean of each channel, where 1 is white: the module reads `(x - mean) / std`. One channel is grey.
        mean: Vec<f64>,
        /// Standard deviation of each channel.
        std: Vec<f64>,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct ScriptJson {
    model_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    std: Option<Vec<f64>>,
    outputs: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    has_statistics: bool,
    parameters: Vec<ParamTensor>,
}

impl ScriptConfig {
    /// `config.json` of it.
    pub fn to_json(&self) -> Vec<u8> {
        let (inputs, image) = match &self.input {
            ScriptInput::Table { width } => (Some(*width), None),
            ScriptInput::Image { size, mean, std } => (None, Some((*size, mean.clone(), std.clone()))),
        };
        let (image_size, mean, std) = match image {
            Some((size, mean, std)) => (Some(size), Some(mean), Some(std)),
            None => (None, None, None),
        };
        let written = ScriptJson {
            model_type: "torchscript".into(),
            inputs,
            image_size,
            mean,
            std,
            outputs: self.outputs,
            labels: self.labels.clone(),
            has_statistics: self.has_statistics,
            parameters: self.parameters.clone(),
        };
        let mut json = serde_json::to_vec_pretty(&written).expect("strings and numbers are always JSON");
        json.push(b'\n');
        json
    }

    /// Its parameters, which are not parted into layers and head.
    pub fn blocks(&self) -> Blocks {
        Blocks { head: self.parameters.clone(), ..Blocks::default() }
    }
}

impl ScriptJson {
    pub(super) fn checked(self) -> Result<ScriptConfig, BadConfig> {
        let input = match (self.inputs, self.image_size, self.mean, self.std) {
            (Some(width), None, None, None) => {
                within("inputs", width, 1, 1 << 16)?;
                ScriptInput::Table { width }
            }
            (None, Some(size), Some(mean), Some(std)) => {
                within("image_size", size, 8, 1024)?;
                if !matches!((mean.len(), std.len()), (1, 1) | (3, 3)) {
                    return bad("`mean` and `std` have another number of channels than 1 or 3");
                }
                if !mean.iter().chain(&std).all(|value| value.is_finite())
                    || std.iter().any(|std| *std <= 0.0)
                {
                    return bad("`mean` and `std` are not those of pixels between 0 and 1");
                }
                ScriptInput::Image { size, mean, std }
            }
            _ => return bad("give either `inputs`, for a table, or `image_size`, `mean` and `std`"),
        };
        within("outputs", self.outputs, 1, 64)?;
        within("parameters", self.parameters.len() as u64, 1, TENSORS_MAX as u64)?;
        let (mut names, mut values) = (BTreeSet::new(), 0u64);
        for ParamTensor { name, shape } in &self.parameters {
            let numel = shape.iter().try_fold(1u64, |numel, size| numel.checked_mul(*size));
            values = values.saturating_add(numel.unwrap_or(u64::MAX));
            if !names.insert(name) || values > VALUES_MAX {
                return bad(format!(
                    "`parameters` lists `{}` twice, or with an impossible shape",
                    super::shown(name)
                ));
            }
        }
        let Self { outputs, labels, has_statistics, parameters, .. } = self;
        Ok(ScriptConfig { input, outputs, labels, has_statistics, parameters })
    }
}
