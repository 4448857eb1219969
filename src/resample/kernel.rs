//! The loops: source rows mix to one line of floats, its columns mix to output pixels.
//!
//! Products and sums are separate operations in a fixed order, so every SIMD level gives the same bits. Floor: each
//! output row reads `taps` source rows as bytes (16 lanes of AVX-512 widen and mix in about three instructions), each
//! output pixel takes `taps` loads of four lanes and one store.

use super::Tone;
use super::axis::Taps;

/// Bytes from the first needed pixel of the first needed row on.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub pixels: &'a [u8],
    /// From row to row.
    pub stride: usize,
}

crate::multiversion! {
    /// As many output rows as `out` has room for.
    pub(super) fn rows(
        source: Source<'_>, vertical: Taps<'_>, horizontal: Taps<'_>, line: &mut [f32], tone: &Tone, out: &mut [f32],
    ) {
        let row_len = 3 * horizontal.first.len();
        let lanes = line.len() - 1;
        let count = out.len() / row_len;
        let weights = vertical.weights.chunks_exact(vertical.per_pixel);
        for (y, (&first, weights)) in vertical.first.iter().zip(weights).take(count).enumerate() {
            mix_rows(source, first as usize, weights, &mut line[..lanes]);
            let out = &mut out[y * row_len..];
            match horizontal.per_pixel {
                1 => mix_columns::<1>(line, horizontal, tone, out),
                2 => mix_columns::<2>(line, horizontal, tone, out),
                3 => mix_columns::<3>(line, horizontal, tone, out),
                4 => mix_columns::<4>(line, horizontal, tone, out),
                5 => mix_columns::<5>(line, horizontal, tone, out),
                6 => mix_columns::<6>(line, horizontal, tone, out),
                _ => mix_many_columns(line, horizontal, tone, out),
            }
        }
    }
}

/// line ← Σ weight·row, over the rows from `first` on.
#[inline(always)]
fn mix_rows(source: Source<'_>, first: usize, weights: &[f32], line: &mut [f32]) {
    let len = line.len();
    let row = |k: usize| &source.pixels[(first + k) * source.stride..][..len];
    let lift = |v: u8| f32::from(v);
    let mut k = match *weights {
        [a] => {
            let x = row(0);
            line.iter_mut().zip(x).for_each(|(to, &x)| *to = a * lift(x));
            1
        }
        [a, b, c] => {
            let (x, y, z) = (row(0), row(1), row(2));
            for (((to, &x), &y), &z) in line.iter_mut().zip(x).zip(y).zip(z) {
                *to = a * lift(x) + b * lift(y) + c * lift(z);
            }
            3
        }
        _ => {
            let ((a, b), (x, y)) = ((weights[0], weights[1]), (row(0), row(1)));
            line.iter_mut().zip(x).zip(y).for_each(|((to, &x), &y)| *to = a * lift(x) + b * lift(y));
            2
        }
    };
    while k < weights.len() {
        if let Some(&b) = weights.get(k + 1) {
            let (a, x, y) = (weights[k], row(k), row(k + 1));
            line.iter_mut().zip(x).zip(y).for_each(|((to, &x), &y)| *to = *to + a * lift(x) + b * lift(y));
        } else {
            let (a, x) = (weights[k], row(k));
            line.iter_mut().zip(x).for_each(|(to, &x)| *to += a * lift(x));
        }
        k += 2;
    }
}

/// out ← tone(Σ weight·pixel): each pixel is stored as four lanes, of which the next one overwrites the last.
#[inline(always)]
fn mix_columns<const TAPS: usize>(line: &[f32], taps: Taps<'_>, tone: &Tone, out: &mut [f32]) {
    let weights = taps.weights.as_chunks::<TAPS>().0;
    for (o, (&first, weights)) in taps.first.iter().zip(weights).enumerate() {
        let near = &line[3 * first as usize..][..3 * TAPS + 1];
        let mut sum = [0.0f32; 4];
        for (k, weight) in weights.iter().enumerate() {
            for c in 0..4 {
                sum[c] += weight * near[3 * k + c];
            }
        }
        store(sum, tone, out, o);
    }
}

#[inline(always)]
fn mix_many_columns(line: &[f32], taps: Taps<'_>, tone: &Tone, out: &mut [f32]) {
    let weights = taps.weights.chunks_exact(taps.per_pixel);
    for (o, (&first, weights)) in taps.first.iter().zip(weights).enumerate() {
        let mut near = &line[3 * first as usize..];
        let mut sum = [0.0f32; 4];
        for weight in weights {
            let (pixel, _) = near.split_first_chunk::<4>().unwrap_or((&[0.0; 4], &[]));
            for c in 0..4 {
                sum[c] += weight * pixel[c];
            }
            near = &near[3..];
        }
        store(sum, tone, out, o);
    }
}

#[inline(always)]
fn store(sum: [f32; 4], tone: &Tone, out: &mut [f32], o: usize) {
    let value: [f32; 4] = std::array::from_fn(|c| sum[c] * tone.scale[c] + tone.shift[c]);
    match out.get_mut(3 * o..3 * o + 4) {
        Some(to) => to.copy_from_slice(&value),
        // The last pixel of the last row has nothing behind it.
        None => out[3 * o..].copy_from_slice(&value[..3]),
    }
}
