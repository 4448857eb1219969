//! The "ResNet trick" nets of the Imagewoof experiments, plain, twisted or with permuted groups, and the depthwise net that
//! holds the record at 128 px and 5 epochs.
//!
//! An XResNet whose blocks reduce first (as model_constructor builds it, with ConvTwist's author's options):
//!
//! - stem: three 3×3 convolutions, the first of stride 2, then the stem's pool
//! - block: z = pool(x) where a stage begins (but the first), out = act(convs(z) + idconv(z)); convs: 1×1 to the stage's
//!   channels, 3×3 with stride 1, 1×1 to four times the channels with a scale that starts at 0; idconv 1×1 where channels
//!   change
//! - self-attention in the last block of the first stage; head: mean, linear
//!
//! In `mxresnet` the 3×3 convolution of each block may be a [`ConvTwist`], or have permuted groups without a twist. The
//! published rule for groups gives all stages groups of 32 channels. *Inferred*: that the first version took the place of
//! the same convolutions as the second, and that its antisymmetric kernels kept their first values where `init_cnn`
//! set the others.
//!
//! In `mxresnet-depthwise` (2020-08, "depthwise(x6)") the 3×3 convolution of a block is depthwise, each channel having
//! `multiplier` outputs, without normalisation or activation before the 1×1 convolution that follows. The stem's
//! convolutions are depthwise with the same multiplier, then 1×1. As published the stem's pool is the maximum even where the
//! blocks have MaxBlurPool.

use super::options::{BlockPool, ModelOptions, TwistVersion};
use super::parts;
use crate::graph::{Graph, NodeId, Shape};
use crate::ops::{
    AdaptivePool, Add, BatchNorm, Conv2d, ConvTwist, Dropout, Flatten, GroupOrder, Linear, OpSpec, Reduce,
    SelfAttention, Twisting,
};
use crate::{Error, ErrorKind, Result};

/// A block's output has this many times the channels of its stage.
const EXPANSION: usize = 4;
/// Groups of the second ConvTwist where the published rule does not say inputs/32.
const OTHER_GROUPS: usize = 2;

/// `mxresnet`.
pub(super) fn mxresnet(options: &ModelOptions) -> Result<Graph> {
    Net { g: Graph::new(options.images()), options, depthwise: false }.build(&[3, 4, 6, 3])
}

/// `mxresnet-depthwise`.
pub(super) fn depthwise(options: &ModelOptions) -> Result<Graph> {
    Net { g: Graph::new(options.images()), options, depthwise: true }.build(&[3, 6, 8, 3])
}

struct Net<'a> {
    g: Graph,
    options: &'a ModelOptions,
    depthwise: bool,
}

/// Convolutions under their names within a layer, to run one after the other.
type Convs = Vec<(&'static str, OpSpec)>;

impl Net<'_> {
    fn build(mut self, layers: &[usize]) -> Result<Graph> {
        let options = self.options;
        let layers = options.layers.as_deref().unwrap_or(layers);
        let mut x = self.stem()?;
        for (stage, &blocks) in layers.iter().enumerate() {
            let width = [64, 128, 256, 512].get(stage).copied().unwrap_or(256);
            let channels = (width as f64 * options.widen) as usize;
            for block in 0..blocks {
                let name = format!("body.l_{stage}.bl_{block}");
                let attention = options.sa && stage == 0 && block + 1 == blocks;
                x = self.block(&name, channels, stage > 0 && block == 0, attention, x)?;
            }
        }
        x = self.g.node("head.pool", AdaptivePool::global(Reduce::Mean), &[x])?;
        x = self.g.node("head.flat", Flatten, &[x])?;
        if options.dropout > 0.0 {
            x = self.g.node("head.drop", Dropout { p: options.dropout }, &[x])?;
        }
        self.g.node("head.fc", Linear::new(options.classes), &[x])?;
        parts::init_cnn(&mut self.g, |name| name.ends_with(".conv_x.weight") || name.ends_with(".conv_y.weight"));
        Ok(self.g)
    }

    fn stem(&mut self) -> Result<NodeId> {
        let mut x = self.g.images();
        for (i, channels) in self.options.stem.unwrap_or([32, 64, 64]).into_iter().enumerate() {
            let stride = if i == 0 { self.options.stem_stride } else { 1 };
            let convs = if self.depthwise {
                vec![self.depthwise_conv(self.g.shape(x), stride), self.pointwise(channels)]
            } else {
                vec![("conv", Conv2d::square(channels, 3, stride, 1).no_bias().into())]
            };
            x = self.layer(&format!("stem.conv_{i}"), convs, true, x)?;
        }
        let pool = if self.depthwise { BlockPool::Max } else { self.options.pool };
        parts::stem_pool(&mut self.g, pool, "stem.stem_pool", x)
    }

    /// act(convs(z) + idconv(z)), z = pool(x) or x.
    fn block(&mut self, name: &str, channels: usize, reduce: bool, attention: bool, x: NodeId) -> Result<NodeId> {
        let z =
            if reduce { parts::block_pool(&mut self.g, self.options.pool, &format!("{name}.reduce"), x)? } else { x };
        let (cout, act) = (channels * EXPANSION, self.options.act);
        let convs = format!("{name}.convs");
        let mut y = self.layer(&format!("{convs}.conv_0"), vec![self.pointwise(channels)], true, z)?;
        y = self.spatial(&convs, channels, y)?;
        let last = format!("{convs}.conv_2");
        y = self.layer(&last, vec![self.pointwise(cout)], false, y)?;
        parts::zero_scale(&mut self.g, &format!("{last}.bn"));
        if attention {
            y = self.g.node(&format!("{convs}.sa"), SelfAttention { sym: self.options.sym }, &[y])?;
        }
        let mut identity = z;
        if self.g.shape(z).c != cout {
            identity = self.layer(&format!("{name}.idconv"), vec![self.pointwise(cout)], false, z)?;
        }
        let sum = self.g.node(&format!("{name}.add"), Add, &[y, identity])?;
        self.g.node(&format!("{name}.merge"), act, &[sum])
    }

    /// The 3×3 convolution in the middle of a block.
    fn spatial(&mut self, convs: &str, channels: usize, x: NodeId) -> Result<NodeId> {
        if self.depthwise {
            let (part, op) = self.depthwise_conv(self.g.shape(x), 1);
            return self.g.node(&format!("{convs}.conv_1.{part}"), op, &[x]);
        }
        let op = self.twisted(channels)?;
        let name = if matches!(op, OpSpec::ConvTwist(_)) { "conv_1_twist" } else { "conv_1" };
        self.layer(&format!("{convs}.{name}"), vec![("conv", op)], true, x)
    }

    /// What the options make of a block's 3×3 convolution.
    fn twisted(&self, channels: usize) -> Result<OpSpec> {
        let options = self.options;
        let groups = match options.group_channels {
            Some(size) if !channels.is_multiple_of(size.max(1)) => {
                let e = Error::new(ErrorKind::Usage, "model mxresnet", format!("a stage of {channels} channels"));
                return Err(e.expected(format!("multiples of group_channels, {size}")));
            }
            Some(size) => channels / size.max(1),
            None if options.twist == TwistVersion::Second => {
                ConvTwist::published_groups(channels, channels, OTHER_GROUPS)
            }
            None => 1,
        };
        let twist = match options.twist {
            TwistVersion::Off if groups == 1 => return Ok(Conv2d::square(channels, 3, 1, 1).no_bias().into()),
            TwistVersion::Off => Twisting::Off,
            TwistVersion::First => Twisting::Free { gradient: options.twist_gradient },
            TwistVersion::Second => Twisting::Sobel { iters: options.iters },
        };
        let order = if groups == 1 { GroupOrder::Straight } else { options.group_order };
        Ok(ConvTwist { channels, stride: 1, groups, order, twist }.into())
    }

    fn depthwise_conv(&self, input: Shape, stride: usize) -> (&'static str, OpSpec) {
        let conv = Conv2d::square(input.c.saturating_mul(self.options.multiplier), 3, stride, 1).no_bias();
        ("Conv3x3", Conv2d { groups: input.c, ..conv }.into())
    }

    fn pointwise(&self, channels: usize) -> (&'static str, OpSpec) {
        let name = if self.depthwise { "Conv1x1" } else { "conv" };
        (name, Conv2d::square(channels, 1, 1, 0).no_bias().into())
    }

    /// Convolutions, batch-norm, and the activation if there is to be one.
    fn layer(&mut self, name: &str, convs: Convs, act: bool, mut x: NodeId) -> Result<NodeId> {
        for (part, op) in convs {
            x = self.g.node(&format!("{name}.{part}"), op, &[x])?;
        }
        x = self.g.node(&format!("{name}.bn"), BatchNorm::running(), &[x])?;
        if act { self.g.node(&format!("{name}.act_fn"), self.options.act, &[x]) } else { Ok(x) }
    }
}
