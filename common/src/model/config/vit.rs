//! `config.json` of Hugging Face's `ViTForImageClassification`, checked. What the model reads of a pixel stands in a file of its own
//! beside it, which the import writes into this one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::encoder::labels_in_order;
use super::{BadConfig, bad, only, read, within};
use crate::model::PREPROCESSOR_FILE;
use crate::model::vision::{Architecture, CHANNELS, Image, Vit, VitNames};

type PerChannel = [f64; CHANNELS as usize];

/// What `transformers` says, and `image_mean` and `image_std` of its image processor.
#[derive(Deserialize)]
pub(super) struct VitJson {
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    intermediate_size: u64,
    image_size: u64,
    patch_size: u64,
    #[serde(default = "three")]
    num_channels: u64,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    qkv_bias: Option<bool>,
    id2label: Option<BTreeMap<String, String>>,
    image_mean: Option<PerChannel>,
    image_std: Option<PerChannel>,
}

fn three() -> u64 {
    CHANNELS
}

impl VitJson {
    pub(super) fn checked(self) -> Result<Image, BadConfig> {
        only("hidden_act", self.hidden_act.as_deref(), "gelu")?;
        within("num_channels", self.num_channels, CHANNELS, CHANNELS)?;
        if self.qkv_bias == Some(false) {
            return bad(
                "`qkv_bias` is false; Sheaf computes attention with biases only, so import another model",
            );
        }
        let (Some(mean), Some(std)) = (self.image_mean, self.image_std) else {
            return bad(format!(
                "has no `image_mean` and `image_std`: import it together with the model's {PREPROCESSOR_FILE}"
            ));
        };
        // Whether the patch has a size is checked with the rest.
        let side = self.image_size.checked_div(self.patch_size).unwrap_or(0);
        let net = Vit {
            patch_size: self.patch_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            num_tokens: side.saturating_mul(side).saturating_add(1),
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-12),
            names: VitNames::HuggingFace,
        };
        let labels = labels_in_order(self.id2label.unwrap_or_default());
        Image { architecture: Architecture::Vit(net), image_size: self.image_size, mean, std, labels }
            .checked()
    }
}

/// Whether this `config.json` is of such a model.
pub fn is_vit(config_json: &[u8]) -> bool {
    read::<super::KindJson>(config_json).is_ok_and(|kind| kind.model_type.as_deref() == Some("vit"))
}

/// What an image processor of `transformers` does with pixels.
#[derive(Deserialize)]
struct ProcessorJson {
    #[serde(default = "yes")]
    do_normalize: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    rescale_factor: Option<f64>,
    image_mean: Option<PerChannel>,
    image_std: Option<PerChannel>,
    size: Option<Size>,
}

fn yes() -> bool {
    true
}

/// A size as today's `transformers` write it, or as older ones did.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Sides { height: u64, width: u64 },
    Edge { shortest_edge: u64 },
    Side(u64),
}

/// The `config.json` of such a model with `image_mean` and `image_std` of its `preprocessor_config.json`.
///
/// # Errors
/// When the processor does with pixels what Sheaf does not do.
pub fn with_pixels(config_json: &[u8], processor_json: &[u8]) -> Result<Vec<u8>, BadConfig> {
    let wrong = |problem: String| BadConfig(format!("does not go with {PREPROCESSOR_FILE}: {problem}"));
    let mut config: Map<String, Value> = read(config_json)?;
    let processor: ProcessorJson =
        serde_json::from_slice(processor_json).map_err(|error| wrong(error.to_string()))?;
    let is_plain = processor.rescale_factor.is_none_or(|factor| (255.0 * factor - 1.0).abs() < 1e-6);
    if !processor.do_rescale || !is_plain {
        return Err(wrong("it does not divide pixels by 255, as Sheaf does".into()));
    }
    let (mean, std) = match (processor.do_normalize, processor.image_mean, processor.image_std) {
        (false, ..) => ([0.0; CHANNELS as usize], [1.0; CHANNELS as usize]),
        (true, Some(mean), Some(std)) => (mean, std),
        (true, ..) => return Err(wrong("it gives no `image_mean` and `image_std`".into())),
    };
    if let (Some(size), Some(of_model)) = (processor.size, config.get("image_size").and_then(Value::as_u64)) {
        let (height, width) = match size {
            Size::Sides { height, width } => (height, width),
            Size::Edge { shortest_edge: side } | Size::Side(side) => (side, side),
        };
        if [height, width] != [of_model; 2] {
            return Err(wrong(format!(
                "it makes images of {height} x {width} pixels, and `image_size` is {of_model}"
            )));
        }
    }
    config.insert("image_mean".into(), json!(mean));
    config.insert("image_std".into(), json!(std));
    let mut json = serde_json::to_vec_pretty(&config).or_else(|error| bad(error.to_string()))?;
    json.push(b'\n');
    Ok(json)
}
