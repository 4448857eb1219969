//! The CIFAR-10 progression, from a multi-layer perceptron to residual networks.

use super::ModelOptions;
use crate::Result;
use crate::graph::{Graph, NodeId};
use crate::ops::{Activation, AdaptivePool, Add, BatchNorm, Conv2d, Dropout, Flatten, Linear, OpSpec, Reduce};

/// One linear layer on the pixels: what any other model has to beat.
pub(super) fn linear(options: &ModelOptions) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let x = g.node("flatten", Flatten, &[g.images()])?;
    g.node("out", Linear::new(options.classes), &[x])?;
    Ok(g)
}

/// flatten → 40 → classes, ReLU between.
pub(super) fn simplenet(options: &ModelOptions) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let x = g.node("flatten", Flatten, &[g.images()])?;
    let x = g.node("layers.0", Linear::new(40), &[x])?;
    let x = g.node("relu", Activation::Relu, &[x])?;
    g.node("layers.1", Linear::new(options.classes), &[x])?;
    Ok(g)
}

pub(super) fn convnet(options: &ModelOptions) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let mut x = g.images();
    for (i, channels) in [20, 40, 80].into_iter().enumerate() {
        x = g.node(&format!("layers.{i}"), Conv2d::square(channels, 3, 2, 0), &[x])?;
        x = g.node(&format!("layers.{i}.relu"), Activation::Relu, &[x])?;
    }
    head(&mut g, x, options)?;
    Ok(g)
}

pub(super) fn convnet2(options: &ModelOptions) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let mut x = g.images();
    for (i, channels) in [20, 40, 80].into_iter().enumerate() {
        x = g.node(&format!("layers.{i}.conv"), Conv2d::square(channels, 3, 2, 1), &[x])?;
        x = g.node(&format!("layers.{i}.relu"), Activation::Relu, &[x])?;
    }
    head(&mut g, x, options)?;
    Ok(g)
}

pub(super) fn convbnnet(options: &ModelOptions) -> Result<Graph> {
    staged(options, |_, _, _, x| Ok(x))
}

/// λ2(λ(x)) in each stage.
pub(super) fn convbnnet2(options: &ModelOptions) -> Result<Graph> {
    let norm = options.bn_layer_norm();
    staged(options, |g, stage, channels, x| bn_layer(g, &format!("layers2.{stage}"), (channels, 3, 1), norm, x))
}

/// λ3(λ2(λ(x))) in each stage, λ2 and λ3 residual; as published λ3(λ3(λ(x))), and λ2 is never run.
pub(super) fn resnet(options: &ModelOptions) -> Result<Graph> {
    let norm = options.bn_layer_norm();
    staged(options, |g, stage, channels, x| {
        let names = [format!("layers2.{stage}"), format!("layers3.{stage}")];
        let second = residual(g, &names[0], channels, norm, x)?;
        if !options.published {
            return residual(g, &names[1], channels, norm, second);
        }
        let first_use = residual(g, &names[1], channels, norm, x)?;
        shared_residual(g, &names[1], first_use)
    })
}

/// A wider residual net: 7×7 first, stages of 32, 128, 256 channels, dropout before the last layer.
pub(super) fn resnet2(options: &ModelOptions) -> Result<Graph> {
    let norm = options.bn_layer_norm();
    let mut g = Graph::new(options.images());
    let images = g.images();
    let mut x = bn_layer(&mut g, "conv1", (16, 7, 1), norm, images)?;
    for (i, channels) in [32, 128, 256].into_iter().enumerate() {
        x = bn_layer(&mut g, &format!("layers.{i}"), (channels, 3, 2), norm, x)?;
        x = residual(&mut g, &format!("layers2.{i}"), channels, norm, x)?;
        x = residual(&mut g, &format!("layers3.{i}"), channels, norm, x)?;
    }
    let x = g.node("pool", AdaptivePool::global(Reduce::Max), &[x])?;
    let x = g.node("drop", Dropout { p: options.dropout }, &[x])?;
    g.node("out", Linear::new(options.classes), &[x])?;
    Ok(g)
}

/// The small net of the first run: three convolutions of stride 2, batch-norm after each.
pub(super) fn quickstart(options: &ModelOptions) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let mut x = g.images();
    for (i, (channels, kernel)) in [(32, 5), (64, 3), (128, 3)].into_iter().enumerate() {
        let conv = Conv2d::square(channels, kernel, 2, kernel / 2).no_bias();
        x = g.node(&format!("layers.{i}.conv"), conv, &[x])?;
        x = g.node(&format!("layers.{i}.bn"), BatchNorm::running(), &[x])?;
        x = g.node(&format!("layers.{i}.relu"), Activation::Relu, &[x])?;
    }
    head(&mut g, x, options)?;
    Ok(g)
}

/// A 5×5 convolution, then stages of 20, 40, 80, 160 channels that halve the map; `rest` extends each stage.
fn staged(options: &ModelOptions, rest: impl Fn(&mut Graph, usize, usize, NodeId) -> Result<NodeId>) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let mut x = g.node("conv1", Conv2d::square(10, 5, 1, 2), &[g.images()])?;
    for (stage, channels) in [20, 40, 80, 160].into_iter().enumerate() {
        x = bn_layer(&mut g, &format!("layers.{stage}"), (channels, 3, 2), options.bn_layer_norm(), x)?;
        x = rest(&mut g, stage, channels, x)?;
    }
    head(&mut g, x, options)?;
    Ok(g)
}

/// The progression's BnLayer: convolution (padding 1 whatever the kernel, no bias) → ReLU → normalisation.
fn bn_layer(
    g: &mut Graph,
    name: &str,
    (channels, kernel, stride): (usize, usize, usize),
    norm: BatchNorm,
    x: NodeId,
) -> Result<NodeId> {
    let x = g.node(&format!("{name}.conv"), Conv2d::square(channels, kernel, stride, 1).no_bias(), &[x])?;
    let x = g.node(&format!("{name}.relu"), Activation::Relu, &[x])?;
    g.node(name, norm, &[x])
}

/// x + BnLayer(x).
fn residual(g: &mut Graph, name: &str, channels: usize, norm: BatchNorm, x: NodeId) -> Result<NodeId> {
    let y = bn_layer(g, name, (channels, 3, 1), norm, x)?;
    g.node(&format!("{name}.add"), Add, &[x, y])
}

/// x + BnLayer(x) with the weights and statistics of the residual layer called `name`.
fn shared_residual(g: &mut Graph, name: &str, x: NodeId) -> Result<NodeId> {
    let mut y = x;
    for part in [".conv", ".relu", ""] {
        let like = g.find(&format!("{name}{part}"))?;
        y = g.shared(&format!("{name}{part}@2"), like, &[y])?;
    }
    g.node(&format!("{name}.add@2"), OpSpec::from(Add), &[x, y])
}

/// Global max pooling and a linear layer.
fn head(g: &mut Graph, x: NodeId, options: &ModelOptions) -> Result<NodeId> {
    let x = g.node("pool", AdaptivePool::global(Reduce::Max), &[x])?;
    g.node("out", Linear::new(options.classes), &[x])
}
