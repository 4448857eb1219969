//! What a model's builder takes besides its name.

use serde::{Deserialize, Serialize};

use crate::graph::Shape;
use crate::ops::{Activation, BatchNorm, Conv2d, Coordinates, GroupOrder, Twist, TwistGradient};
use crate::{Error, ErrorKind, Result};

/// What a model's builder takes besides its name. Each model uses some; [`super::build`] refuses an option that is set
/// for a model that lacks it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelOptions {
    /// Classes, the length of the output.
    pub classes: usize,
    /// Height and width of the images, in pixels.
    pub size: usize,
    /// The probability of dropout before the last layer, where the model has one.
    pub dropout: f64,
    /// Reproduce the published code's quirks: ResNet runs its third stage layers twice and the second never.
    pub published: bool,
    /// In the progression's BnLayer, evaluate with the last batch's statistics and this ε. By default 0 where
    /// `published`; else an ordinary batch-norm with running statistics takes its place.
    pub norm_eps: Option<f64>,
    /// The activation of an XResNet.
    pub act: Activation,
    /// Self-attention in an XResNet: in the last block of stage `layers − 4`, the first of four stages.
    pub sa: bool,
    /// Make the attention's weight symmetric, which published code meant to and did not.
    pub sym: bool,
    /// How an XResNet's blocks of stride 2 pool the identity path.
    pub pool: BlockPool,
    /// Channels of an XResNet's three first convolutions, instead of 32, 32, 64 (mxresnets: 32, 64, 64).
    pub stem: Option<[usize; 3]>,
    /// Stride of an mxresnet's first convolution.
    pub stem_stride: usize,
    /// Channels of airbench94's three blocks, instead of 64, 256, 256.
    pub widths: Option<[usize; 3]>,
    /// Blocks of each stage of an XResNet, instead of what its name says.
    pub layers: Option<Vec<usize>>,
    /// A factor on the channels of an XResNet's stages.
    pub widen: f64,
    /// Which convolutions of an XResNet are twist layers.
    pub swap: Swap,
    /// The gradient of their kernels.
    pub twist_gradient: TwistGradient,
    /// Where their coordinates begin.
    pub twist_coordinates: Coordinates,
    /// The ConvTwist of an mxresnet's blocks.
    pub twist: TwistVersion,
    /// Channels per group of an mxresnet's 3×3 convolutions, instead of one group (second ConvTwist: 32 channels).
    pub group_channels: Option<usize>,
    /// Which input group each of their output groups reads.
    pub group_order: GroupOrder,
    /// How often the second ConvTwist is applied.
    pub iters: usize,
    /// Outputs per channel of the depthwise convolutions.
    pub multiplier: usize,
}

/// What halves the identity path of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockPool {
    /// The mean of 2×2, in ceil mode.
    #[default]
    Avg,
    /// The maximum of 2×2.
    Max,
    /// MaxBlurPool(3), here and in the stem (Zhang 2019).
    MaxBlur,
}

/// Which convolutions are twist layers instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// None.
    #[default]
    #[serde(rename = "none")]
    None,
    /// As published: every convolution with more than 32 outputs, 1×1 ones included, which become 3×3; groups and biases
    /// are lost.
    #[serde(rename = "published")]
    Published,
    /// Every 3×3 convolution with more than 32 outputs, ungrouped.
    #[serde(rename = "3x3")]
    Spatial,
}

/// Which [`ConvTwist`](crate::ops::ConvTwist) an mxresnet's blocks have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TwistVersion {
    /// None.
    #[default]
    Off,
    /// With antisymmetric kernels and centres.
    First,
    /// With Sobel's kernels, iterated.
    Second,
}

impl Default for ModelOptions {
    fn default() -> Self {
        ModelOptions {
            classes: 10,
            size: 32,
            dropout: 0.0,
            published: true,
            norm_eps: None,
            act: Activation::Relu,
            sa: false,
            sym: false,
            pool: BlockPool::Avg,
            stem: None,
            stem_stride: 2,
            widths: None,
            layers: None,
            widen: 1.0,
            swap: Swap::None,
            twist_gradient: TwistGradient::Published,
            twist_coordinates: Coordinates::Published,
            twist: TwistVersion::Off,
            group_channels: None,
            group_order: GroupOrder::Rotated,
            iters: 4,
            multiplier: 6,
        }
    }
}

impl ModelOptions {
    /// Refuses numbers that no network has: sizes beyond them would not fit into an integer, let alone memory.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let refuse = |found: String, expected: &str| {
            Err(Error::new(ErrorKind::Usage, format!("model {name}"), found).expected(expected.to_owned()))
        };
        if !(0.0625..=16.0).contains(&self.widen) {
            return refuse(format!("widen {}", self.widen), "0.0625 to 16");
        }
        if !(1..=64).contains(&self.multiplier) {
            return refuse(format!("multiplier {}", self.multiplier), "1 to 64");
        }
        if let Some(layers) = &self.layers
            && (!(1..=16).contains(&layers.len()) || layers.iter().any(|&blocks| !(1..=256).contains(&blocks)))
        {
            return refuse(format!("layers {layers:?}"), "1 to 16 stages, each of 1 to 256 blocks");
        }
        if let Some(stem) = &self.stem
            && stem.iter().any(|&channels| !(1..=4096).contains(&channels))
        {
            return refuse(format!("stem {stem:?}"), "1 to 4096 channels each");
        }
        if let Some(widths) = &self.widths
            && widths.iter().any(|&channels| !(1..=4096).contains(&channels))
        {
            return refuse(format!("widths {widths:?}"), "1 to 4096 channels each");
        }
        Ok(())
    }

    /// The options that differ from their defaults, by name, those aside that every model has.
    pub(super) fn chosen(&self) -> Vec<&'static str> {
        let default = ModelOptions::default();
        let chosen = [
            ("dropout", self.dropout != default.dropout),
            ("norm_eps", self.norm_eps != default.norm_eps),
            ("act", self.act != default.act),
            ("sa", self.sa != default.sa),
            ("sym", self.sym != default.sym),
            ("pool", self.pool != default.pool),
            ("stem", self.stem != default.stem),
            ("widths", self.widths != default.widths),
            ("layers", self.layers != default.layers),
            ("widen", self.widen != default.widen),
            ("swap", self.swap != default.swap),
            ("twist_gradient", self.twist_gradient != default.twist_gradient),
            ("twist_coordinates", self.twist_coordinates != default.twist_coordinates),
            ("stem_stride", self.stem_stride != default.stem_stride),
            ("twist", self.twist != default.twist),
            ("group_channels", self.group_channels != default.group_channels),
            ("group_order", self.group_order != default.group_order),
            ("iters", self.iters != default.iters),
            ("multiplier", self.multiplier != default.multiplier),
        ];
        chosen.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// The twist layer in place of a convolution, if there is to be one.
    pub(super) fn swapped(&self, conv: Conv2d) -> Option<Twist> {
        let swapped = match self.swap {
            Swap::None => false,
            Swap::Published => conv.channels > 32,
            Swap::Spatial => conv.channels > 32 && conv.window.kernel == (3, 3),
        };
        let Conv2d { channels, window, .. } = conv;
        let (gradient, coordinates) = (self.twist_gradient, self.twist_coordinates);
        swapped.then_some(Twist { channels, stride: window.stride.0, gradient, coordinates })
    }

    pub(super) fn images(&self) -> Shape {
        Shape::new(self.size, self.size, 3)
    }

    /// The normalisation of the progression's BnLayer.
    pub(super) fn bn_layer_norm(&self) -> BatchNorm {
        match self.norm_eps {
            Some(eps) => BatchNorm::last_batch(eps),
            None if self.published => BatchNorm::last_batch(0.0),
            None => BatchNorm::running(),
        }
    }
}
