//! The networks, as short functions that build a [`Graph`].
//!
//! Layers bear PyTorch's parameter names, so that files of weights go both ways.

mod airbench;
mod bag_of_tricks;
mod cifar;
mod mxresnet;
mod options;
mod parts;
mod torchvision;
mod xresnet;

use crate::graph::Graph;
use crate::{Error, ErrorKind, Result};

pub use options::{BlockPool, ModelOptions, Swap, TwistVersion};

type Builder = fn(&ModelOptions) -> Result<Graph>;

/// Every model outside of the XResNet family: its name, what it is, the options that it has, its builder.
const MODELS: &[(&str, &str, &[&str], Builder)] = &[
    ("linear", "one linear layer on the pixels", &[], cifar::linear),
    ("simplenet", "two linear layers, 40 hidden units", &[], cifar::simplenet),
    ("convnet", "three 3×3 convolutions, stride 2, no padding", &[], cifar::convnet),
    ("convnet2", "the same, padded", &[], cifar::convnet2),
    ("convbnnet", "a 5×5 convolution and four normalised stages", &["norm_eps"], cifar::convbnnet),
    ("convbnnet2", "two normalised layers per stage", &["norm_eps"], cifar::convbnnet2),
    ("resnet", "three layers per stage, two of them residual", &["norm_eps"], cifar::resnet),
    ("resnet2", "a wider residual net with dropout", &["norm_eps", "dropout"], cifar::resnet2),
    ("quickstart", "the small net that the built-in dataset is for", &[], cifar::quickstart),
    ("airbench94", "the net of the speed run to 94 % on CIFAR-10", &["widths"], airbench::airbench94),
    ("bag-of-tricks", "seven convolutions, each with ReLU, then batch-norm", &[], bag_of_tricks::bag_of_tricks),
    (
        "mxresnet",
        "an XResNet-50 whose blocks reduce first, for ConvTwist and permuted groups",
        MXRESNET,
        mxresnet::mxresnet,
    ),
    ("mxresnet-depthwise", "the same with depthwise convolutions, holder of a record", DEPTHWISE, mxresnet::depthwise),
    ("resnet18", "torchvision's", &[], torchvision::resnet18),
    ("resnet34", "torchvision's", &[], torchvision::resnet34),
    ("resnet50", "torchvision's", &[], torchvision::resnet50),
];

/// The options of the mxresnets.
const MXRESNET: &[&str] = &[
    "dropout",
    "act",
    "sa",
    "sym",
    "pool",
    "stem",
    "stem_stride",
    "layers",
    "widen",
    "twist",
    "twist_gradient",
    "group_channels",
    "group_order",
    "iters",
];
const DEPTHWISE: &[&str] =
    &["dropout", "act", "sa", "sym", "pool", "stem", "stem_stride", "layers", "widen", "multiplier"];

/// The options of the XResNet family.
const XRESNET: &[&str] =
    &["dropout", "act", "sa", "sym", "pool", "stem", "layers", "widen", "swap", "twist_gradient", "twist_coordinates"];

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
/// Kind [`ErrorKind::Usage`] for an unknown name and for an option that the model lacks, [`ErrorKind::Shape`] where the options do not fit.
pub fn build(name: &str, options: &ModelOptions) -> Result<Graph> {
    if !(1..=65_536).contains(&options.classes) || !(1..=65_536).contains(&options.size) {
        let found = format!("{} classes, size {}", options.classes, options.size);
        return Err(Error::new(ErrorKind::Usage, format!("model {name}"), found).expected("1 to 65,536 of each"));
    }
    options.check(name)?;
    let family = xresnet::parse(name);
    let known = MODELS.iter().find(|(known, ..)| *known == name);
    let has = match (known, family) {
        (Some((_, _, has, _)), _) => *has,
        (None, Some(_)) => XRESNET,
        (None, None) => return Err(unknown(name)),
    };
    let mut foreign = options.chosen();
    foreign.retain(|option| !has.contains(option));
    if let Some(option) = foreign.first() {
        let e = Error::new(ErrorKind::Usage, format!("model {name}"), format!("the option `{option}`"));
        let e =
            e.expected(if has.is_empty() { "no option".into() } else { format!("options among {}", has.join(", ")) });
        return Err(e.hint("leave it out, or take a model that has it"));
    }
    match (known, family) {
        (Some((.., builder)), _) => builder(options),
        (None, Some(arch)) => xresnet::build(arch, options),
        (None, None) => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    let known: Vec<String> = MODELS.iter().map(|(name, ..)| (*name).to_owned()).chain(xresnet::names()).collect();
    Error::new(ErrorKind::Usage, "model", format!("unknown name {name:?}")).expected(known.join(", "))
}

/// The names of all models, each with a line about it.
pub fn names() -> impl Iterator<Item = (String, &'static str)> {
    let single = MODELS.iter().map(|(name, about, ..)| ((*name).to_owned(), *about));
    single.chain(xresnet::names().map(|name| (name, "fastai's XResNet: bag-of-tricks stem, blocks, first weights")))
}
