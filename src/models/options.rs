//! What a model's builder takes besides its name.

use serde::{Deserialize, Serialize};

use crate::graph::Shape;
use crate::ops::{Activation, BatchNorm};

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
    /// How an XResNet's blocks of stride 2 pool the identity path.
    pub pool: BlockPool,
    /// Channels of an XResNet's three first convolutions.
    pub stem: [usize; 3],
    /// Blocks of each stage of an XResNet, instead of what its name says.
    pub layers: Option<Vec<usize>>,
    /// A factor on the channels of an XResNet's stages.
    pub widen: f64,
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
            pool: BlockPool::Avg,
            stem: [32, 32, 64],
            layers: None,
            widen: 1.0,
        }
    }
}

impl ModelOptions {
    /// The options that differ from their defaults, by name, those aside that every model has.
    pub(super) fn chosen(&self) -> Vec<&'static str> {
        let default = ModelOptions::default();
        let chosen = [
            ("dropout", self.dropout != default.dropout),
            ("norm_eps", self.norm_eps != default.norm_eps),
            ("act", self.act != default.act),
            ("pool", self.pool != default.pool),
            ("stem", self.stem != default.stem),
            ("layers", self.layers != default.layers),
            ("widen", self.widen != default.widen),
        ];
        chosen.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
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
