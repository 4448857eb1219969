//! Element-wise passes over CPU threads: serial below [`GRAIN`], in fixed chunks above it.

use rayon::prelude::*;

use crate::backend::simd_level;
use crate::ops::Forward;

/// Elements per work item: some ten microseconds of memory traffic, and an item fits the L1 cache twice.
pub const GRAIN: usize = 16 * 1024;

crate::multiversion! {
    /// `y[i] = f(y[i])`.
    pub fn apply<F: Fn(f32) -> f32>(y: &mut [f32], f: F) {
        y.iter_mut().for_each(|y| *y = f(*y));
    }
}

crate::multiversion! {
    /// `y[i] = f(y[i], a[i])`: with a function that ignores its first argument, a map from `a`.
    pub fn combine<F: Fn(f32, f32) -> f32>(y: &mut [f32], a: &[f32], f: F) {
        y.iter_mut().zip(a).for_each(|(y, &a)| *y = f(*y, a));
    }
}

crate::multiversion! {
    /// `y[i] = f(y[i], a[i], b[i])`.
    pub fn combine2<F: Fn(f32, f32, f32) -> f32>(y: &mut [f32], a: &[f32], b: &[f32], f: F) {
        y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = f(*y, a, b));
    }
}

/// `y[i] = f(x[i])`, in place or not.
pub fn map(mut io: Forward<'_, f32>, f: impl Fn(f32) -> f32 + Sync) {
    let level = simd_level();
    let y = contiguous_mut(&mut io.y);
    if io.in_place {
        chunks_mut(y, |_, y| apply(level, y, &f));
    } else {
        let x = contiguous(&io.x[0]);
        chunks_mut(y, |start, y| combine(level, y, &x[start..], |_, x| f(x)));
    }
}

/// Calls `work(start, chunk)` for chunks of [`GRAIN`] elements, on all threads where there are several.
pub fn chunks_mut(values: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    rows_mut(values, GRAIN, GRAIN, work);
}

/// Calls `work(start, chunk)` for chunks of at most `rows` elements; serial where the work is below [`GRAIN`] elements,
/// `cost` standing for the elements that one chunk touches.
pub fn rows_mut(values: &mut [f32], rows: usize, cost: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = rows.max(1);
    let total = values.len().div_ceil(rows).saturating_mul(cost);
    if total <= 2 * GRAIN {
        values.chunks_mut(rows).enumerate().for_each(|(i, chunk)| work(i * rows, chunk));
    } else {
        let items = (GRAIN / cost.max(1)).max(1);
        values.par_chunks_mut(rows).enumerate().with_min_len(items).for_each(|(i, chunk)| work(i * rows, chunk));
    }
}

/// Calls `work(number, image)` for images of `len` elements, a single one without a hand-over.
pub fn images_mut(values: &mut [f32], len: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if values.len() <= len {
        work(0, values);
    } else {
        values.par_chunks_mut(len).enumerate().for_each(|(n, image)| work(n, image));
    }
}

/// The values of a contiguous view.
pub fn contiguous<'a, D: ndarray::Dimension, E>(view: &'a ndarray::ArrayView<'_, E, D>) -> &'a [E] {
    view.as_slice().expect("the plan's views are contiguous")
}

/// The values of a contiguous mutable view.
pub fn contiguous_mut<'a, D: ndarray::Dimension, E>(view: &'a mut ndarray::ArrayViewMut<'_, E, D>) -> &'a mut [E] {
    view.as_slice_mut().expect("the plan's views are contiguous")
}
