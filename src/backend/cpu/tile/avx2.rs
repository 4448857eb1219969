//! The tile with AVX2 and FMA: 8 floats per vector; 12 sums, 2 columns, a broadcast and the mask fill the 16 registers.

use super::{Tile, Vector, compute, compute_row};
use std::arch::x86_64::*;

// SAFETY: AVX, AVX2 and FMA instructions, only reached through `run` of this module.
unsafe impl Vector for __m256 {
    const LANES: usize = 8;
    type Mask = __m256i;

    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __m256i {
        // SAFETY: needs AVX2.
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: needs AVX.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has eight floats there.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __m256i) -> Self {
        // SAFETY: lanes outside the mask are not touched.
        unsafe { _mm256_maskload_ps(from, mask) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller owns eight floats there.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __m256i) {
        // SAFETY: lanes outside the mask are not touched.
        unsafe { _mm256_maskstore_ps(to, mask, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: needs AVX.
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: needs AVX.
        unsafe { _mm256_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, factor: Self) -> Self {
        // SAFETY: needs AVX.
        unsafe { _mm256_mul_ps(self, factor) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: needs FMA.
        unsafe { _mm256_fmadd_ps(self, factor, sum) }
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: needs AVX. The second operand wins when one is NaN.
        unsafe { _mm256_max_ps(_mm256_setzero_ps(), self) }
    }

    #[inline(always)]
    unsafe fn leaky_relu(self, slope: Self) -> Self {
        // SAFETY: needs AVX.
        unsafe {
            let negative = _mm256_cmp_ps::<_CMP_LT_OQ>(self, _mm256_setzero_ps());
            _mm256_blendv_ps(self, _mm256_mul_ps(slope, self), negative)
        }
    }
}

/// # Safety
/// As [`super::run`]; the machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run(vectors: usize, tile: &Tile) {
    // SAFETY: the caller's promise; each arm has at least `tile.rows` rows.
    unsafe {
        match (vectors, tile.rows) {
            (1, 5..) => compute::<__m256, 8, 1>(tile),
            (1, 2..) => compute::<__m256, 4, 1>(tile),
            (1, _) => compute::<__m256, 1, 1>(tile),
            (_, 4..) => compute::<__m256, 6, 2>(tile),
            (_, 2..) => compute::<__m256, 3, 2>(tile),
            (_, _) => compute::<__m256, 1, 2>(tile),
        }
    }
}

/// # Safety
/// As [`super::row`]; the machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row(x: &[f32], panels: &[*const f32], widths: &[usize], values: &mut [f32], add: bool) {
    // SAFETY: the caller's promise.
    unsafe { compute_row::<__m256>(x, panels, widths, values, add) }
}
