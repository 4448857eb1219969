//! The tile on any machine: four floats in an array, which compilers turn into one SSE2 or NEON register.

use super::row::compute_row;
use super::{Tile, Vector, compute, compute_parts};

#[derive(Clone, Copy)]
#[repr(align(16))]
pub(in crate::backend::cpu) struct Four([f32; 4]);

/// Whether the target's baseline has fused multiply-add (aarch64 has); a call of libm's `fma` would be far slower.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

// SAFETY: plain arithmetic on arrays; memory is touched for the promised lanes only.
unsafe impl Vector for Four {
    const LANES: usize = 4;
    type Mask = usize;

    #[inline(always)]
    unsafe fn mask(lanes: usize) -> usize {
        lanes
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Four([value; 4])
    }

    #[inline(always)]
    unsafe fn spread<const PARTS: usize, const RUN: usize>(from: *const f32, step: usize) -> [Self; RUN] {
        // SAFETY: the caller has a float for each part of each vector.
        std::array::from_fn(|k| Four(std::array::from_fn(|i| unsafe { *from.add(k + i / (4 / PARTS) * step) })))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has four floats there.
        Four(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: usize) -> Self {
        if mask == 4 {
            // SAFETY: all four lanes exist.
            return unsafe { Self::load(from) };
        }
        // SAFETY: only lanes that exist are read.
        Four(std::array::from_fn(|i| if i < mask { unsafe { *from.add(i) } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller owns four floats there.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: usize) {
        for (i, value) in self.0.into_iter().enumerate().take(mask) {
            // SAFETY: only lanes that exist are written.
            unsafe { *to.add(i) = value }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul(self, factor: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] * factor.0[i]))
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
        Four(std::array::from_fn(|i| {
            if FUSED { self.0[i].mul_add(factor.0[i], sum.0[i]) } else { self.0[i] * factor.0[i] + sum.0[i] }
        }))
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Four(self.0.map(|x| if x < 0.0 { 0.0 } else { x }))
    }

    #[inline(always)]
    unsafe fn leaky_relu(self, slope: Self) -> Self {
        Four(std::array::from_fn(|i| if self.0[i] < 0.0 { slope.0[i] * self.0[i] } else { self.0[i] }))
    }
}

/// # Safety
/// As [`super::run`].
pub(super) unsafe fn run(vectors: usize, tile: &Tile) {
    // SAFETY: the caller's promise; each arm has at least `tile.rows` rows.
    unsafe {
        if tile.spread.parts > 1 {
            return compute_parts::<Four>(tile);
        }
        match (vectors, tile.rows) {
            (1, 5..) => compute::<Four, 8, 1>(tile),
            (1, 2..) => compute::<Four, 4, 1>(tile),
            (1, _) => compute::<Four, 1, 1>(tile),
            (_, 4..) => compute::<Four, 6, 2>(tile),
            (_, 2..) => compute::<Four, 3, 2>(tile),
            (_, _) => compute::<Four, 1, 2>(tile),
        }
    }
}

/// # Safety
/// As [`super::row`].
pub(super) unsafe fn row(x: &[f32], panels: &[*const f32], widths: &[usize], values: &mut [f32], add: bool) {
    // SAFETY: the caller's promise.
    unsafe { compute_row::<Four>(x, panels, widths, values, add) }
}
