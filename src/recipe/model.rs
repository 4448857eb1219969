//! `[model]`: which network, and its options.

use serde::Serialize;

use super::reader::Section;
use crate::Result;
use crate::graph::Graph;
use crate::models::{self, BlockPool, ModelOptions, Swap, TwistVersion};
use crate::ops::{Activation, Coordinates, GroupOrder, TwistGradient};

/// The activations that a recipe can name.
const ACTIVATIONS: [(&str, Activation); 7] = [
    ("relu", Activation::Relu),
    ("mish", Activation::Mish),
    ("silu", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("softplus", Activation::Softplus),
];

const POOLS: [(&str, BlockPool); 3] =
    [("avg", BlockPool::Avg), ("max", BlockPool::Max), ("max_blur", BlockPool::MaxBlur)];

const SWAPS: [(&str, Swap); 3] = [("none", Swap::None), ("published", Swap::Published), ("3x3", Swap::Spatial)];

const GRADIENTS: [(&str, TwistGradient); 2] = [("published", TwistGradient::Published), ("tied", TwistGradient::Tied)];

const COORDINATES: [(&str, Coordinates); 2] =
    [("published", Coordinates::Published), ("centred", Coordinates::Centred)];

const TWISTS: [(&str, TwistVersion); 3] =
    [("off", TwistVersion::Off), ("first", TwistVersion::First), ("second", TwistVersion::Second)];

const ORDERS: [(&str, GroupOrder); 3] = [
    ("straight", GroupOrder::Straight),
    ("rotated", GroupOrder::Rotated),
    ("cycles_of_four", GroupOrder::CyclesOfFour),
];

/// `[model]`: which network, and its options. `model = "name"` is short for a section with the name alone.
///
/// An option that is not set has the network's default; one that the network lacks is an error of [`ModelRecipe::build`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(default)]
pub struct ModelRecipe {
    /// Its name among the built-in models.
    pub name: String,
    /// Compute what the published code did, quirks included.
    pub published: bool,
    /// Outputs of the network, where they are to be more than the dataset's classes: the others have no name, and no
    /// target names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<u32>,
    /// Probability of dropping a feature before the last linear layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// The activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Activation>,
    /// Self-attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa: Option<bool>,
    /// A symmetric weight of the attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sym: Option<bool>,
    /// What halves the identity path of a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<BlockPool>,
    /// Channels of the three first convolutions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem: Option<[usize; 3]>,
    /// Channels of the three blocks of airbench94.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub widths: Option<[usize; 3]>,
    /// Blocks of each stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// A factor on the channels of the stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub widen: Option<f64>,
    /// Which convolutions are twist layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// The gradient of their kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twist_gradient: Option<TwistGradient>,
    /// Where their coordinates begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twist_coordinates: Option<Coordinates>,
    /// Stride of the first convolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem_stride: Option<usize>,
    /// The ConvTwist of the blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twist: Option<TwistVersion>,
    /// Channels per group of the 3×3 convolutions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_channels: Option<usize>,
    /// Which input group each output group reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_order: Option<GroupOrder>,
    /// How often the second ConvTwist is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iters: Option<usize>,
    /// Outputs per channel of the depthwise convolutions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<usize>,
}

impl ModelRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        if root.has("model") && !root.is_table("model") {
            return Ok(ModelRecipe { name: root.required_text("model")?, ..Default::default() });
        }
        let mut s = root.section("model")?;
        let triple = |counts: Option<Vec<usize>>| counts.map(|of| [of[0], of[1], of[2]]);
        let stem = triple(s.counts("stem", 3..=3, 1..=4096)?);
        let widths = triple(s.counts("widths", 3..=3, 1..=4096)?);
        let model = ModelRecipe {
            name: s.required_text("name")?,
            published: s.flag("published", false)?,
            classes: s.optional_count("classes", 1..=65_536)?.map(|n| n as u32),
            dropout: s.optional_number("dropout", 0.0..1.0)?,
            act: s.optional_choice("act", &ACTIVATIONS)?,
            sa: s.optional_flag("sa")?,
            sym: s.optional_flag("sym")?,
            pool: s.optional_choice("pool", &POOLS)?,
            stem,
            widths,
            layers: s.counts("layers", 1..=16, 1..=256)?,
            widen: s.optional_number("widen", 0.0625..=16.0)?,
            swap: s.optional_choice("swap", &SWAPS)?,
            twist_gradient: s.optional_choice("twist_gradient", &GRADIENTS)?,
            twist_coordinates: s.optional_choice("twist_coordinates", &COORDINATES)?,
            stem_stride: s.optional_size("stem_stride", 1..=2)?,
            twist: s.optional_choice("twist", &TWISTS)?,
            group_channels: s.optional_size("group_channels", 1..=4096)?,
            group_order: s.optional_choice("group_order", &ORDERS)?,
            iters: s.optional_size("iters", 1..=64)?,
            multiplier: s.optional_size("multiplier", 1..=64)?,
        };
        s.finish()?;
        Ok(model)
    }

    /// The outputs of the network for a dataset of `classes` classes.
    pub fn outputs(&self, classes: usize) -> usize {
        self.classes.map_or(classes, |outputs| outputs as usize)
    }

    /// The network for a dataset of `classes` classes and images of `size` × `size` pixels.
    ///
    /// # Errors
    /// `Usage` for an unknown name or an option that the network lacks, `Shape` where images are too small for it.
    pub fn build(&self, classes: usize, size: usize) -> Result<Graph> {
        let default = ModelOptions::default();
        let options = ModelOptions {
            classes: self.outputs(classes),
            size,
            published: self.published,
            norm_eps: None,
            dropout: self.dropout.unwrap_or(default.dropout),
            act: self.act.unwrap_or(default.act),
            sa: self.sa.unwrap_or(default.sa),
            sym: self.sym.unwrap_or(default.sym),
            pool: self.pool.unwrap_or(default.pool),
            stem: self.stem.or(default.stem),
            widths: self.widths.or(default.widths),
            layers: self.layers.clone().or(default.layers),
            widen: self.widen.unwrap_or(default.widen),
            swap: self.swap.unwrap_or(default.swap),
            twist_gradient: self.twist_gradient.unwrap_or(default.twist_gradient),
            twist_coordinates: self.twist_coordinates.unwrap_or(default.twist_coordinates),
            stem_stride: self.stem_stride.unwrap_or(default.stem_stride),
            twist: self.twist.unwrap_or(default.twist),
            group_channels: self.group_channels.or(default.group_channels),
            group_order: self.group_order.unwrap_or(default.group_order),
            iters: self.iters.unwrap_or(default.iters),
            multiplier: self.multiplier.unwrap_or(default.multiplier),
        };
        models::build(&self.name, &options)
    }
}
