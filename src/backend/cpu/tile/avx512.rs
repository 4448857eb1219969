//! The tile with AVX-512: 16 floats per vector; 24 sums, 3 columns and a broadcast in 32 registers.

use super::row::compute_row;
use super::{Tile, Vector, compute, compute_parts};
use std::arch::x86_64::*;

// SAFETY: AVX-512 F instructions, only reached through `run` of this module.
unsafe impl Vector for __m512 {
    const LANES: usize = 16;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __mmask16 {
        ((1u32 << lanes) - 1) as __mmask16
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: needs AVX-512 F.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn spread<const PARTS: usize, const RUN: usize>(from: *const f32, step: usize) -> [Self; RUN] {
        // SAFETY: needs AVX-512 F; the caller has a float for each part of each vector.
        unsafe {
            let mut vectors = [_mm512_setzero_ps(); RUN];
            for k in 0..RUN {
                vectors[k] = _mm512_set1_ps(*from.add(k));
                for part in 1..PARTS {
                    // All lanes from the part's first one on: later parts write over them.
                    let lanes = (u16::MAX << (part * 16 / PARTS)) as __mmask16;
                    vectors[k] = _mm512_mask_blend_ps(lanes, vectors[k], _mm512_set1_ps(*from.add(k + part * step)));
                }
            }
            vectors
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has sixteen floats there.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __mmask16) -> Self {
        // SAFETY: lanes outside the mask are not touched.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller owns sixteen floats there.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __mmask16) {
        // SAFETY: lanes outside the mask are not touched.
        unsafe { _mm512_mask_storeu_ps(to, mask, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: needs AVX-512 F.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: needs AVX-512 F.
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, factor: Self) -> Self {
        // SAFETY: needs AVX-512 F.
        unsafe { _mm512_mul_ps(self, factor) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: needs AVX-512 F.
        unsafe { _mm512_fmadd_ps(self, factor, sum) }
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: needs AVX-512 F. The second operand wins when one is NaN.
        unsafe { _mm512_max_ps(_mm512_setzero_ps(), self) }
    }

    #[inline(always)]
    unsafe fn leaky_relu(self, slope: Self) -> Self {
        // SAFETY: needs AVX-512 F.
        unsafe {
            let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, _mm512_setzero_ps());
            _mm512_mask_mul_ps(self, negative, slope, self)
        }
    }
}

/// # Safety
/// As [`super::run`]; the machine has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn run(vectors: usize, tile: &Tile) {
    // SAFETY: the caller's promise; each arm has at least `tile.rows` rows.
    unsafe {
        if tile.spread.parts > 1 {
            return compute_parts::<__m512>(tile);
        }
        match (vectors, tile.rows) {
            (1, 5..) => compute::<__m512, 8, 1>(tile),
            (1, 2..) => compute::<__m512, 4, 1>(tile),
            (1, _) => compute::<__m512, 1, 1>(tile),
            (2, 5..) => compute::<__m512, 8, 2>(tile),
            (2, 2..) => compute::<__m512, 4, 2>(tile),
            (2, _) => compute::<__m512, 1, 2>(tile),
            (_, 5..) => compute::<__m512, 8, 3>(tile),
            (_, 2..) => compute::<__m512, 4, 3>(tile),
            (_, _) => compute::<__m512, 1, 3>(tile),
        }
    }
}

/// # Safety
/// As [`super::row`]; the machine has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn row(x: &[f32], panels: &[*const f32], widths: &[usize], values: &mut [f32], add: bool) {
    // SAFETY: the caller's promise.
    unsafe { compute_row::<__m512>(x, panels, widths, values, add) }
}
