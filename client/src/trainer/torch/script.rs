//! A TorchScript module as the only stage of a network.
//!
//! A module is a program. It is loaded from the bytes whose hash the site's policy lists, and from no others. Its parameters
//! then take on the memory of ours, trained and frozen, and gradients are taken of them; whatever else it holds stays as it is
//! in its file.
//!
//! `tch::TrainableCModule` would copy the parameters into a `VarStore`, where names lose their dots; `CModule`, of which it is
//! made, gives them by their own names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sheaf_common::blob::BlobId;
use sheaf_common::model::{MODULE_FILE, ScriptConfig, ScriptInput};
use tch::{CModule, Device, Kind, TchError, Tensor, jit};

use super::network::{Mode, Stage};
use super::source::Source;
use crate::trainer::TrainError;

/// What red, green and blue make of grey (ITU-R BT.601), as in Pillow's mode `L`.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// A module with the parameters of `source`, and its trained parameters in the order of `config`.
///
/// # Errors
/// When its file is not among those that are `allowed`, or is not what `config` describes.
pub(super) fn open(
    source: &mut Source<'_>,
    config: &ScriptConfig,
    model_dir: &Path,
    allowed: &BTreeSet<BlobId>,
) -> Result<(Script, Vec<Tensor>), TrainError> {
    let code = fs::read(model_dir.join(MODULE_FILE)).map_err(|reason| {
        TrainError::Failed(format!("the model's {MODULE_FILE} cannot be read: {reason}"))
    })?;
    let hash = BlobId::of(&code);
    if !allowed.contains(&hash) {
        return Err(TrainError::Unlisted(hash));
    }
    let device = source.device();
    let module = CModule::load_data_on_device(&mut code.as_slice(), device).map_err(of_module)?;
    drop(code);
    let parameters = take_on(&module, source, config)?;
    let trained = parameters.iter().filter(|own| own.requires_grad()).map(Tensor::shallow_clone).collect();
    let input = Input::new(&config.input, device)?;
    let (outputs, has_statistics) = (config.outputs as i64, config.has_statistics);
    Ok((Script { module: RefCell::new(module), parameters, input, outputs, has_statistics }, trained))
}

/// The module's own parameters in the order of `config`, each in the memory of the tensor of its name.
fn take_on(
    module: &CModule,
    source: &mut Source<'_>,
    config: &ScriptConfig,
) -> Result<Vec<Tensor>, TrainError> {
    let mut named: BTreeMap<String, Tensor> = module.named_parameters()?.into_iter().collect();
    let other = |name: &str| {
        TrainError::Failed(format!(
            "{MODULE_FILE} has another parameter `{name}` than the model's config.json, or none"
        ))
    };
    let mut parameters = Vec::with_capacity(config.parameters.len());
    for parameter in &config.parameters {
        let mut own = named.remove(&parameter.name).ok_or_else(|| other(&parameter.name))?;
        let ours = source.take(&parameter.name, &parameter.shape)?;
        if own.size() != ours.size() || own.f_kind()? != Kind::Float || !own.requires_grad() {
            return Err(other(&parameter.name));
        }
        own.f_set_data(&ours.f_detach()?)?;
        parameters.push(own.f_set_requires_grad(ours.requires_grad())?);
    }
    // What is left is frozen in the file, or another name of a parameter.
    let known: BTreeSet<_> = parameters.iter().map(Tensor::data_ptr).collect();
    match named.iter().find(|(_, own)| own.requires_grad() && !known.contains(&own.data_ptr())) {
        Some((name, _)) => Err(other(name)),
        None => Ok(parameters),
    }
}

/// A TorchScript module.
pub(super) struct Script {
    module: RefCell<CModule>,
    parameters: Vec<Tensor>,
    input: Input,
    outputs: i64,
    /// Whether it would count batches in training, and so never does as it would there.
    has_statistics: bool,
}

/// What becomes of an example before the module has it.
enum Input {
    Row,
    Pixels {
        /// `[1, 3, 1, 1]`, when the module takes grey images.
        luma: Option<Tensor>,
        /// `[1, channels, 1, 1]`.
        mean: Tensor,
        /// `[1, channels, 1, 1]`.
        std: Tensor,
    },
}

impl Input {
    fn new(input: &ScriptInput, device: Device) -> Result<Self, TchError> {
        let ScriptInput::Image { mean, std, .. } = input else { return Ok(Self::Row) };
        let channels = |values: &Tensor| values.f_to_kind(Kind::Float)?.f_view([1, -1, 1, 1])?.f_to(device);
        let luma = (mean.len() == 1).then(|| channels(&Tensor::f_from_slice(&LUMA)?)).transpose()?;
        let (mean, std) = (channels(&Tensor::f_from_slice(mean)?)?, channels(&Tensor::f_from_slice(std)?)?);
        Ok(Self::Pixels { luma, mean, std })
    }

    /// `[batch, width]` as it is, or `[batch, 3, size, size]`, bytes or floats of which 1 is white, to `[batch, channels, size,
    /// size]`.
    fn apply(&self, values: &Tensor) -> Result<Tensor, TchError> {
        let Self::Pixels { luma, mean, std } = self else { return Ok(values.shallow_clone()) };
        let mut pixels = values.shallow_clone();
        if pixels.f_kind()? == Kind::Uint8 {
            pixels = pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        }
        if let Some(luma) = luma {
            pixels = pixels.f_mul(luma)?.f_sum_dim_intlist([1].as_slice(), true, Kind::Float)?;
        }
        pixels.f_sub(mean)?.f_div(std)
    }
}

impl Stage for Script {
    fn parameters(&self) -> Vec<&Tensor> {
        self.parameters.iter().collect()
    }

    fn draws(&self) -> bool {
        !self.has_statistics
    }

    fn apply(&self, values: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let mut module = self.module.borrow_mut();
        if mode.is_training() && !self.has_statistics {
            module.f_set_train()?
        } else {
            module.f_set_eval()?
        }
        // The interpreter would otherwise watch the first batches and compute later ones in another way, to other last bits.
        // The setting is the thread's.
        jit::f_set_graph_executor_optimize(false)?;
        let given = module.forward_ts(&[self.input.apply(values)?]).map_err(of_module)?;
        let expected = [values.size()[0], self.outputs];
        if given.size() != expected || given.f_kind()? != Kind::Float {
            return Err(TchError::Shape(format!(
                "the TorchScript module gives {:?} of the shape {:?}, and must give floats of the shape {expected:?}",
                given.f_kind()?,
                given.size()
            )));
        }
        Ok(given)
    }
}

/// The interpreter's message without the lines of code before it, which are indented.
fn of_module(error: TchError) -> TchError {
    let text = if let TchError::Torch(text) = error { text } else { error.to_string() };
    let message = text.rsplit_once("<--- HERE").map_or(text.as_str(), |(_, message)| message);
    let message = message.lines().find(|line| !line.is_empty() && !line.starts_with(' ')).unwrap_or_default();
    TchError::Torch(format!("the TorchScript module failed: {message}"))
}
