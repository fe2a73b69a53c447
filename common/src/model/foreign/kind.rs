//! State dicts of known models: which they are, and which of their tensors become which of Sheaf's.

use std::str::FromStr;

use super::convert::{Conversion, Converted};
use super::{ForeignTensor, Index};
use crate::model::vision::{Architecture, EfficientNetLite, Image, ResNet, Residual, Stage, Vit, VitNames};
use crate::params::ParamTensor;

/// Mean and standard deviation of ImageNet's pixels, which torchvision's models were trained with.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// A model whose description Sheaf knows, for files that hold nothing but weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// torchvision's `resnet18`.
    ResNet18,
    /// torchvision's `resnet34`.
    ResNet34,
    /// torchvision's `resnet50`.
    ResNet50,
    /// timm's `tf_efficientnet_lite0`, or the same model of `efficientnet_lite_pytorch`.
    EfficientNetLite0,
    /// timm's `vit_*_patch*`, of any size.
    Vit,
}

/// A name of no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of model that Sheaf knows: use {kinds} or torchscript", kinds = Kind::names())]
pub struct UnknownKind(String);

/// Weights that are not those of the kind of model that they are said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOfKind {
    /// A tensor is not there.
    #[error("it has no tensor `{0}`, which a model of this kind has: is it another kind?")]
    Missing(String),
    /// A tensor has another shape.
    #[error(
        "`{name}` in it has the shape {found:?}, and in a model of this kind {expected:?}: is it another kind?"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<u64>,
        /// The shape that it should have.
        expected: Vec<u64>,
    },
    /// The shapes are those of no model of this kind.
    #[error("its shapes are not those of a vision transformer of square images with a class token")]
    Vit,
}

impl Kind {
    /// All kinds, by the names that people give.
    pub const ALL: [(&'static str, Self); 5] = [
        ("resnet18", Self::ResNet18),
        ("resnet34", Self::ResNet34),
        ("resnet50", Self::ResNet50),
        ("efficientnet-lite0", Self::EfficientNetLite0),
        ("vit", Self::Vit),
    ];

    /// The names of all kinds, as a sentence lists them.
    pub fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }

    /// The model's description, and how its weights come out of the file with this `index`.
    ///
    /// # Errors
    /// When they are weights of something else.
    pub fn convert(self, index: &Index) -> Result<(Image, Conversion), NotOfKind> {
        // What `DataParallel` puts before every name.
        let found = |name: &str| index.tensor(name).or_else(|| index.tensor(&format!("module.{name}")));
        let image = self.description(&found)?;
        let names = Names::of(&image.architecture);
        let take = |tensor: &ParamTensor| converted(tensor, &names, &found);
        let tensors = image.architecture.tensors(None).all().map(take).collect::<Result<Vec<_>, _>>()?;
        Ok((image, Conversion::new(tensors)))
    }

    fn description<'a>(self, found: &impl Fn(&str) -> Option<&'a ForeignTensor>) -> Result<Image, NotOfKind> {
        let resnet = |block, depths: [u64; 4]| {
            let (depths, widths) = (depths.into(), vec![64, 128, 256, 512]);
            let net = ResNet { block, depths, widths, batch_norm_eps: 1e-5 };
            image(Architecture::ResNet(net), 224, IMAGENET)
        };
        Ok(match self {
            Self::ResNet18 => resnet(Residual::Basic, [2, 2, 2, 2]),
            Self::ResNet34 => resnet(Residual::Basic, [3, 4, 6, 3]),
            Self::ResNet50 => resnet(Residual::Bottleneck, [3, 4, 6, 3]),
            // Trained on (x - 127) / 128, where white is 255.
            Self::EfficientNetLite0 => {
                let pixels = ([127.0 / 255.0; 3], [128.0 / 255.0; 3]);
                image(Architecture::EfficientNetLite(lite0()), 224, pixels)
            }
            Self::Vit => vit(found).ok_or(NotOfKind::Vit)?,
        })
    }
}

fn image(architecture: Architecture, image_size: u64, (mean, std): ([f64; 3], [f64; 3])) -> Image {
    Image { architecture, image_size, mean, std, labels: Vec::new() }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(written: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == written);
        found.map(|(_, kind)| kind).ok_or_else(|| UnknownKind(written.to_owned()))
    }
}

fn lite0() -> EfficientNetLite {
    let stage = |depth, kernel, stride, expansion, width| Stage { depth, kernel, stride, expansion, width };
    EfficientNetLite {
        stem_width: 32,
        stages: vec![
            stage(1, 3, 1, 1, 16),
            stage(2, 3, 2, 6, 24),
            stage(2, 5, 2, 6, 40),
            stage(3, 3, 2, 6, 80),
            stage(3, 5, 1, 6, 112),
            stage(4, 5, 2, 6, 192),
            stage(1, 3, 1, 6, 320),
        ],
        features: 1280,
        batch_norm_eps: 1e-3,
    }
}

/// A vision transformer, by the shapes of its tensors. Heads are 64 wide in all of timm's
/// `vit_*_patch*`.
fn vit<'a>(found: &impl Fn(&str) -> Option<&'a ForeignTensor>) -> Option<Image> {
    let shape = |name: &str| found(name).map(|tensor| tensor.shape.as_slice());
    let [hidden_size, _, patch_size, _] = *shape("patch_embed.proj.weight")? else { return None };
    let [_, num_tokens, _] = *shape("pos_embed")? else { return None };
    let [intermediate_size, _] = *shape("blocks.0.mlp.fc1.weight")? else { return None };
    let num_hidden_layers =
        (0..).take_while(|layer| found(&format!("blocks.{layer}.norm1.weight")).is_some());
    let side = num_tokens.checked_sub(1)?.isqrt();
    let vit = Vit {
        patch_size,
        hidden_size,
        num_hidden_layers: num_hidden_layers.count() as u64,
        num_attention_heads: (hidden_size / 64).max(1),
        intermediate_size,
        num_tokens,
        layer_norm_eps: 1e-6,
        names: VitNames::Timm,
    };
    let image_size = side.checked_mul(patch_size)?;
    // So a config.json that would be refused is not written.
    image(Architecture::Vit(vit), image_size, ([0.5; 3], [0.5; 3])).checked().ok()
}

/// Sheaf's tensor from the foreign one of its name, or of an older name.
fn converted<'a>(
    tensor: &ParamTensor,
    names: &Names,
    found: &impl Fn(&str) -> Option<&'a ForeignTensor>,
) -> Result<Converted, NotOfKind> {
    let older = || names.older(&tensor.name).and_then(|name| found(&name));
    let part = found(&tensor.name).or_else(older);
    let part = part.ok_or_else(|| NotOfKind::Missing(tensor.name.clone()))?;
    if part.shape != tensor.shape {
        let (name, found) = (part.name.clone(), part.shape.clone());
        return Err(NotOfKind::Shape { name, found, expected: tensor.shape.clone() });
    }
    Ok(Converted { name: tensor.name.clone(), shape: tensor.shape.clone(), parts: vec![part.clone()] })
}

/// Names of modules in other repositories, by Sheaf's.
struct Names(Vec<(String, String)>);

impl Names {
    /// `efficientnet_lite_pytorch` counts all blocks in one row and names them as TensorFlow's code does.
    fn of(architecture: &Architecture) -> Self {
        let Architecture::EfficientNetLite(net) = architecture else { return Self(Vec::new()) };
        let mut names = vec![
            ("conv_stem".to_owned(), "_conv_stem".to_owned()),
            ("bn1".into(), "_bn0".into()),
            ("conv_head".into(), "_conv_head".into()),
            ("bn2".into(), "_bn1".into()),
        ];
        for (number, block) in net.blocks().iter().enumerate() {
            let older = ["_expand_conv", "_depthwise_conv", "_project_conv"];
            let skipped = usize::from(!block.expands());
            for (at, (conv, norm, ..)) in (skipped..).zip(block.convolutions()) {
                let older = [format!("_blocks.{number}.{}", older[at]), format!("_blocks.{number}._bn{at}")];
                let newer = [conv, norm].map(|part| format!("{}.{part}", block.name));
                names.extend(newer.into_iter().zip(older));
            }
        }
        Self(names)
    }

    fn older(&self, tensor: &str) -> Option<String> {
        let (module, part) = tensor.rsplit_once('.')?;
        let (_, older) = self.0.iter().find(|(newer, _)| newer == module)?;
        Some(format!("{older}.{part}"))
    }
}
