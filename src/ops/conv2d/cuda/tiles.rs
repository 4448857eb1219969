//! The tiles that a product may run on, and what each makes of a multiprocessor by what its inner loop does: no GPU has
//! measured it.

use super::choose::Tile;
use super::declared::{ConvShape, backward, forward, tf32};
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{Gpu, Launch, Ptr};

pub type ForwardTile = fn(&Gpu, Launch, Ptr, Ptr, Ptr, Ptr, ConvShape, i32) -> Result<()>;
pub type GradientTile = fn(&Gpu, Launch, Ptr, Ptr, Ptr, ConvShape, i32, i32) -> Result<()>;

const fn tile<K>(kernel: K, [rows, columns, threads, resident, rate]: [u64; 5]) -> Tile<K> {
    Tile { kernel, rows, columns, threads, resident, rate }
}

pub const FORWARD: [Tile<ForwardTile>; 4] = [
    tile(forward::conv_forward_128x128, [128, 128, 256, 2, 80]),
    tile(forward::conv_forward_128x64, [128, 64, 128, 4, 78]),
    tile(forward::conv_forward_128x32, [128, 32, 128, 4, 68]),
    tile(forward::conv_forward_64x32, [64, 32, 128, 6, 50]),
];
pub const FORWARD_ANY: [Tile<ForwardTile>; 2] = [
    tile(forward::conv_forward_any_128x64, [128, 64, 128, 3, 70]),
    tile(forward::conv_forward_any_128x32, [128, 32, 128, 4, 55]),
];
pub const DX: [Tile<GradientTile>; 4] = [
    tile(backward::conv_dx_128x128, [128, 128, 256, 2, 80]),
    tile(backward::conv_dx_128x64, [128, 64, 128, 4, 78]),
    tile(backward::conv_dx_128x32, [128, 32, 128, 4, 68]),
    tile(backward::conv_dx_64x32, [64, 32, 128, 6, 50]),
];
pub const DX_ANY: [Tile<GradientTile>; 1] = [tile(backward::conv_dx_any_128x32, [128, 32, 128, 4, 55])];
pub const DW: [Tile<GradientTile>; 3] = [
    tile(backward::conv_dw_128x128, [128, 128, 256, 2, 82]),
    tile(backward::conv_dw_128x64, [128, 64, 128, 4, 80]),
    tile(backward::conv_dw_32x64, [32, 64, 128, 8, 50]),
];
pub const DW_ANY: [Tile<GradientTile>; 1] = [tile(backward::conv_dw_any_32x64, [32, 64, 128, 8, 45])];

// Tensor cores of compute capability 8.0 multiply tf32 at four times the rate of f32, later ones at more. A warp's share of a
// large tile takes three loads from shared memory for two of their instructions, that of the smallest one three for one.
pub const TF32_FORWARD: [Tile<ForwardTile>; 4] = [
    tile(tf32::conv_tf32_forward_128x128, [128, 128, 256, 2, 280]),
    tile(tf32::conv_tf32_forward_128x64, [128, 64, 128, 3, 260]),
    tile(tf32::conv_tf32_forward_128x32, [128, 32, 128, 4, 200]),
    tile(tf32::conv_tf32_forward_64x32, [64, 32, 128, 6, 130]),
];
pub const TF32_DX: [Tile<GradientTile>; 4] = [
    tile(tf32::conv_tf32_dx_128x128, [128, 128, 256, 2, 280]),
    tile(tf32::conv_tf32_dx_128x64, [128, 64, 128, 3, 260]),
    tile(tf32::conv_tf32_dx_128x32, [128, 32, 128, 4, 200]),
    tile(tf32::conv_tf32_dx_64x32, [64, 32, 128, 6, 130]),
];
pub const TF32_DW: [Tile<GradientTile>; 3] = [
    tile(tf32::conv_tf32_dw_128x128, [128, 128, 256, 2, 280]),
    tile(tf32::conv_tf32_dw_128x64, [128, 64, 128, 3, 260]),
    tile(tf32::conv_tf32_dw_64x32, [64, 32, 128, 6, 130]),
];

/// Those of a pass for a precision, where channels go in fours or come in any number.
pub struct Kinds<K: 'static> {
    pub fours: &'static [Tile<K>],
    pub tf32: &'static [Tile<K>],
    pub any: &'static [Tile<K>],
}

pub const OF_FORWARD: Kinds<ForwardTile> = Kinds { fours: &FORWARD, tf32: &TF32_FORWARD, any: &FORWARD_ANY };
pub const OF_DX: Kinds<GradientTile> = Kinds { fours: &DX, tf32: &TF32_DX, any: &DX_ANY };
pub const OF_DW: Kinds<GradientTile> = Kinds { fours: &DW, tf32: &TF32_DW, any: &DW_ANY };

impl<K> Kinds<K> {
    /// Tensor cores take channels in fours alone: others are those of a first layer, which are too few to pay, and of a last.
    pub fn of(&self, quads: bool, precision: Precision) -> &'static [Tile<K>] {
        match (quads, precision) {
            (true, Precision::Tf32) => self.tf32,
            (true, _) => self.fours,
            (false, _) => self.any,
        }
    }
}
