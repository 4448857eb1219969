//! XResNet (He et al. 2018, "Bag of tricks", as fastai builds it) with squeeze-excitation, groups and self-attention.
//!
//! A name says which net: `x[se_]resn[e]xt DEPTH [_deep | _deeper]`. Layers bear the names of fastai's state dicts.

use super::options::ModelOptions;
use super::parts;
use crate::Result;
use crate::graph::{Graph, NodeId, Source};
use crate::ops::{
    Activation, AdaptivePool, Add, BatchNorm, ChannelScale, Conv2d, Dropout, Flatten, Linear, OpSpec, Reduce,
    SelfAttention,
};

/// What a name of the family stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arch {
    /// Squeeze-excitation at the end of each block's path.
    squeeze: bool,
    /// ResNeXt: the 3×3 convolutions have 32 groups, and the block's width follows from that.
    next: bool,
    /// A block's output has this many times the channels of its stage.
    expansion: usize,
    /// Blocks of each stage.
    layers: &'static [usize],
}

/// Groups of a ResNeXt's 3×3 convolutions.
const GROUPS: usize = 32;
/// Squeeze-excitation's hidden layer is this many times narrower.
const REDUCTION: usize = 16;

/// The net that `name` stands for, if it is one of the family.
pub(super) fn parse(name: &str) -> Option<Arch> {
    let kinds = [("xse_resnext", true, true), ("xse_resnet", true, false), ("xresnext", false, true)];
    let kinds = kinds.into_iter().chain([("xresnet", false, false)]);
    let (rest, squeeze, next) =
        kinds.filter_map(|(prefix, squeeze, next)| Some((name.strip_prefix(prefix)?, squeeze, next))).next()?;
    let (expansion, layers): (usize, &[usize]) = match rest {
        "18" => (1, &[2, 2, 2, 2]),
        "34" => (1, &[3, 4, 6, 3]),
        "50" => (4, &[3, 4, 6, 3]),
        "101" => (4, &[3, 4, 23, 3]),
        "18_deep" => (1, &[2, 2, 2, 2, 1, 1]),
        "34_deep" => (1, &[3, 4, 6, 3, 1, 1]),
        "50_deep" => (4, &[3, 4, 6, 3, 1, 1]),
        "18_deeper" => (1, &[2, 2, 1, 1, 1, 1, 1, 1]),
        "34_deeper" => (1, &[3, 4, 6, 3, 1, 1, 1, 1]),
        "50_deeper" => (4, &[3, 4, 6, 3, 1, 1, 1, 1]),
        _ => return None,
    };
    Some(Arch { squeeze, next, expansion, layers })
}

/// All names of the family.
pub(super) fn names() -> impl Iterator<Item = String> {
    let depths = ["18", "34", "50", "101", "18_deep", "34_deep", "50_deep", "18_deeper", "34_deeper", "50_deeper"];
    let kinds = ["xresnet", "xse_resnet", "xresnext", "xse_resnext"];
    kinds.into_iter().flat_map(move |kind| depths.into_iter().map(move |depth| format!("{kind}{depth}")))
}

/// Builds the net.
pub(super) fn build(arch: Arch, options: &ModelOptions) -> Result<Graph> {
    let layers: &[usize] = options.layers.as_deref().unwrap_or(arch.layers);
    let mut net = Net { g: Graph::new(options.images()), arch, options };
    let mut x = net.g.images();
    for (i, channels) in options.stem.unwrap_or([32, 32, 64]).into_iter().enumerate() {
        let conv = Conv2d::square(channels, 3, if i == 0 { 2 } else { 1 }, 1);
        x = net.conv_layer(&i.to_string(), conv, Some(options.act), x)?;
    }
    x = parts::stem_pool(&mut net.g, options.pool, "3", x)?;
    let mut channels_in = 64 / arch.expansion;
    for (stage, &blocks) in layers.iter().enumerate() {
        let width = [64, 128, 256, 512].get(stage).copied().unwrap_or(256);
        let channels = (width as f64 * options.widen) as usize;
        for block in 0..blocks {
            let name = format!("{}.{block}", 4 + stage);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let attention = options.sa && stage + 4 == layers.len() && block + 1 == blocks;
            x = net.block(&name, (channels_in, channels), stride, attention, x)?;
            channels_in = channels;
        }
    }
    let head = 4 + layers.len();
    x = net.g.node(&head.to_string(), AdaptivePool::global(Reduce::Mean), &[x])?;
    x = net.g.node(&(head + 1).to_string(), Flatten, &[x])?;
    if options.dropout > 0.0 {
        x = net.g.node(&(head + 2).to_string(), Dropout { p: options.dropout }, &[x])?;
    }
    net.g.node(&(head + 3).to_string(), Linear::new(options.classes), &[x])?;
    let mut g = net.g;
    initialise(&mut g);
    Ok(g)
}

/// fastai's first weights; twist layers keep what they start with, as they came later.
fn initialise(g: &mut Graph) {
    let twists = g.nodes().iter().filter(|node| matches!(node.source, Source::Op(OpSpec::Twist(_))));
    let twists: Vec<String> = twists.map(|node| format!("{}.", node.name)).collect();
    parts::init_cnn(g, |name| twists.iter().any(|layer| name.starts_with(layer)));
}

struct Net<'a> {
    g: Graph,
    arch: Arch,
    options: &'a ModelOptions,
}

impl Net<'_> {
    /// Convolution without bias, batch-norm, activation (if any): `name.0`, `name.1`, `name.2`.
    fn conv_layer(&mut self, name: &str, conv: Conv2d, act: Option<Activation>, x: NodeId) -> Result<NodeId> {
        let x = self.conv(&format!("{name}.0"), conv.no_bias(), x)?;
        let x = self.g.node(&format!("{name}.1"), BatchNorm::running(), &[x])?;
        match act {
            Some(act) => self.g.node(&format!("{name}.2"), act, &[x]),
            None => Ok(x),
        }
    }

    /// A convolution, or the twist layer that takes its place.
    fn conv(&mut self, name: &str, conv: Conv2d, x: NodeId) -> Result<NodeId> {
        let op = self.options.swapped(conv).map_or_else(|| OpSpec::from(conv), OpSpec::from);
        self.g.node(name, op, &[x])
    }

    /// act(convpath(x) + idpath(x)).
    fn block(
        &mut self,
        name: &str,
        (channels_in, channels): (usize, usize),
        stride: usize,
        attention: bool,
        x: NodeId,
    ) -> Result<NodeId> {
        let Arch { squeeze, next, expansion, .. } = self.arch;
        let act = self.options.act;
        let (cin, cout) = (channels_in * expansion, channels * expansion);
        // Widths inside the block, as fastai's SEResNeXtBlock, SEBlock and ResBlock set them.
        let (hidden1, hidden2) = match (next, squeeze) {
            (true, _) => (channels * 4 / 64 * GROUPS, channels * 4 / 64 * GROUPS),
            (false, true) => (channels * 2, cout),
            (false, false) => (channels, channels),
        };
        let groups = if next { GROUPS } else { 1 };
        let spatial = |channels, stride| Conv2d { groups, ..Conv2d::square(channels, 3, stride, 1) };
        let path = format!("{name}.convpath");
        let (mut y, last) = if expansion == 1 {
            let y = self.conv_layer(&format!("{path}.0"), spatial(hidden2, stride), Some(act), x)?;
            (self.conv_layer(&format!("{path}.1"), Conv2d::square(cout, 3, 1, 1), None, y)?, 1)
        } else {
            let y = self.conv_layer(&format!("{path}.0"), Conv2d::square(hidden1, 1, 1, 0), Some(act), x)?;
            let y = self.conv_layer(&format!("{path}.1"), spatial(hidden2, stride), Some(act), y)?;
            (self.conv_layer(&format!("{path}.2"), Conv2d::square(cout, 1, 1, 0), None, y)?, 2)
        };
        parts::zero_scale(&mut self.g, &format!("{path}.{last}.1"));
        let mut end = last + 1;
        if squeeze {
            y = self.squeeze_excite(&format!("{path}.{end}"), cout, y)?;
            end += 1;
        }
        if attention {
            y = self.g.node(&format!("{path}.{end}"), SelfAttention { sym: self.options.sym }, &[y])?;
        }
        let mut identity = x;
        if stride != 1 {
            identity = parts::block_pool(&mut self.g, self.options.pool, &format!("{name}.idpath.0"), identity)?;
        }
        if cin != cout {
            let at = usize::from(stride != 1);
            identity =
                self.conv_layer(&format!("{name}.idpath.{at}"), Conv2d::square(cout, 1, 1, 0), None, identity)?;
        }
        let sum = self.g.node(&format!("{name}.add"), Add, &[y, identity])?;
        self.g.node(&format!("{name}.act"), act, &[sum])
    }

    /// x·σ(W₂·act(W₁·mean(x) + b₁) + b₂) per channel (Hu et al. 2018).
    fn squeeze_excite(&mut self, name: &str, channels: usize, x: NodeId) -> Result<NodeId> {
        let hidden = (channels / REDUCTION).div_ceil(8) * 8;
        let part = |i: &str| format!("{name}.layers.{i}");
        let s = self.g.node(&part("0"), AdaptivePool::global(Reduce::Mean), &[x])?;
        let s = self.conv(&part("1.0"), Conv2d::square(hidden, 1, 1, 0), s)?;
        let s = self.g.node(&part("1.1"), self.options.act, &[s])?;
        let s = self.conv(&part("2.0"), Conv2d::square(channels, 1, 1, 0), s)?;
        let s = self.g.node(&part("2.1"), Activation::Sigmoid, &[s])?;
        self.g.node(&part("3"), ChannelScale, &[x, s])
    }
}
