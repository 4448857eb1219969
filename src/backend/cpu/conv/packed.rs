//! Forward convolutions for inference: weights are prepared once, images come often.
//!
//! Which algorithm runs depends on the shape and the level alone, so that an image gives the same bits in any batch.

use super::axis::Direction;
use super::rows::RowProduct;
use super::taps::TapConvolution;
use super::winograd::Winograd;
use super::{ConvGeometry, Epilogue, depthwise};
use crate::backend::cpu::gemm::LinearGeometry;
use crate::backend::cpu::simd::Level;

/// A forward pass whose weights are prepared in advance.
///
/// ```
/// use handgrad::backend::cpu::{conv::{ConvGeometry, Epilogue, PackedConvolution}, simd::Level};
/// let geometry = ConvGeometry {
///     in_h: 1, in_w: 3, in_c: 1, out_h: 1, out_w: 2, out_c: 1,
///     kernel: (1, 2), stride: (1, 1), pad: (0, 0), dilation: (1, 1), groups: 1,
/// };
/// let conv = PackedConvolution::new(Level::best(), &geometry);
/// let (mut packed, mut scratch) = (vec![0.0; conv.packed_len()], vec![0.0; conv.scratch(1)]);
/// conv.pack(&[10.0, 1.0], &mut packed);
/// let mut y = [0.0; 2];
/// conv.run(1, &[1.0, 2.0, 3.0], &packed, &mut y, Epilogue::NONE, &mut scratch);
/// assert_eq!(y, [12.0, 23.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PackedConvolution {
    level: Level,
    geometry: ConvGeometry,
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Depthwise,
    Rows(RowProduct),
    Taps(TapConvolution),
    Winograd(Winograd),
}

impl PackedConvolution {
    /// The fastest way for this shape.
    pub fn new(level: Level, geometry: &ConvGeometry) -> Self {
        let algorithm = if geometry.is_depthwise() {
            Algorithm::Depthwise
        } else if let Some(winograd) = Winograd::prepared(level, geometry) {
            Algorithm::Winograd(winograd)
        } else {
            Algorithm::Taps(TapConvolution::new(level, geometry, Direction::Forward))
        };
        PackedConvolution { level, geometry: *geometry, algorithm }
    }

    /// A linear layer, whose epilogue may not accumulate.
    pub fn linear(level: Level, geometry: &LinearGeometry) -> Self {
        let algorithm = Algorithm::Rows(RowProduct::new(level, geometry));
        PackedConvolution { level, geometry: geometry.as_convolution(), algorithm }
    }

    /// Floats of the prepared weights.
    pub fn packed_len(&self) -> usize {
        match &self.algorithm {
            Algorithm::Depthwise => self.geometry.weight_len(),
            Algorithm::Rows(rows) => rows.packed_len(),
            Algorithm::Taps(taps) => taps.packed_len(),
            Algorithm::Winograd(winograd) => winograd.kernels_len(),
        }
    }

    /// Prepares weights `[kh][kw][in_c/groups][out_c]`. Panics where a length is another.
    pub fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        assert_eq!((weights.len(), packed.len()), (self.geometry.weight_len(), self.packed_len()));
        match &self.algorithm {
            Algorithm::Depthwise => packed.copy_from_slice(weights),
            Algorithm::Rows(rows) => rows.pack(weights, packed),
            Algorithm::Taps(taps) => taps.pack_all(weights, packed),
            Algorithm::Winograd(winograd) => {
                winograd.transform_all_weights(weights, packed, &mut vec![0.0; winograd.blocks_len()]);
            }
        }
    }

    /// Scratch floats that [`PackedConvolution::run`] needs for any n up to `max_n`.
    pub fn scratch(&self, max_n: usize) -> usize {
        match &self.algorithm {
            Algorithm::Depthwise => 0,
            Algorithm::Rows(rows) => rows.scratch(max_n),
            Algorithm::Taps(taps) => taps.packed_scratch(max_n),
            Algorithm::Winograd(winograd) => winograd.prepared_scratch(max_n),
        }
    }

    /// What the epilogue makes of x ∗ w: x `[n,in_h,in_w,in_c]`, y `[n,out_h,out_w,out_c]`. Panics where a length does
    /// not fit.
    pub fn run(&self, n: usize, x: &[f32], packed: &[f32], y: &mut [f32], epilogue: Epilogue, scratch: &mut [f32]) {
        let (level, geometry) = (self.level, &self.geometry);
        geometry.check(level, n, x.len(), geometry.weight_len(), y.len());
        epilogue.check(geometry.out_c, y.len());
        match &self.algorithm {
            Algorithm::Depthwise => depthwise::forward(level, geometry, n, x, packed, y, epilogue),
            Algorithm::Rows(rows) => rows.run(n, x, packed, y, epilogue, scratch),
            Algorithm::Taps(taps) => taps.run_packed(n, x, packed, y, epilogue, scratch),
            Algorithm::Winograd(winograd) => winograd.run_prepared(n, x, packed, y, epilogue, scratch),
        }
    }
}
