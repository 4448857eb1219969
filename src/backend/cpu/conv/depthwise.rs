//! Depthwise convolutions: every channel has its own kernel, so that loops run over channels and memory sets the
//! pace. Taps outside the image are skipped, which needs no padded copy.

use super::dweight::add_partials;
use super::{ConvGeometry, Epilogue};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};

/// Channels whose sums a pixel keeps in registers.
const CHANNELS: usize = 32;

/// Depthwise code reaches about an eighth of the rate that work items are measured by.
const SLOWNESS: usize = 8;

/// The most partial sums of the weight gradient.
const MAX_PARTIALS: usize = 16;

/// The pixels of one axis that meet under the taps: source index = position − pad + tap·dilation.
#[derive(Clone, Copy)]
struct Taps {
    kernel: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
    input: usize,
    output: usize,
}

impl Taps {
    fn vertical(g: &ConvGeometry) -> Taps {
        let (kernel, stride, pad, dilation) = (g.kernel.0, g.stride.0, g.pad.0, g.dilation.0);
        Taps { kernel, stride, pad, dilation, input: g.in_h, output: g.out_h }
    }

    fn horizontal(g: &ConvGeometry) -> Taps {
        let (kernel, stride, pad, dilation) = (g.kernel.1, g.stride.1, g.pad.1, g.dilation.1);
        Taps { kernel, stride, pad, dilation, input: g.in_w, output: g.out_w }
    }

    /// The input pixel that `tap` of output pixel `at` reads, if it lies in the image.
    #[inline(always)]
    fn input(&self, at: usize, tap: usize) -> Option<usize> {
        (at * self.stride + tap * self.dilation).checked_sub(self.pad).filter(|&i| i < self.input)
    }

    /// The output pixel whose `tap` reads input pixel `at`, if there is one.
    #[inline(always)]
    fn output(&self, at: usize, tap: usize) -> Option<usize> {
        let room = (at + self.pad).checked_sub(tap * self.dilation)?;
        (room.is_multiple_of(self.stride)).then_some(room / self.stride).filter(|&o| o < self.output)
    }
}

fn items(g: &ConvGeometry, n: usize) -> usize {
    threads::items_for(g.flops(n).saturating_mul(SLOWNESS))
}

/// y = act(x ∗ w + bias), or added to y.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward(
    level: Level,
    g: &ConvGeometry,
    n: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    epilogue: Epilogue,
) {
    for_each_row(g, n, g.out_h, g.out_w, y, |image, row, line| {
        let x = &x[image * g.in_h * g.in_w * g.in_c..][..g.in_h * g.in_w * g.in_c];
        let start = (image * g.out_h + row) * line.len();
        output_row(level, g, row, x, w, line, epilogue, start);
        if let Some(finisher) = epilogue.tail.finisher {
            finisher.run(start, line);
        }
    });
}

/// dx from dy, written or added.
pub(super) fn input_gradient(
    level: Level,
    g: &ConvGeometry,
    n: usize,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    add: bool,
) {
    for_each_row(g, n, g.in_h, g.in_w, dx, |image, row, line| {
        let dy = &dy[image * g.out_h * g.out_w * g.out_c..][..g.out_h * g.out_w * g.out_c];
        input_row(level, g, row, dy, w, line, add);
    });
}

/// Calls `f(image, row, the row's floats)` for all rows of `n` images.
fn for_each_row(
    g: &ConvGeometry,
    n: usize,
    height: usize,
    width: usize,
    destination: &mut [f32],
    f: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let (items, line) = (items(g, n), width * g.in_c);
    let destination = Disjoint::new(destination);
    threads::for_each_item(items, |item| {
        for row in threads::part(n * height, items, item) {
            // SAFETY: every row belongs to one item.
            f(row / height, row % height, unsafe { destination.slice(row * line..(row + 1) * line) });
        }
    });
}

/// sums[c] += w[c]·x[c].
#[inline(always)]
fn multiply_add(sums: &mut [f32; CHANNELS], w: &[f32], x: &[f32]) {
    if let (Ok(w), Ok(x)) = (<&[f32; CHANNELS]>::try_from(w), <&[f32; CHANNELS]>::try_from(x)) {
        for c in 0..CHANNELS {
            sums[c] += w[c] * x[c];
        }
    } else {
        for ((sum, w), x) in sums.iter_mut().zip(w).zip(x) {
            *sum += w * x;
        }
    }
}

crate::multiversion! {
    /// One row of the output of one image, which begins at `start` of the batch.
    fn output_row(
        g: &ConvGeometry, row: usize, x: &[f32], w: &[f32], line: &mut [f32], epilogue: Epilogue, start: usize,
    ) {
        let (vertical, horizontal, channels) = (Taps::vertical(g), Taps::horizontal(g), g.in_c);
        for (column, pixel) in line.chunks_exact_mut(channels).enumerate() {
            for (i, pixel) in pixel.chunks_mut(CHANNELS).enumerate() {
                let (first, len) = (i * CHANNELS, pixel.len());
                let mut sums = [0.0; CHANNELS];
                for ky in 0..vertical.kernel {
                    let Some(in_y) = vertical.input(row, ky) else { continue };
                    for kx in 0..horizontal.kernel {
                        let Some(in_x) = horizontal.input(column, kx) else { continue };
                        let w = &w[(ky * g.kernel.1 + kx) * channels + first..][..len];
                        multiply_add(&mut sums, w, &x[(in_y * g.in_w + in_x) * channels + first..][..len]);
                    }
                }
                let at = start + column * channels + first;
                for (c, (value, sum)) in pixel.iter_mut().zip(sums).enumerate() {
                    let bias = epilogue.bias.map_or(0.0, |b| b[first + c]);
                    let old = if epilogue.accumulate { *value } else { 0.0 };
                    *value = epilogue.tail.apply(epilogue.activation.apply(sum + bias), old, first + c, at + c);
                }
            }
        }
    }
}

crate::multiversion! {
    /// One row of the input's gradient of one image.
    fn input_row(g: &ConvGeometry, row: usize, dy: &[f32], w: &[f32], line: &mut [f32], add: bool) {
        let (vertical, horizontal, channels) = (Taps::vertical(g), Taps::horizontal(g), g.in_c);
        for (column, pixel) in line.chunks_exact_mut(channels).enumerate() {
            for (i, pixel) in pixel.chunks_mut(CHANNELS).enumerate() {
                let (first, len) = (i * CHANNELS, pixel.len());
                let mut sums = [0.0; CHANNELS];
                for ky in 0..vertical.kernel {
                    let Some(out_y) = vertical.output(row, ky) else { continue };
                    for kx in 0..horizontal.kernel {
                        let Some(out_x) = horizontal.output(column, kx) else { continue };
                        let w = &w[(ky * g.kernel.1 + kx) * channels + first..][..len];
                        multiply_add(&mut sums, w, &dy[(out_y * g.out_w + out_x) * channels + first..][..len]);
                    }
                }
                for (value, sum) in pixel.iter_mut().zip(sums) {
                    *value = if add { *value + sum } else { sum };
                }
            }
        }
    }
}

fn partials(g: &ConvGeometry, n: usize) -> usize {
    items(g, n).min(MAX_PARTIALS).min(n).max(1)
}

pub(super) fn weight_gradient_scratch(g: &ConvGeometry, max_n: usize) -> usize {
    partials(g, max_n) * g.weight_len()
}

/// dw from x and dy, written or added: a partial sum for each range of images.
#[allow(clippy::too_many_arguments)]
pub(super) fn weight_gradient(
    level: Level,
    g: &ConvGeometry,
    n: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    add: bool,
    scratch: &mut [f32],
) {
    let (parts, len) = (partials(g, n), g.weight_len());
    let sums = &mut scratch[..parts * len];
    let shared = Disjoint::new(sums);
    threads::for_each_item(parts, |part| {
        // SAFETY: every item has its own partial sum.
        let dw = unsafe { shared.slice(part * len..(part + 1) * len) };
        dw.fill(0.0);
        for image in threads::part(n, parts, part) {
            let x = &x[image * g.in_h * g.in_w * g.in_c..][..g.in_h * g.in_w * g.in_c];
            let dy = &dy[image * g.out_h * g.out_w * g.out_c..][..g.out_h * g.out_w * g.out_c];
            add_image(level, g, x, dy, dw);
        }
    });
    add_partials(level, sums, dw, add);
}

crate::multiversion! {
    /// dw ← dw + one image's part.
    fn add_image(g: &ConvGeometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let (vertical, horizontal, channels) = (Taps::vertical(g), Taps::horizontal(g), g.in_c);
        for (tap, dw) in dw.chunks_exact_mut(channels).enumerate() {
            let (ky, kx) = (tap / g.kernel.1, tap % g.kernel.1);
            for (i, dw) in dw.chunks_mut(CHANNELS).enumerate() {
                let (first, len) = (i * CHANNELS, dw.len());
                let mut sums = [0.0; CHANNELS];
                for out_y in 0..g.out_h {
                    let Some(in_y) = vertical.input(out_y, ky) else { continue };
                    for out_x in 0..g.out_w {
                        let Some(in_x) = horizontal.input(out_x, kx) else { continue };
                        let x = &x[(in_y * g.in_w + in_x) * channels + first..][..len];
                        multiply_add(&mut sums, x, &dy[(out_y * g.out_w + out_x) * channels + first..][..len]);
                    }
                }
                for (dw, sum) in dw.iter_mut().zip(sums) {
                    *dw += sum;
                }
            }
        }
    }
}
