//! The plain CNN of E4: seven convolutions, each followed by ReLU and then batch-norm.

use super::options::ModelOptions;
use crate::Result;
use crate::graph::Graph;
use crate::ops::{Activation, AdaptivePool, BatchNorm, Conv2d, Flatten, Init, Layout, Linear, Reduce};

/// Convolutions start as `kaiming_normal(a = 0.1)`: N(0, 2/((1 + a²)·fan_in)).
pub(super) fn bag_of_tricks(options: &ModelOptions) -> Result<Graph> {
    let mut g = Graph::new(options.images());
    let mut x = g.images();
    for (i, channels) in [16, 32, 64, 64, 64, 128, 256].into_iter().enumerate() {
        let stride = if i == 0 { 1 } else { 2 };
        x = g.node(&format!("{i}.0"), Conv2d::square(channels, 3, stride, 1).no_bias(), &[x])?;
        x = g.node(&format!("{i}.1"), Activation::Relu, &[x])?;
        x = g.node(&format!("{i}.2"), BatchNorm::running(), &[x])?;
    }
    x = g.node("7", AdaptivePool::global(Reduce::Mean), &[x])?;
    x = g.node("8", Flatten, &[x])?;
    g.node("9", Linear::new(options.classes), &[x])?;
    g.set_inits(|_, spec| match spec.layout {
        Layout::Conv { kernel, cin, .. } => {
            let fan_in = (cin * kernel.0 * kernel.1) as f64;
            Some(Init::Normal((2.0 / (1.01 * fan_in)).sqrt()))
        }
        _ => None,
    });
    Ok(g)
}
