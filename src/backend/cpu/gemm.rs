//! Linear layers, and with them products of matrices: a convolution over images of one pixel, so that the same tiles
//! serve.
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
    pub(super) fn as_convolution(&self) -> ConvGeometry {
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

/// The sizes of a product of matrices, all row-major: `rows × inner` times `inner × columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of the result.
    pub rows: usize,
    /// Terms of each sum.
    pub inner: usize,
    /// Columns of the result.
    pub columns: usize,
}

/// ```
/// use handgrad::backend::cpu::gemm::Product;
/// use handgrad::backend::cpu::simd::Level;
/// let (level, sizes) = (Level::best(), Product { rows: 1, inner: 2, columns: 2 });
/// let (a, b) = ([1.0, 10.0], [1.0, 2.0, 3.0, 4.0]);
/// let (mut c, mut scratch) = ([0.0; 2], vec![0.0; sizes.scratch(level)]);
/// sizes.ab(level, &a, &b, &mut c, false, &mut scratch);
/// assert_eq!(c, [31.0, 42.0]);
/// sizes.abt(level, &a, &b, &mut c, true, &mut scratch); // b as the transpose of a 2 × 2 matrix, added
/// assert_eq!(c, [52.0, 85.0]);
/// ```
impl Product {
    /// Scratch floats that each of the three products needs.
    pub fn scratch(&self, level: Level) -> usize {
        let Product { rows, inner, columns } = *self;
        let straight = forward_scratch(level, &LinearGeometry { inputs: inner, outputs: columns }, rows);
        let abt = input_gradient_scratch(level, &LinearGeometry { inputs: columns, outputs: inner }, rows);
        let atb = weight_gradient_scratch(level, &LinearGeometry { inputs: rows, outputs: columns }, inner);
        straight.max(abt).max(atb)
    }

    /// c `[rows, columns]` = a `[rows, inner]` · b `[inner, columns]`, written or added.
    pub fn ab(&self, level: Level, a: &[f32], b: &[f32], c: &mut [f32], add: bool, scratch: &mut [f32]) {
        let geometry = LinearGeometry { inputs: self.inner, outputs: self.columns };
        forward(level, &geometry, self.rows, a, b, c, Epilogue { accumulate: add, ..Epilogue::NONE }, scratch);
    }

    /// c `[rows, columns]` = a `[rows, inner]` · bᵀ, b `[columns, inner]`, written or added.
    pub fn abt(&self, level: Level, a: &[f32], b: &[f32], c: &mut [f32], add: bool, scratch: &mut [f32]) {
        let geometry = LinearGeometry { inputs: self.columns, outputs: self.inner };
        input_gradient(level, &geometry, self.rows, a, b, c, add, scratch);
    }

    /// c `[rows, columns]` = aᵀ · b, a `[inner, rows]`, b `[inner, columns]`, written or added.
    pub fn atb(&self, level: Level, a: &[f32], b: &[f32], c: &mut [f32], add: bool, scratch: &mut [f32]) {
        let geometry = LinearGeometry { inputs: self.rows, outputs: self.columns };
        weight_gradient(level, &geometry, self.inner, a, b, c, add, scratch);
    }
}
