//! airbench94: the small net that reaches 94 % on CIFAR-10 in the fewest operations (Jordan 2024, arXiv 2404.00498; after
//! Page 2018 and tysam-code's hlb-CIFAR10).

use super::ModelOptions;
use crate::Result;
use crate::graph::{Graph, NodeId};
use crate::ops::{
    Activation, AdaptivePool, BatchNorm, Conv2d, Flatten, Init, Linear, MaxPool, Reduce, Scale, Statistics, Window,
};

/// Channels of the three blocks.
const WIDTHS: [usize; 3] = [64, 256, 256];

/// Values under the first convolution's window of 2×2 pixels: it has two outputs for each, so that a whitening and its
/// negative fit (`train.whiten`).
const PATCH: usize = 2 * 2 * 3;

/// conv 2×2 → GELU, three blocks, global max pooling (on 32×32 images: of 3×3 pixels), a linear layer times 1/9. The 3×3
/// convolutions begin as the identity. Names are those of the published code's sequence of modules.
pub(super) fn airbench94(options: &ModelOptions) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let x = g.node("0", Conv2d::square(2 * PATCH, 2, 1, 0), &[g.images()])?;
    let mut x = g.node("1", Activation::Gelu, &[x])?;
    for (i, channels) in options.widths.unwrap_or(WIDTHS).into_iter().enumerate() {
        x = block(&mut g, &format!("{}", i + 2), channels, x)?;
    }
    let x = g.node("5", AdaptivePool::global(Reduce::Max), &[x])?;
    let x = g.node("6", Flatten, &[x])?;
    let x = g.node("7", Linear::new(options.classes).no_bias(), &[x])?;
    g.node("8", Scale { factor: 1.0 / 9.0 }, &[x])?;
    g.set_inits(|name, spec| match name {
        "0.bias" => Some(Init::Constant(0.0)),
        _ if name.ends_with("conv1.weight") || name.ends_with("conv2.weight") => Init::identity(&spec.layout),
        _ => None,
    });
    Ok(g)
}

/// conv → max pool → norm → GELU → conv → norm → GELU. What the pool drops at the edge of an odd map is not computed.
fn block(g: &mut Graph, name: &str, channels: usize, x: NodeId) -> Result<NodeId> {
    // The published momentum, .6, is the share that stays.
    let norm = BatchNorm { eps: 1e-12, statistics: Statistics::Running { momentum: 0.4 } };
    let map = g.shape(x);
    let conv = Conv2d::square(channels, 3, 1, 1).no_bias();
    let unread = |side: usize| if side > 1 { side % 2 } else { 0 };
    let first = Conv2d { trim: (unread(map.h), unread(map.w)), ..conv };
    let x = g.node(&format!("{name}.conv1"), first, &[x])?;
    let x = g.node(&format!("{name}.pool"), MaxPool { window: Window::square(2, 2, 0), ceil: false }, &[x])?;
    let x = g.node(&format!("{name}.norm1"), norm, &[x])?;
    let x = g.node(&format!("{name}.activ1"), Activation::Gelu, &[x])?;
    let x = g.node(&format!("{name}.conv2"), conv, &[x])?;
    let x = g.node(&format!("{name}.norm2"), norm, &[x])?;
    g.node(&format!("{name}.activ2"), Activation::Gelu, &[x])
}
