//! The tile with AVX2 and FMA: 8 floats per vector; 12 sums, 2 columns, a broadcast and the mask fill the 16 registers.

use super::row::compute_row;
use super::{Tile, Vector, compute, compute_parts};
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
    unsafe fn spread<const PARTS: usize, const RUN: usize>(from: *const f32, step: usize) -> [Self; RUN] {
        // SAFETY: needs AVX; the caller has a float for each part of each vector.
        unsafe {
            let mut vectors = [_mm256_setzero_ps(); RUN];
            match (PARTS, RUN) {
                (2, 4) => {
                    let x = _mm256_loadu2_m128(from.add(step), from);
                    vectors[0] = _mm256_permute_ps::<0b00_00_00_00>(x);
                    vectors[1] = _mm256_permute_ps::<0b01_01_01_01>(x);
                    vectors[2] = _mm256_permute_ps::<0b10_10_10_10>(x);
                    vectors[3] = _mm256_permute_ps::<0b11_11_11_11>(x);
                }
                (4, 4) => {
                    let even = _mm256_loadu2_m128(from.add(2 * step), from);
                    let odd = _mm256_loadu2_m128(from.add(3 * step), from.add(step));
                    vectors[0] = _mm256_shuffle_ps::<0b00_00_00_00>(even, odd);
                    vectors[1] = _mm256_shuffle_ps::<0b01_01_01_01>(even, odd);
                    vectors[2] = _mm256_shuffle_ps::<0b10_10_10_10>(even, odd);
                    vectors[3] = _mm256_shuffle_ps::<0b11_11_11_11>(even, odd);
                }
                (2, 2) => {
                    let x = _mm256_set_m128(two(from.add(step)), two(from));
                    vectors[0] = _mm256_permute_ps::<0b00_00_00_00>(x);
                    vectors[1] = _mm256_permute_ps::<0b01_01_01_01>(x);
                }
                (4, 2) => {
                    let low = _mm_movelh_ps(two(from), two(from.add(step)));
                    let high = _mm_movelh_ps(two(from.add(2 * step)), two(from.add(3 * step)));
                    let x = _mm256_set_m128(high, low);
                    vectors[0] = _mm256_moveldup_ps(x);
                    vectors[1] = _mm256_movehdup_ps(x);
                }
                (1, _) => {
                    for k in 0..RUN {
                        vectors[k] = _mm256_set1_ps(*from.add(k));
                    }
                }
                (2, _) => {
                    for k in 0..RUN {
                        let (low, high) = (_mm_set1_ps(*from.add(k)), _mm_set1_ps(*from.add(k + step)));
                        vectors[k] = _mm256_set_m128(high, low);
                    }
                }
                _ => {
                    for k in 0..RUN {
                        let [a, b, c, d] = [0, 1, 2, 3].map(|part| *from.add(k + part * step));
                        vectors[k] = _mm256_setr_ps(a, a, b, b, c, c, d, d);
                    }
                }
            }
            vectors
        }
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

/// Two floats, and zeros behind.
///
/// # Safety
/// They are there; the machine has SSE2.
#[inline(always)]
unsafe fn two(from: *const f32) -> __m128 {
    // SAFETY: the caller's promise; the load asks for no alignment.
    unsafe { _mm_castpd_ps(_mm_load_sd(from.cast())) }
}

/// # Safety
/// As [`super::run`]; the machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run(vectors: usize, tile: &Tile) {
    // SAFETY: the caller's promise; each arm has at least `tile.rows` rows.
    unsafe {
        if tile.spread.parts > 1 {
            return compute_parts::<__m256>(tile);
        }
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
