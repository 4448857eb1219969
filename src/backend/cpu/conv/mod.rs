//! Convolutions over NHWC images, forward and backward, without im2col.
//!
//! Small images in large batches are read in place, and no product with padding is computed; others are copied once
//! into a small zero-padded window (`window`), or read in place where no padding is needed. Every kernel tap is a
//! constant offset from an output pixel's first element, and with NHWC a kernel row is one contiguous run, so that
//! the register tile reads its operand directly:
//!
//! - forward: rows = output pixels, columns = output channels, k = (kernel row, kernel column, channel);
//! - input gradient: the same engine (`taps`) on the output's gradient with flipped, transposed weights; a stride s
//!   makes s² sets of input pixels, each reached by its own subset of taps;
//! - weight gradient (`dweight`): rows = (kernel row, kernel column, channel), columns = output channels, k = pixels.
//!
//! 3 × 3 kernels of stride 1 over many channels take a quarter of the multiplications (`winograd`). For inference, weights are
//! prepared once (`packed`), and the layers behind a convolution join its last step (`tail`).
//!
//! Depthwise convolutions (one channel per group) have loops over channels of their own (`depthwise`).
//!
//! Layouts: images `[n][h][w][c]`, weights `[kh][kw][in_c/groups][out_c]`. Slices of another
//! length, or a geometry that does not fit together, are programmer errors and panic.
//!
//! Same bits for any number of threads at one level; what an image gives does not depend on the batch around it.
//! [`forward_in_training`], [`PackedConvolution`] and [`forward`] differ in their last bits.

mod axis;
mod bias;
mod depth;
mod depthwise;
mod dweight;
mod pack;
mod packed;
mod pointwise;
mod rows;
mod tail;
mod taps;
mod window;
mod winograd;

#[cfg(test)]
mod tests;

pub use bias::{bias_gradient, bias_gradient_scratch};
pub use packed::PackedConvolution;
pub use tail::{Finisher, Tail};

use super::simd::Level;
use axis::Direction;
use taps::TapConvolution;
use winograd::Winograd;

/// The shape of a convolution, without the number of images. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Input rows.
    pub in_h: usize,
    /// Input columns.
    pub in_w: usize,
    /// Input channels, a multiple of `groups`.
    pub in_c: usize,
    /// Output rows: (in_h + 2·pad − dilation·(kernel − 1) − 1) / stride + 1, or fewer: the first so many.
    pub out_h: usize,
    /// Output columns, likewise.
    pub out_w: usize,
    /// Output channels, a multiple of `groups`.
    pub out_c: usize,
    /// Taps per axis, at least 1.
    pub kernel: (usize, usize),
    /// Input pixels between two output pixels, at least 1.
    pub stride: (usize, usize),
    /// Rows or columns of zeros around the input.
    pub pad: (usize, usize),
    /// Input pixels between two taps, at least 1.
    pub dilation: (usize, usize),
    /// Independent groups of channels, at least 1.
    pub groups: usize,
}

impl ConvGeometry {
    /// Floats of `n` input images.
    pub fn input_len(&self, n: usize) -> usize {
        n * self.in_h * self.in_w * self.in_c
    }

    /// Floats of `n` output images.
    pub fn output_len(&self, n: usize) -> usize {
        n * self.out_h * self.out_w * self.out_c
    }

    /// Floats of the weights.
    pub fn weight_len(&self) -> usize {
        self.kernel.0 * self.kernel.1 * (self.in_c / self.groups) * self.out_c
    }

    /// Floating-point operations of one pass over `n` images, 2 per multiply-add.
    pub fn flops(&self, n: usize) -> usize {
        2 * n * self.out_h * self.out_w * self.weight_len()
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_c && self.groups == self.out_c
    }

    /// Panics unless the kernels may run: what a graph's shape rule has established long before.
    fn check(&self, level: Level, n: usize, input: usize, weights: usize, output: usize) {
        assert!(level.is_available(), "this machine lacks {}", level.name());
        let out = |i: usize, k: usize, s: usize, p: usize, d: usize| {
            (i + 2 * p).checked_sub(d * (k - 1) + 1).map(|room| room / s + 1)
        };
        let [h, w] = [(self.in_h, self.kernel.0, 0), (self.in_w, self.kernel.1, 1)].map(|(i, k, axis)| {
            let pick = |pair: (usize, usize)| if axis == 0 { pair.0 } else { pair.1 };
            out(i, k, pick(self.stride), pick(self.pad), pick(self.dilation))
        });
        let fits = |out: usize, most: Option<usize>| most.is_some_and(|most| (1..=most).contains(&out));
        assert!(fits(self.out_h, h) && fits(self.out_w, w), "inconsistent convolution: {self:?}");
        assert!(self.in_c.is_multiple_of(self.groups) && self.out_c.is_multiple_of(self.groups));
        assert_eq!((input, weights, output), (self.input_len(n), self.weight_len(), self.output_len(n)), "{self:?}");
    }
}

/// The pointwise function at the end of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// The identity.
    None,
    /// max(0, x); NaN stays NaN.
    Relu,
    /// x where x ≥ 0, else slope·x.
    LeakyRelu(f32),
}

impl Activation {
    /// The function itself, for one value.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Activation::None => x,
            Activation::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Activation::LeakyRelu(slope) => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
        }
    }
}

/// What follows the sums of a forward pass: `y ← act(sum + bias)`, or `y ← y + act(sum + bias)`, and the [`Tail`].
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// One float per output channel.
    pub bias: Option<&'a [f32]>,
    /// Applied to sum + bias.
    pub activation: Activation,
    /// Adds to what `y` holds instead of overwriting it.
    pub accumulate: bool,
    /// What comes behind, in inference.
    pub tail: Tail<'a>,
}

impl Epilogue<'_> {
    /// Writes the bare sums.
    pub const NONE: Epilogue<'static> =
        Epilogue { bias: None, activation: Activation::None, accumulate: false, tail: Tail::NONE };
}

impl Epilogue<'_> {
    /// Panics unless what it holds fits `channels` and an output of `len` floats.
    fn check(&self, channels: usize, len: usize) {
        assert!(self.bias.is_none_or(|b| b.len() == channels), "one bias per output channel");
        let scale = self.tail.scale;
        assert!(scale.is_none_or(|(a, b)| a.len() == channels && b.len() == channels), "one scale per output channel");
        assert!(self.tail.residual.is_none_or(|r| r.len() == len), "a residual of the output's size");
    }
}

/// Scratch floats that [`forward`] needs for any n up to `max_n`.
pub fn forward_scratch(level: Level, geometry: &ConvGeometry, max_n: usize) -> usize {
    if geometry.is_depthwise() {
        return 0;
    }
    TapConvolution::new(level, geometry, Direction::Forward).scratch(max_n)
}

/// y = act(x ∗ w + bias), or added to y: x `[n,in_h,in_w,in_c]`, w `[kh][kw][in_c/groups][out_c]`,
/// y `[n,out_h,out_w,out_c]`.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    level: Level,
    geometry: &ConvGeometry,
    n: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    epilogue: Epilogue,
    scratch: &mut [f32],
) {
    geometry.check(level, n, x.len(), w.len(), y.len());
    epilogue.check(geometry.out_c, y.len());
    if geometry.is_depthwise() {
        return depthwise::forward(level, geometry, n, x, w, y, epilogue);
    }
    TapConvolution::new(level, geometry, Direction::Forward).run(n, x, w, y, epilogue, scratch);
}

/// Scratch floats that [`forward_in_training`] needs for any n up to `max_n`.
pub fn forward_in_training_scratch(level: Level, geometry: &ConvGeometry, max_n: usize) -> usize {
    match Winograd::new(level, geometry, Direction::Forward) {
        Some(winograd) => winograd.scratch(max_n),
        None => forward_scratch(level, geometry, max_n),
    }
}

/// As [`forward`], by the fastest algorithm for batches: one that rounds differently and prepares the weights anew in
/// each call.
#[allow(clippy::too_many_arguments)]
pub fn forward_in_training(
    level: Level,
    geometry: &ConvGeometry,
    n: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    epilogue: Epilogue,
    scratch: &mut [f32],
) {
    let Some(winograd) = Winograd::new(level, geometry, Direction::Forward) else {
        return forward(level, geometry, n, x, w, y, epilogue, scratch);
    };
    geometry.check(level, n, x.len(), w.len(), y.len());
    epilogue.check(geometry.out_c, y.len());
    winograd.run(n, x, w, y, epilogue, scratch);
}

/// Scratch floats that [`input_gradient`] needs for any n up to `max_n`.
pub fn input_gradient_scratch(level: Level, geometry: &ConvGeometry, max_n: usize) -> usize {
    if geometry.is_depthwise() {
        return 0;
    }
    match Winograd::new(level, geometry, Direction::InputGradient) {
        Some(winograd) => winograd.scratch(max_n),
        None => TapConvolution::new(level, geometry, Direction::InputGradient).scratch(max_n),
    }
}

/// `dx[i] = Σ dy[o]·w[tap]` over all output pixels o and taps that read input pixel i; written, or added to dx.
#[allow(clippy::too_many_arguments)]
pub fn input_gradient(
    level: Level,
    geometry: &ConvGeometry,
    n: usize,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    add: bool,
    scratch: &mut [f32],
) {
    geometry.check(level, n, dx.len(), w.len(), dy.len());
    if geometry.is_depthwise() {
        return depthwise::input_gradient(level, geometry, n, dy, w, dx, add);
    }
    let epilogue = Epilogue { accumulate: add, ..Epilogue::NONE };
    match Winograd::new(level, geometry, Direction::InputGradient) {
        Some(winograd) => winograd.run(n, dy, w, dx, epilogue, scratch),
        None => TapConvolution::new(level, geometry, Direction::InputGradient).run(n, dy, w, dx, epilogue, scratch),
    }
}

/// Scratch floats that [`weight_gradient`] needs for any n up to `max_n`.
pub fn weight_gradient_scratch(level: Level, geometry: &ConvGeometry, max_n: usize) -> usize {
    if geometry.is_depthwise() {
        return depthwise::weight_gradient_scratch(geometry, max_n);
    }
    if let Some(winograd) = winograd::WeightGradient::new(level, geometry) {
        return winograd.scratch(max_n);
    }
    match pointwise::WeightGradient::new(level, geometry) {
        Some(pointwise) => pointwise.scratch(max_n),
        None => dweight::WeightGradient::new(level, geometry).scratch(max_n),
    }
}

/// `dw[tap][c][o] = Σ x[pixel under the tap][c]·dy[pixel][o]` over images and output pixels; written, or added to dw.
#[allow(clippy::too_many_arguments)]
pub fn weight_gradient(
    level: Level,
    geometry: &ConvGeometry,
    n: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    add: bool,
    scratch: &mut [f32],
) {
    geometry.check(level, n, x.len(), dw.len(), dy.len());
    if geometry.is_depthwise() {
        return depthwise::weight_gradient(level, geometry, n, x, dy, dw, add, scratch);
    }
    if n == 0 || dw.is_empty() {
        if !add {
            dw.fill(0.0);
        }
        return;
    }
    if let Some(winograd) = winograd::WeightGradient::new(level, geometry) {
        return winograd.run(n, x, dy, dw, add, scratch);
    }
    match pointwise::WeightGradient::new(level, geometry) {
        Some(pointwise) => pointwise.run(n, x, dy, dw, add, scratch),
        None => dweight::WeightGradient::new(level, geometry).run(n, x, dy, dw, add, scratch),
    }
}
