//! Linear layers: a convolution over images of one pixel, so that the same tiles serve.
//!
//! Weights are `[inputs][outputs]`. For a few rows (batch 1 above all) the weights are read where they lie, once,
//! which is all that a product of that shape can hope for.

use super::conv::{self, ConvGeometry, Epilogue};
use super::simd::Level;

/// The shape of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearGeometry {
    /// Features of an input row.
    pub inputs: usize,
    /// Features of an output row.
    pub outputs: usize,
}

impl LinearGeometry {
    /// The 1×1 convolution over 1×1 images that computes the same.
    fn as_convolution(&self) -> ConvGeometry {
        ConvGeometry {
            in_h: 1,
            in_w: 1,
            in_c: self.inputs,
            out_h: 1,
            out_w: 1,
            out_c: self.outputs,
            kernel: (1, 1),
            stride: (1, 1),
            pad: (0, 0),
            dilation: (1, 1),
            groups: 1,
        }
    }
}

/// Scratch floats that [`forward`] needs for any n up to `max_n`.
pub fn forward_scratch(level: Level, geometry: &LinearGeometry, max_n: usize) -> usize {
    conv::forward_scratch(level, &geometry.as_convolution(), max_n)
}

/// y `[n, outputs]` = act(x `[n, inputs]` · w + bias), or added to y.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    level: Level,
    geometry: &LinearGeometry,
    n: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    epilogue: Epilogue,
    scratch: &mut [f32],
) {
    conv::forward(level, &geometry.as_convolution(), n, x, w, y, epilogue, scratch);
}

/// Scratch floats that [`input_gradient`] needs for any n up to `max_n`.
pub fn input_gradient_scratch(level: Level, geometry: &LinearGeometry, max_n: usize) -> usize {
    conv::input_gradient_scratch(level, &geometry.as_convolution(), max_n)
}

/// dx = dy · wᵀ, written or added.
#[allow(clippy::too_many_arguments)]
pub fn input_gradient(
    level: Level,
    geometry: &LinearGeometry,
    n: usize,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    add: bool,
    scratch: &mut [f32],
) {
    conv::input_gradient(level, &geometry.as_convolution(), n, dy, w, dx, add, scratch);
}

/// Scratch floats that [`weight_gradient`] needs for any n up to `max_n`.
pub fn weight_gradient_scratch(level: Level, geometry: &LinearGeometry, max_n: usize) -> usize {
    conv::weight_gradient_scratch(level, &geometry.as_convolution(), max_n)
}

/// dw = xᵀ · dy, written or added.
#[allow(clippy::too_many_arguments)]
pub fn weight_gradient(
    level: Level,
    geometry: &LinearGeometry,
    n: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    add: bool,
    scratch: &mut [f32],
) {
    conv::weight_gradient(level, &geometry.as_convolution(), n, x, dy, dw, add, scratch);
}
