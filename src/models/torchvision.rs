//! torchvision's ResNets (He et al. 2015), with the names of its state dicts.

use super::options::ModelOptions;
use crate::Result;
use crate::graph::{Graph, NodeId};
use crate::ops::{
    Activation, AdaptivePool, Add, BatchNorm, Conv2d, Flatten, Init, Layout, Linear, MaxPool, Reduce, Window,
};

pub(super) fn resnet18(options: &ModelOptions) -> Result<Graph> {
    build(options, [2, 2, 2, 2], 1)
}

pub(super) fn resnet34(options: &ModelOptions) -> Result<Graph> {
    build(options, [3, 4, 6, 3], 1)
}

pub(super) fn resnet50(options: &ModelOptions) -> Result<Graph> {
    build(options, [3, 4, 6, 3], 4)
}

fn build(options: &ModelOptions, layers: [usize; 4], expansion: usize) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let images = g.images();
    let x = conv_norm(&mut g, ["conv1", "bn1"], Conv2d::square(64, 7, 2, 3), images)?;
    let x = g.node("relu", Activation::Relu, &[x])?;
    let mut x = g.node("maxpool", MaxPool { window: Window::square(3, 2, 1), ceil: false }, &[x])?;
    for (stage, blocks) in layers.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = residual(&mut g, &format!("layer{}.{block}", stage + 1), (64 << stage, expansion), stride, x)?;
        }
    }
    x = g.node("avgpool", AdaptivePool::global(Reduce::Mean), &[x])?;
    x = g.node("flatten", Flatten, &[x])?;
    g.node("fc", Linear::new(options.classes), &[x])?;
    // Convolutions start as N(0, 2/fan_out); everything else as PyTorch has it.
    g.set_inits(|_, spec| match spec.layout {
        Layout::Conv { kernel, cout, .. } => Some(Init::kaiming_normal(cout * kernel.0 * kernel.1)),
        _ => None,
    });
    Ok(g)
}

fn conv_norm(g: &mut Graph, [conv, norm]: [&str; 2], op: Conv2d, x: NodeId) -> Result<NodeId> {
    let x = g.node(conv, op.no_bias(), &[x])?;
    g.node(norm, BatchNorm::running(), &[x])
}

/// relu(path(x) + x), where x is brought to the path's shape by a strided 1×1 convolution if it has another.
fn residual(
    g: &mut Graph,
    name: &str,
    (channels, expansion): (usize, usize),
    stride: usize,
    x: NodeId,
) -> Result<NodeId> {
    let part = |part: &str| format!("{name}.{part}");
    let spatial = |stride| Conv2d::square(channels, 3, stride, 1);
    let point = |channels, stride| Conv2d::square(channels, 1, stride, 0);
    // The stride is the 3×3 convolution's, in the deeper nets too.
    let path = if expansion == 1 {
        vec![spatial(stride), spatial(1)]
    } else {
        vec![point(channels, 1), spatial(stride), point(channels * expansion, 1)]
    };
    let mut y = x;
    for (i, &conv) in path.iter().enumerate() {
        let names = [part(&format!("conv{}", i + 1)), part(&format!("bn{}", i + 1))];
        y = conv_norm(g, names.each_ref().map(String::as_str), conv, y)?;
        if i + 1 < path.len() {
            y = g.node(&part(&format!("relu{}", i + 1)), Activation::Relu, &[y])?;
        }
    }
    let mut identity = x;
    if stride != 1 || g.shape(x).c != channels * expansion {
        let names = [part("downsample.0"), part("downsample.1")];
        identity = conv_norm(g, names.each_ref().map(String::as_str), point(channels * expansion, stride), x)?;
    }
    let sum = g.node(&part("add"), Add, &[y, identity])?;
    g.node(&part("relu"), Activation::Relu, &[sum])
}
