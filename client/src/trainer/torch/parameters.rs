//! The trained parameters: one flat tensor in the order of the `ParamSpec`, of which every trained tensor of the
//! network is a leaf that shares its memory. So parameters come and go in one copy, and a step changes them in place.
//!
//! Running statistics of batch normalisation lie apart: a forward pass changes them, and no gradient, optimizer or decay
//! may. They travel behind the parameters, or stay here.

use sheaf_common::model::vision::{is_statistic, is_variance};
use sheaf_common::params::{ParamSpec, ParamTensor};
use tch::{Device, Kind, TchError, Tensor};

use crate::trainer::{Local, TrainError};

/// The trained parameters.
pub(super) struct Parameters {
    trained: Flat,
    statistics: Flat,
    /// Whether the statistics travel behind the parameters.
    statistics_travel: bool,
}

/// Values that are copied at a time.
const PIECE: usize = 1 << 20;

/// Tensors one after the other.
struct Flat {
    spec: ParamSpec,
    /// `[numel]`.
    values: Tensor,
    /// In the order of `spec`; each shares memory with its part of `values`.
    parts: Vec<Tensor>,
}

impl Flat {
    fn zeros(tensors: Vec<ParamTensor>, learns: bool, device: Device) -> Result<Self, TchError> {
        let spec = ParamSpec { tensors };
        let values = Tensor::f_zeros([spec.numel() as i64], (Kind::Float, device))?;
        let mut parts = Vec::with_capacity(spec.tensors.len());
        let mut start = 0;
        for tensor in &spec.tensors {
            let shape: Vec<i64> = tensor.shape.iter().map(|size| *size as i64).collect();
            let part = values.f_narrow(0, start, tensor.numel() as i64)?.f_view(shape.as_slice())?;
            parts.push(part.f_detach()?.f_set_requires_grad(learns)?);
            start += tensor.numel() as i64;
        }
        Ok(Self { spec, values, parts })
    }

    fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.spec.tensors.iter().map(|tensor| tensor.name.as_str()).zip(&self.parts)
    }

    fn numel(&self) -> usize {
        self.values.numel()
    }

    fn set(&mut self, values: &[f32]) -> Result<(), TchError> {
        // Piece by piece: there is no memory for all of them twice.
        for (number, piece) in values.chunks(PIECE).enumerate() {
            let mut target = self.values.f_narrow(0, (number * PIECE) as i64, piece.len() as i64)?;
            target.f_copy_(&Tensor::f_from_slice(piece)?)?;
        }
        Ok(())
    }
}

impl Parameters {
    /// Room for the parameters of `spec` and for the statistics that stay here, `local`, on `device`; all 0.
    pub(super) fn zeros(spec: ParamSpec, local: ParamSpec, device: Device) -> Result<Self, TrainError> {
        let (mut statistics, trained): (Vec<_>, Vec<_>) =
            spec.tensors.into_iter().partition(|tensor| is_statistic(&tensor.name));
        statistics.extend(local.tensors.iter().cloned());
        Ok(Self {
            trained: Flat::zeros(trained, true, device)?,
            statistics: Flat::zeros(statistics, false, device)?,
            statistics_travel: local.tensors.is_empty(),
        })
    }

    /// Names, shapes and order of what is trained.
    pub(super) fn spec(&self) -> &ParamSpec {
        &self.trained.spec
    }

    /// The trained tensors, and the statistics that go with them, by name.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.trained.named().chain(self.statistics.named())
    }

    /// Has `leaves` be the trained tensors from now on: as many, in the same order, which share their memory and are parts of
    /// somebody else's graph.
    pub(super) fn adopt(&mut self, leaves: Vec<Tensor>) {
        self.trained.parts = leaves;
    }

    /// All trained values, `[numel]`, to be changed in place.
    pub(super) fn flat(&mut self) -> &mut Tensor {
        &mut self.trained.values
    }

    /// All trained values as they are now, `[numel]`.
    pub(super) fn copy(&self) -> Result<Tensor, TchError> {
        copy(&self.trained.values)
    }

    /// The statistics as they are now, `[numel]`.
    pub(super) fn statistics(&self) -> Result<Tensor, TchError> {
        copy(&self.statistics.values)
    }

    /// Takes the statistics back to what they were.
    pub(super) fn set_statistics(&mut self, values: &Tensor) -> Result<(), TchError> {
        self.statistics.values.f_copy_(values)
    }

    /// Takes on these values, of all that travels.
    ///
    /// # Errors
    /// When there are too many or too few.
    pub(super) fn set(&mut self, values: &[f32]) -> Result<(), TrainError> {
        let (trained, statistics) = values.split_at(self.trained.numel().min(values.len()));
        if values.len() != self.num_travelling() {
            return Err(TrainError::Failed(format!(
                "the global model has {} values, and the task's parameters are {}",
                values.len(),
                self.num_travelling()
            )));
        }
        self.trained.set(trained)?;
        if self.statistics_travel {
            self.statistics.set(statistics)?;
            for (_, part) in self.statistics.named().filter(|(name, _)| is_variance(name)) {
                let _ = part.shallow_clone().f_clamp_min_(0.0)?;
            }
        }
        Ok(())
    }

    /// The values of all that travels.
    pub(super) fn values(&self) -> Result<Vec<f32>, TchError> {
        let mut values = to_vec(&self.trained.values)?;
        if self.statistics_travel {
            values.extend(to_vec(&self.statistics.values)?);
        }
        Ok(values)
    }

    fn num_travelling(&self) -> usize {
        self.trained.numel() + if self.statistics_travel { self.statistics.numel() } else { 0 }
    }

    /// What stays here.
    pub(super) fn local(&self) -> Result<Local, TchError> {
        let own = self.statistics.named().filter(|_| !self.statistics_travel);
        own.map(|(name, part)| Ok((name.to_owned(), to_vec(part)?))).collect()
    }

    /// Takes on what stays here: each tensor from the first of `kept` that has it.
    pub(super) fn set_local(&mut self, kept: [&Local; 2]) -> Result<(), TchError> {
        for (name, part) in self.statistics.named().filter(|_| !self.statistics_travel) {
            let mut found = kept.iter().filter_map(|kept| kept.get(name));
            if let Some(values) = found.find(|values| values.len() == part.numel()) {
                part.shallow_clone().f_copy_(&Tensor::f_from_slice(values)?)?;
            }
        }
        Ok(())
    }

    /// The gradient of `loss`, a scalar, in the layout of [`Parameters::flat`]. That of what the loss does not follow from is
    /// 0.
    pub(super) fn gradient(&self, loss: &Tensor) -> Result<Tensor, TchError> {
        let gradients = Tensor::f_run_backward(&[loss], &self.trained.parts, false, false)?;
        let flat = |(part, leaf): (&Tensor, &Tensor)| {
            if part.defined() { part.f_flatten(0, -1) } else { leaf.f_zeros_like()?.f_flatten(0, -1) }
        };
        let flattened = gradients.iter().zip(&self.trained.parts).map(flat).collect::<Result<Vec<_>, _>>()?;
        Tensor::f_cat(&flattened, 0)
    }

    /// The sum of all values, which is finite when they are.
    pub(super) fn sum(&self) -> Result<f64, TchError> {
        let sum = |flat: &Flat| flat.values.f_sum(None)?.f_double_value(&[]);
        Ok(sum(&self.trained)? + sum(&self.statistics)?)
    }
}

fn copy(values: &Tensor) -> Result<Tensor, TchError> {
    let mut copy = values.f_zeros_like()?;
    copy.f_copy_(values)?;
    Ok(copy)
}

fn to_vec(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let mut values = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}
