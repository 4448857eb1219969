//! 2-d convolution (cross-correlation, as everywhere in the field).
//!
//! With windows o = (oh, ow), cells k = (kh, kw), the input pixel o·s + k·d − p (zero outside), group g of output
//! channel q:
//!
//! - y[o, q] = b[q] + Σₖ Σᵢ w[k, i, q] · x[o·s + k·d − p, g·cin + i]
//! - dx[o·s + k·d − p, g·cin + i] += w[k, i, q] · dy[o, q]
//! - dw[k, i, q] = Σₙ Σₒ x[o·s + k·d − p, g·cin + i] · dy[o, q]
//! - db[q] = Σₙ Σₒ dy[o, q]
//!
//! Weights lie as `[kh][kw][cin / groups][cout]`: over NHWC maps each tap is a matrix product on contiguous channels.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Init, Keeps, Kernel, Layout, Mismatch, Op, ParamSpec, Window, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// A 2-d convolution: `[h, w, cin]` → `[oh, ow, channels]`.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::Conv2d;
/// let mut g = Graph::new(Shape::new(32, 32, 3));
/// let y = g.node("conv", Conv2d::square(20, 3, 2, 1), &[g.images()])?;
/// assert_eq!(g.shape(y), Shape::new(16, 16, 20));
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Output channels.
    pub channels: usize,
    /// Kernel, stride, padding, dilation.
    pub window: Window,
    /// Groups: output group g reads input group g only.
    pub groups: usize,
    /// Whether a bias per output channel is added.
    pub bias: bool,
    /// Rows at the bottom and columns at the right of the output that are left out, because nobody reads them: a pool of
    /// stride 2 over an odd number of rows drops the last.
    #[serde(default, skip_serializing_if = "is_whole")]
    pub trim: (usize, usize),
}

fn is_whole(trim: &(usize, usize)) -> bool {
    *trim == (0, 0)
}

impl Conv2d {
    /// A square kernel with bias, ungrouped.
    pub const fn square(channels: usize, kernel: usize, stride: usize, pad: usize) -> Self {
        Conv2d { channels, window: Window::square(kernel, stride, pad), groups: 1, bias: true, trim: (0, 0) }
    }

    /// The same without bias.
    #[must_use]
    pub const fn no_bias(mut self) -> Self {
        self.bias = false;
        self
    }
}

impl Op for Conv2d {
    fn kind(&self) -> &'static str {
        "conv2d"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        let divides = |channels: usize| self.groups > 0 && channels > 0 && channels.is_multiple_of(self.groups);
        if !divides(x.c) || !divides(self.channels) {
            let found = format!("{} input and {} output channels", x.c, self.channels);
            return Err(Mismatch::new(found, format!("multiples of {} groups", self.groups)));
        }
        let (h, w) = self.window.count(x, false)?;
        if self.trim.0 >= h || self.trim.1 >= w {
            let found = format!("{:?} rows and columns left out of {h}×{w}", self.trim);
            return Err(Mismatch::new(found, "at least one row and one column"));
        }
        Ok(Shape::new(h - self.trim.0, w - self.trim.1, self.channels))
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let cin = inputs[0].c / self.groups;
        let fan_in = cin.saturating_mul(self.window.kernel.0 * self.window.kernel.1);
        let init = Init::torch_default(fan_in);
        let layout = Layout::Conv { kernel: self.window.kernel, cin, cout: self.channels };
        let weight = ParamSpec { name: "weight", layout, init };
        let bias = ParamSpec { name: "bias", layout: Layout::Plain(vec![self.channels]), init };
        if self.bias { vec![weight, bias] } else { vec![weight] }
    }

    fn flops(&self, inputs: &[Shape], output: Shape) -> u64 {
        let taps = self.window.kernel.0 * self.window.kernel.1 * (inputs[0].c / self.groups);
        2 * output.len() as u64 * taps as u64
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn reference(&self) -> &dyn Kernel<Reference> {
        self
    }

    fn cpu(&self) -> &dyn Kernel<Cpu> {
        self
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Option<&dyn crate::backend::cuda::Kernel> {
        Some(self)
    }
}
