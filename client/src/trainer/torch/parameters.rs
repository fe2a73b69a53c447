//! The trained parameters: one flat tensor in the order of the `ParamSpec`, of which every trained tensor of the
//! network is a leaf that shares its memory. So parameters come and go in one copy, and a step changes them in place.

use sheaf_common::params::ParamSpec;
use tch::{Device, Kind, TchError, Tensor};

use crate::trainer::TrainError;

/// The trained parameters.
pub(super) struct Parameters {
    spec: ParamSpec,
    /// `[numel]`.
    flat: Tensor,
    /// In the order of `spec`; each shares memory with its part of `flat`.
    leaves: Vec<Tensor>,
}

impl Parameters {
    /// Room for the parameters of `spec` on `device`, all 0.
    pub(super) fn zeros(spec: ParamSpec, device: Device) -> Result<Self, TrainError> {
        let flat = Tensor::f_zeros([spec.numel() as i64], (Kind::Float, device))?;
        let mut leaves = Vec::with_capacity(spec.tensors.len());
        let mut start = 0;
        for tensor in &spec.tensors {
            let shape: Vec<i64> = tensor.shape.iter().map(|size| *size as i64).collect();
            let part = flat.f_narrow(0, start, tensor.numel() as i64)?.f_view(shape.as_slice())?;
            leaves.push(part.f_detach()?.f_set_requires_grad(true)?);
            start += tensor.numel() as i64;
        }
        Ok(Self { spec, flat, leaves })
    }

    /// The names, shapes and order.
    pub(super) fn spec(&self) -> &ParamSpec {
        &self.spec
    }

    /// The trained tensors by name.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.spec.tensors.iter().map(|tensor| tensor.name.as_str()).zip(&self.leaves)
    }

    /// All values, `[numel]`, to be changed in place.
    pub(super) fn flat(&mut self) -> &mut Tensor {
        &mut self.flat
    }

    /// All values as they are now, `[numel]`.
    pub(super) fn copy(&self) -> Result<Tensor, TchError> {
        let mut copy = self.flat.f_zeros_like()?;
        copy.f_copy_(&self.flat)?;
        Ok(copy)
    }

    /// Takes on these values.
    ///
    /// # Errors
    /// When there are too many or too few.
    pub(super) fn set(&mut self, values: &[f32]) -> Result<(), TrainError> {
        if values.len() as u64 != self.spec.numel() {
            return Err(TrainError::Failed(format!(
                "the global model has {} values, and the task's parameters are {}",
                values.len(),
                self.spec.numel()
            )));
        }
        Ok(self.flat.f_copy_(&Tensor::f_from_slice(values)?)?)
    }

    /// The values, in the order of the spec.
    pub(super) fn values(&self) -> Result<Vec<f32>, TchError> {
        let mut values = vec![0.0; self.flat.numel()];
        self.flat.f_copy_data(&mut values, self.flat.numel())?;
        Ok(values)
    }

    /// The gradient of `loss`, a scalar, in the layout of [`Parameters::flat`].
    pub(super) fn gradient(&self, loss: &Tensor) -> Result<Tensor, TchError> {
        let gradients = Tensor::f_run_backward(&[loss], &self.leaves, false, false)?;
        let flattened = gradients.iter().map(|part| part.f_flatten(0, -1)).collect::<Result<Vec<_>, _>>()?;
        Tensor::f_cat(&flattened, 0)
    }
}
