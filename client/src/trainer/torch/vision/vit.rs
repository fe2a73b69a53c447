//! Vision transformers (Dosovitskiy et al. 2021), as timm's and Hugging Face's: pre-norm layers, of which the class token
//! goes on.
//!
//! Dropout has one probability, the run's, in all the places where the paper drops: after the positions, after the
//! attention, within the feed-forward layer, and before the head.

use sheaf_common::model::vision::{CHANNELS, Vit};
use tch::{TchError, Tensor};

use super::{Head, Pixels, batch_of, rows_of};
use crate::trainer::TrainError;
use crate::trainer::torch::network::{Linear, Mode, Stage, drop_some};
use crate::trainer::torch::norm::LayerNorm;
use crate::trainer::torch::precision::Products;
use crate::trainer::torch::source::Source;

pub(super) fn stages(
    source: &mut Source<'_>,
    net: &Vit,
    pixels: Pixels,
    num_labels: u64,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let layout = net.names.layout();
    let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(Patches::open(source, net, pixels)?)];
    for layer in 0..net.num_hidden_layers {
        stages.push(Box::new(Layer::open(source, net, layer)?));
    }
    let norm = LayerNorm::open(source, layout.last_norm, net.hidden_size, net.layer_norm_eps)?;
    stages.push(Box::new(ClassToken(norm)));
    stages.push(Box::new(Head(Linear::open(source, layout.head, net.hidden_size, num_labels)?)));
    Ok(stages)
}

/// Images to tokens, `[batch, 1, tokens, hidden]`: the class token, and a vector for each patch.
struct Patches {
    pixels: Pixels,
    /// `[hidden, 3, patch, patch]`.
    weight: Tensor,
    /// `[hidden]`.
    bias: Tensor,
    /// `[1, 1, hidden]`.
    class: Tensor,
    /// `[1, tokens, hidden]`.
    positions: Tensor,
    products: Products,
}

impl Patches {
    fn open(source: &mut Source<'_>, net: &Vit, pixels: Pixels) -> Result<Self, TrainError> {
        let (hidden, side, layout) = (net.hidden_size, net.patch_size, net.names.layout());
        Ok(Self {
            pixels,
            weight: source.take(&format!("{}.weight", layout.patches), &[hidden, CHANNELS, side, side])?,
            bias: source.take(&format!("{}.bias", layout.patches), &[hidden])?,
            class: source.take(layout.class, &[1, 1, hidden])?,
            positions: source.take(layout.positions, &[1, net.num_tokens, hidden])?,
            products: source.products(),
        })
    }
}

impl Stage for Patches {
    fn parameters(&self) -> Vec<&Tensor> {
        vec![&self.weight, &self.bias, &self.class, &self.positions]
    }

    fn apply(&self, images: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let images = self.pixels.apply(images)?;
        let (_, _, side, _) = self.weight.size4()?;
        let patches = self.products.convolve(&images, &self.weight, Some(&self.bias), side, [0, 0], 1)?;
        let patches = patches.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let (batch, _, hidden) = patches.size3()?;
        let class = self.class.f_expand([batch, 1, hidden], false)?;
        let tokens = Tensor::f_cat(&[class, patches], 1)?.f_add(&self.positions)?;
        rows_of(&drop_some(tokens, mode)?)
    }
}

/// One layer, `[batch, 1, tokens, hidden]` to the same.
struct Layer {
    attention_norm: LayerNorm,
    /// One for queries, keys and values together, or one for each.
    qkv: Vec<Linear>,
    output: Linear,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
    heads: i64,
}

impl Layer {
    fn open(source: &mut Source<'_>, net: &Vit, layer: u64) -> Result<Self, TrainError> {
        let (hidden, inner, epsilon) = (net.hidden_size, net.intermediate_size, net.layer_norm_eps);
        let layout = net.names.layout();
        let name = |part: &str| format!("{}.{layer}.{part}", layout.layers);
        let qkv = layout.qkv.iter().map(|part| Linear::open(source, &name(part), hidden, net.qkv_width()));
        Ok(Self {
            qkv: qkv.collect::<Result<_, _>>()?,
            attention_norm: LayerNorm::open(source, &name(layout.attention_norm), hidden, epsilon)?,
            output: Linear::open(source, &name(layout.attended), hidden, hidden)?,
            norm: LayerNorm::open(source, &name(layout.norm), hidden, epsilon)?,
            up: Linear::open(source, &name(layout.up), hidden, inner)?,
            down: Linear::open(source, &name(layout.down), inner, hidden)?,
            heads: net.num_attention_heads as i64,
        })
    }

    /// Multi-head attention of every token to all tokens.
    fn attend(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let (batch, length, hidden) = tokens.size3()?;
        let split = [batch, length, 3, self.heads, hidden / self.heads];
        let parts = self.qkv.iter().map(|part| part.apply(tokens, mode)).collect::<Result<Vec<_>, _>>()?;
        // `[3, batch, heads, length, hidden / heads]`
        let parts = Tensor::f_cat(&parts, -1)?.f_view(split)?.f_permute([2, 0, 3, 1, 4])?;
        let [query, key, value] = [0, 1, 2].map(|part| parts.f_select(0, part));
        let (query, key, value) = (query?, key?, value?);
        let context = Tensor::f_scaled_dot_product_attention(
            &query,
            &key,
            &value,
            None::<Tensor>,
            0.0,
            false,
            None,
            false,
        )?;
        self.output.apply(&context.f_transpose(1, 2)?.f_reshape([batch, length, hidden])?, mode)
    }
}

impl Stage for Layer {
    fn parameters(&self) -> Vec<&Tensor> {
        let dense = self.qkv.iter().chain([&self.output, &self.up, &self.down]);
        let linears = dense.flat_map(Linear::parameters);
        let norms = [&self.attention_norm, &self.norm].into_iter().flat_map(LayerNorm::parameters);
        linears.chain(norms).collect()
    }

    fn apply(&self, tokens: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let tokens = batch_of(tokens)?;
        let attended = self.attend(&self.attention_norm.apply(&tokens)?, mode)?;
        let tokens = tokens.f_add(&drop_some(attended, mode)?)?;
        let inner = drop_some(self.up.apply(&self.norm.apply(&tokens)?, mode)?.f_gelu("none")?, mode)?;
        rows_of(&tokens.f_add(&drop_some(self.down.apply(&inner, mode)?, mode)?)?)
    }
}

/// The class token, normalised: `[batch, 1, tokens, hidden]` to `[batch, 1, hidden]`.
struct ClassToken(LayerNorm);

impl Stage for ClassToken {
    fn parameters(&self) -> Vec<&Tensor> {
        self.0.parameters().into()
    }

    fn apply(&self, tokens: &Tensor, _real: Option<&Tensor>, _mode: Mode) -> Result<Tensor, TchError> {
        self.0.apply(&tokens.f_select(2, 0)?)
    }
}
