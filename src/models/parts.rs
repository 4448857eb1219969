//! What several networks are built of: pooling, and fastai's first weights.

use super::options::BlockPool;
use crate::Result;
use crate::graph::{Graph, NodeId};
use crate::ops::{AvgPool, Blur, Init, MaxPool, Window};

/// What ends the stem: max pooling by 3×3 with stride 2, or MaxBlurPool.
pub(super) fn stem_pool(g: &mut Graph, pool: BlockPool, name: &str, x: NodeId) -> Result<NodeId> {
    match pool {
        BlockPool::MaxBlur => max_blur_pool(g, name, x),
        _ => g.node(name, MaxPool { window: Window::square(3, 2, 1), ceil: false }, &[x]),
    }
}

/// What halves the map in a block. Average pooling is in ceil mode; max pooling in floor mode, although ceil was asked
/// for: at odd sizes the two paths of an XResNet's block then differ, which is an error of their sum.
pub(super) fn block_pool(g: &mut Graph, pool: BlockPool, name: &str, x: NodeId) -> Result<NodeId> {
    let window = Window::square(2, 2, 0);
    match pool {
        BlockPool::Avg => g.node(name, AvgPool { window, ceil: true }, &[x]),
        BlockPool::Max => g.node(name, MaxPool { window, ceil: false }, &[x]),
        BlockPool::MaxBlur => max_blur_pool(g, name, x),
    }
}

/// The maximum of 3×3 at every pixel, blurred and halved.
fn max_blur_pool(g: &mut Graph, name: &str, x: NodeId) -> Result<NodeId> {
    let x = g.node(&format!("{name}.max"), MaxPool { window: Window::square(3, 1, 1), ceil: false }, &[x])?;
    g.node(&format!("{name}.blur"), Blur, &[x])
}

/// fastai's `init_cnn`: weights of convolutions and linear layers N(0, 2/fan_in), every bias 0. (Scales of batch-norms
/// are set as the blocks are built.) What `keeps` says by name starts as its op has it.
pub(super) fn init_cnn(g: &mut Graph, keeps: impl Fn(&str) -> bool) {
    g.set_inits(|name, spec| {
        let shape = spec.layout.torch_shape();
        if keeps(name) {
            None
        } else if name.ends_with(".bias") {
            Some(Init::Constant(0.0))
        } else if (name.ends_with(".weight") || name.ends_with(".weight_orig")) && shape.len() > 1 {
            Some(Init::kaiming_normal(shape[1..].iter().product()))
        } else {
            None
        }
    });
}

/// Lets the batch-norm called `norm` scale by 0 at first, so that its block starts as the identity path alone.
pub(super) fn zero_scale(g: &mut Graph, norm: &str) {
    let scale = format!("{norm}.weight");
    g.set_inits(|name, _| (name == scale).then_some(Init::Constant(0.0)));
}
