//! One row of a product: a vector times a matrix, for layers that see one pixel of one image.

// Indexed loops over constants are what the compiler unrolls completely, so that the sums become registers.
#![allow(clippy::needless_range_loop)]

use super::{Vector, lanes, load_row};
use crate::backend::cpu::simd::Level;

/// Vectors of columns whose sums [`row`] computes side by side: as many as a chain of multiply-adds takes to be ready
/// for the next, at two per cycle.
pub(in crate::backend::cpu) const ROW_VECTORS: usize = 8;

/// One row: `values[j] = Σ_k x[k]·B[k][j]`, or that added, the columns in up to [`ROW_VECTORS`] vectors that each have a panel of their
/// own, of `widths` floats per k. Sums as those of [`run`](super::run).
///
/// # Safety
/// Each panel has a vector at each k·width; the machine has the level.
pub(in crate::backend::cpu) unsafe fn row(
    level: Level,
    x: &[f32],
    panels: &[*const f32],
    widths: &[usize],
    values: &mut [f32],
    add: bool,
) {
    let (count, lanes) = (panels.len(), lanes(level));
    assert!(count == widths.len() && (1..=ROW_VECTORS).contains(&count));
    assert!(values.len() > (count - 1) * lanes && values.len() <= count * lanes);
    // SAFETY: the caller's promise, and what was just checked.
    unsafe {
        match level {
            Level::Portable => super::portable::row(x, panels, widths, values, add),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => super::avx2::row(x, panels, widths, values, add),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => super::avx512::row(x, panels, widths, values, add),
            #[cfg(not(target_arch = "x86_64"))]
            _ => super::portable::row(x, panels, widths, values, add),
        }
    }
}

/// [`row`] for any vector type.
///
/// # Safety
/// As [`row`].
#[inline(always)]
pub(super) unsafe fn compute_row<V: Vector>(
    x: &[f32],
    panels: &[*const f32],
    widths: &[usize],
    values: &mut [f32],
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match panels.len() {
            1 => row_of::<V, 1>(x, panels, widths, values, add),
            2 => row_of::<V, 2>(x, panels, widths, values, add),
            3 => row_of::<V, 3>(x, panels, widths, values, add),
            4 => row_of::<V, 4>(x, panels, widths, values, add),
            5 => row_of::<V, 5>(x, panels, widths, values, add),
            6 => row_of::<V, 6>(x, panels, widths, values, add),
            7 => row_of::<V, 7>(x, panels, widths, values, add),
            _ => row_of::<V, 8>(x, panels, widths, values, add),
        }
    }
}

/// # Safety
/// As [`row`]; there are `COUNT` panels.
#[inline(always)]
unsafe fn row_of<V: Vector, const COUNT: usize>(
    x: &[f32],
    panels: &[*const f32],
    widths: &[usize],
    values: &mut [f32],
    add: bool,
) {
    // SAFETY: panels are read at the k of x; `values` ends in the last vector, as the caller of `row` promised.
    unsafe {
        let mut b: [*const f32; COUNT] = std::array::from_fn(|v| panels[v]);
        let widths: [usize; COUNT] = std::array::from_fn(|v| widths[v]);
        let mut sums = [V::splat(0.0); COUNT];
        for &x in x {
            let x = V::splat(x);
            for v in 0..COUNT {
                sums[v] = x.multiply_add(V::load(b[v]), sums[v]);
                b[v] = b[v].wrapping_add(widths[v]);
            }
        }
        let (to, whole) = (values.as_mut_ptr(), (COUNT - 1) * V::LANES);
        let mask = V::mask(values.len() - whole);
        if add {
            let old = load_row::<V, COUNT>(to, mask);
            for v in 0..COUNT {
                sums[v] = sums[v].add(old[v]);
            }
        }
        for v in 0..COUNT - 1 {
            sums[v].store(to.add(v * V::LANES));
        }
        sums[COUNT - 1].store_masked(to.add(whole), mask);
    }
}
