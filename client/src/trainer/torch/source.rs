//! Where a network's tensors come from while it is put together: trained ones are the parameters' own, frozen
//! ones are read from the `model.safetensors` of the pretrained model, one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sheaf_common::model::lora::factor_names;
use sheaf_common::model::{WEIGHTS_FILE, Weights};
use sheaf_common::params::{ParamSpec, ParamTensor};
use sheaf_common::run::{Lora, Precision};
use tch::{Device, Kind, Tensor};

use super::parameters::Parameters;
use super::precision::Products;
use super::values;
use crate::trainer::{Local, TrainError};

/// A network's tensors, to be taken by name.
pub(super) struct Source<'a> {
    /// With the statistics that training changes.
    trained: BTreeMap<&'a str, &'a Tensor>,
    pretrained: Option<Pretrained>,
    lora: Option<Lora>,
    products: Products,
    device: Device,
}

impl<'a> Source<'a> {
    /// The `parameters`, and what they do not hold from the pretrained model in `model_dir`.
    ///
    /// # Errors
    /// When there is such a folder and its weights cannot be read.
    pub(super) fn open(
        parameters: &'a Parameters,
        model_dir: Option<&Path>,
        lora: Option<&Lora>,
        precision: Precision,
        device: Device,
    ) -> Result<Self, TrainError> {
        let pretrained = model_dir.map(Pretrained::open).transpose()?;
        let (lora, products) = (lora.cloned(), Products::new(precision));
        Ok(Self { trained: parameters.named().collect(), pretrained, lora, products, device })
    }

    /// Where the tensors are.
    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// How the network multiplies.
    pub(super) fn products(&self) -> Products {
        self.products
    }

    /// The tensor of this name and shape.
    pub(super) fn take(&mut self, name: &str, shape: &[u64]) -> Result<Tensor, TrainError> {
        let Some(leaf) = self.trained.get(name) else {
            return self.frozen(name, shape);
        };
        let found = leaf.size();
        if !found.iter().map(|size| *size as u64).eq(shape.iter().copied()) {
            return Err(TrainError::Failed(format!(
                "the task's parameter {name} has the shape {found:?}, and the model's config asks for {shape:?}"
            )));
        }
        Ok(leaf.shallow_clone())
    }

    /// Whether training changes the tensor of this name.
    pub(super) fn is_trained(&self, name: &str) -> bool {
        self.trained.contains_key(name)
    }

    /// The values of some tensors in the pretrained model.
    pub(super) fn imported(&mut self, params: &ParamSpec) -> Result<Local, TrainError> {
        let mut found = Local::new();
        for ParamTensor { name, shape } in &params.tensors {
            found.insert(name.clone(), values(&self.frozen(name, shape)?)?);
        }
        Ok(found)
    }

    /// The factors of the adapter of this weight, and its scale, when one is trained.
    pub(super) fn adapter(
        &mut self,
        weight: &str,
        inputs: u64,
        outputs: u64,
    ) -> Result<Option<(Tensor, Tensor, f64)>, TrainError> {
        let [a, b] = factor_names(weight);
        let Some(lora) = self.lora.clone().filter(|_| self.trained.contains_key(a.as_str())) else {
            return Ok(None);
        };
        let rank = u64::from(lora.rank);
        Ok(Some((self.take(&a, &[rank, inputs])?, self.take(&b, &[outputs, rank])?, lora.scale())))
    }

    fn frozen(&mut self, name: &str, shape: &[u64]) -> Result<Tensor, TrainError> {
        match &mut self.pretrained {
            Some(pretrained) => Ok(pretrained.read(name, shape)?.f_to(self.device)?),
            None => Err(TrainError::Failed(format!(
                "{name} is not trained, and there is no pretrained model to take it from: set model.trainable to \"all\""
            ))),
        }
    }
}

/// The weights of a pretrained model.
struct Pretrained {
    file: File,
    weights: Weights,
}

impl Pretrained {
    fn open(model_dir: &Path) -> Result<Self, TrainError> {
        let mut file = File::open(model_dir.join(WEIGHTS_FILE)).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let first = read(&mut file, 0, bytes.min(8)).map_err(unreadable)?;
        let header =
            Weights::header_bytes(&first).map_err(|reason| TrainError::Failed(reason.to_string()))?;
        let start = read(&mut file, 0, bytes.min(header)).map_err(unreadable)?;
        let weights =
            Weights::parse(&start, bytes).map_err(|reason| TrainError::Failed(reason.to_string()))?;
        Ok(Self { file, weights })
    }

    fn read(&mut self, name: &str, shape: &[u64]) -> Result<Tensor, TrainError> {
        let stored =
            self.weights.require(name, shape).map_err(|reason| TrainError::Failed(reason.to_string()))?;
        let values = read(&mut self.file, stored.offset, stored.bytes).map_err(unreadable)?;
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        Ok(Tensor::f_from_data_size(&values, &shape, Kind::Float)?)
    }
}

fn read(file: &mut File, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes as usize];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut buffer)?;
    Ok(buffer)
}

fn unreadable(reason: io::Error) -> TrainError {
    TrainError::Failed(format!("the model's {WEIGHTS_FILE} cannot be read: {reason}"))
}
