//! The networks, as short functions that build a [`Graph`].
//!
//! Layers bear PyTorch's parameter names, so that files of weights go both ways.

mod cifar;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Shape};
use crate::ops::BatchNorm;
use crate::{Error, ErrorKind, Result};

/// What a model's builder takes besides its name.
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
}

impl Default for ModelOptions {
    fn default() -> Self {
        ModelOptions { classes: 10, size: 32, dropout: 0.0, published: true, norm_eps: None }
    }
}

impl ModelOptions {
    fn images(&self) -> Shape {
        Shape::new(self.size, self.size, 3)
    }

    /// The normalisation of the progression's BnLayer.
    fn bn_layer_norm(&self) -> BatchNorm {
        match self.norm_eps {
            Some(eps) => BatchNorm::last_batch(eps),
            None if self.published => BatchNorm::last_batch(0.0),
            None => BatchNorm::running(),
        }
    }
}

type Builder = fn(&ModelOptions) -> Result<Graph>;

/// Every model: its name, what it is, its builder.
const MODELS: &[(&str, &str, Builder)] = &[
    ("linear", "one linear layer on the pixels", cifar::linear),
    ("simplenet", "two linear layers, 40 hidden units", cifar::simplenet),
    ("convnet", "three 3×3 convolutions, stride 2, no padding", cifar::convnet),
    ("convnet2", "the same, padded", cifar::convnet2),
    ("convbnnet", "a 5×5 convolution and four normalised stages", cifar::convbnnet),
    ("convbnnet2", "two normalised layers per stage", cifar::convbnnet2),
    ("resnet", "three layers per stage, two of them residual", cifar::resnet),
    ("resnet2", "a wider residual net with dropout", cifar::resnet2),
    ("quickstart", "the small net that the built-in dataset is for", cifar::quickstart),
];

/// Builds a model by name.
///
/// ```
/// use handgrad::models;
/// let graph = models::build("resnet2", &models::ModelOptions { dropout: 0.2, ..Default::default() })?;
/// assert_eq!(graph.summary().total_params, 1_836_826);
/// # Ok::<(), handgrad::Error>(())
/// ```
///
/// # Errors
/// Kind [`ErrorKind::Usage`] for an unknown name, [`ErrorKind::Shape`] where the options do not fit.
pub fn build(name: &str, options: &ModelOptions) -> Result<Graph> {
    if !(1..=65_536).contains(&options.classes) || !(1..=65_536).contains(&options.size) {
        let found = format!("{} classes, size {}", options.classes, options.size);
        return Err(Error::new(ErrorKind::Usage, format!("model {name}"), found).expected("1 to 65,536 of each"));
    }
    match MODELS.iter().find(|(known, ..)| *known == name) {
        Some((_, _, builder)) => builder(options),
        None => {
            let known: Vec<&str> = names().map(|(name, _)| name).collect();
            Err(Error::new(ErrorKind::Usage, "model", format!("unknown name {name:?}")).expected(known.join(", ")))
        }
    }
}

/// The names of all models, each with a line about it.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    MODELS.iter().map(|(name, about, _)| (*name, *about))
}
