//! The kernels of convolutions, as `cuda/conv*.cu` and `cuda/sums.cu` have them.

use crate::backend::cuda::{Ptr, kernels};

/// What the kernels take by value. Maps are NHWC, weights `[kh][kw][c / groups][q]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ConvShape {
    pub n: i32,
    pub h: i32,
    pub w: i32,
    /// Input channels.
    pub c: i32,
    pub oh: i32,
    pub ow: i32,
    /// Output channels.
    pub q: i32,
    pub kh: i32,
    pub kw: i32,
    pub sh: i32,
    pub sw: i32,
    pub ph: i32,
    pub pw: i32,
    pub dh: i32,
    pub dw: i32,
    pub groups: i32,
}

/// Tiles of a product: y.
pub mod forward {
    use super::*;
    kernels! { "conv":
    /// y in tiles of 128x128; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/128⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 256.
    pub(in crate::ops) fn conv_forward_128x128(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 128x64; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/64⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_forward_128x64(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 128x32; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/32⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_forward_128x32(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 64x32; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/64⌉·⌈q/groups/32⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_forward_64x32(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 128x64, channels of any number; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/64⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_forward_any_128x64(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 128x32, channels of any number; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/32⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_forward_any_128x32(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    }
}

/// Tiles of a product: dx and dw.
pub mod backward {
    use super::*;
    kernels! { "conv_backward":
    /// dx in tiles of 128x128, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/128⌉·⌈c/groups/128⌉, 1, groups·parts); block 256.
    pub(in crate::ops) fn conv_dx_128x128(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dx in tiles of 128x64, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/128⌉·⌈c/groups/64⌉, 1, groups·parts); block 128.
    pub(in crate::ops) fn conv_dx_128x64(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dx in tiles of 128x32, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/128⌉·⌈c/groups/32⌉, 1, groups·parts); block 128.
    pub(in crate::ops) fn conv_dx_128x32(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dx in tiles of 64x32, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/64⌉·⌈c/groups/32⌉, 1, groups·parts); block 128.
    pub(in crate::ops) fn conv_dx_64x32(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dx in tiles of 128x32, channels of any number, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/128⌉·⌈c/groups/32⌉, 1, groups·parts); block 128.
    pub(in crate::ops) fn conv_dx_any_128x32(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dw in tiles of 128x128, written or added.
    /// Grid (⌈kh·kw·c/groups/128⌉·⌈q/groups/128⌉, 1, groups·⌈n·oh·ow/p_part⌉); block 256.
    pub(in crate::ops) fn conv_dw_128x128(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    /// dw in tiles of 128x64, written or added.
    /// Grid (⌈kh·kw·c/groups/128⌉·⌈q/groups/64⌉, 1, groups·⌈n·oh·ow/p_part⌉); block 128.
    pub(in crate::ops) fn conv_dw_128x64(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    /// dw in tiles of 32x64, written or added.
    /// Grid (⌈kh·kw·c/groups/32⌉·⌈q/groups/64⌉, 1, groups·⌈n·oh·ow/p_part⌉); block 128.
    pub(in crate::ops) fn conv_dw_32x64(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    /// dw in tiles of 32x64, channels of any number, written or added.
    /// Grid (⌈kh·kw·c/groups/32⌉·⌈q/groups/64⌉, 1, groups·⌈n·oh·ow/p_part⌉); block 128.
    pub(in crate::ops) fn conv_dw_any_32x64(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    }
}

/// Tiles of a product on tensor cores: y, dx and dw.
pub mod tf32 {
    use super::*;
    kernels! { "conv_tf32":
    /// y in tiles of 128x128, operands in tf32; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/128⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 256.
    pub(in crate::ops) fn conv_tf32_forward_128x128(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 128x64, operands in tf32; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/64⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_tf32_forward_128x64(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 128x32, operands in tf32; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/128⌉·⌈q/groups/32⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_tf32_forward_128x32(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// y in tiles of 64x32, operands in tf32; in parts of `k_part` terms.
    /// Grid (⌈n·oh·ow/64⌉·⌈q/groups/32⌉, 1, groups·⌈kh·kw·c/groups/k_part⌉); block 128.
    pub(in crate::ops) fn conv_tf32_forward_64x32(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape, k_part: i32);
    /// dx in tiles of 128x128, operands in tf32, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/128⌉·⌈c/groups/128⌉, 1, groups·parts); block 256.
    pub(in crate::ops) fn conv_tf32_dx_128x128(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dx in tiles of 128x64, operands in tf32, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/128⌉·⌈c/groups/64⌉, 1, groups·parts); block 128.
    pub(in crate::ops) fn conv_tf32_dx_128x64(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dx in tiles of 128x32, operands in tf32, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/128⌉·⌈c/groups/32⌉, 1, groups·parts); block 128.
    pub(in crate::ops) fn conv_tf32_dx_128x32(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dx in tiles of 64x32, operands in tf32, written or added.
    /// Grid (min(sh, h)·min(sw, w)·⌈n·⌈h/sh⌉·⌈w/sw⌉/64⌉·⌈c/groups/32⌉, 1, groups·parts); block 128.
    pub(in crate::ops) fn conv_tf32_dx_64x32(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, k_part: i32, add: i32);
    /// dw in tiles of 128x128, operands in tf32, written or added.
    /// Grid (⌈kh·kw·c/groups/128⌉·⌈q/groups/128⌉, 1, groups·⌈n·oh·ow/p_part⌉); block 256.
    pub(in crate::ops) fn conv_tf32_dw_128x128(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    /// dw in tiles of 128x64, operands in tf32, written or added.
    /// Grid (⌈kh·kw·c/groups/128⌉·⌈q/groups/64⌉, 1, groups·⌈n·oh·ow/p_part⌉); block 128.
    pub(in crate::ops) fn conv_tf32_dw_128x64(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    /// dw in tiles of 64x32, operands in tf32, written or added.
    /// Grid (⌈kh·kw·c/groups/64⌉·⌈q/groups/32⌉, 1, groups·⌈n·oh·ow/p_part⌉); block 128.
    pub(in crate::ops) fn conv_tf32_dw_64x32(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    }
}

/// Groups of a few channels.
pub mod direct {
    use super::*;
    kernels! { "conv_direct":
    /// y: a group per channel.
    /// Grid ⌈q/4·⌈n·oh·ow/4⌉/128⌉; block 128.
    pub(in crate::ops) fn conv_forward_depthwise(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape);
    /// dx: a group per channel.
    /// Grid min(sh, h)·min(sw, w)·⌈c/4·⌈n·⌈h/sh⌉·⌈w/sw⌉/4⌉/128⌉; block 128.
    pub(in crate::ops) fn conv_dx_depthwise(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, add: i32);
    /// dw: a group per channel; in parts of `p_part` pixels.
    /// Grid (⌈q/4/32⌉, ⌈kh·kw/9⌉, ⌈n·oh·ow/p_part⌉); block (32, 8).
    pub(in crate::ops) fn conv_dw_depthwise(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    /// y: small groups in fours.
    /// Grid ⌈q/4·⌈n·oh·ow/4⌉/128⌉; block 128.
    pub(in crate::ops) fn conv_forward_direct(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape);
    /// dx: small groups in fours.
    /// Grid min(sh, h)·min(sw, w)·⌈c/4·⌈n·⌈h/sh⌉·⌈w/sw⌉/4⌉/128⌉; block 128.
    pub(in crate::ops) fn conv_dx_direct(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, add: i32);
    /// dw: small groups in fours; in parts of `p_part` pixels.
    /// Grid (⌈c/groups/4·q/4/32⌉, ⌈kh·kw/3⌉, ⌈n·oh·ow/p_part⌉); block (32, 8).
    pub(in crate::ops) fn conv_dw_direct(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    /// y: small groups.
    /// Grid ⌈q·⌈n·oh·ow/4⌉/128⌉; block 128.
    pub(in crate::ops) fn conv_forward_direct_any(x: Ptr, w: Ptr, bias: Ptr, y: Ptr, shape: ConvShape);
    /// dx: small groups.
    /// Grid min(sh, h)·min(sw, w)·⌈c·⌈n·⌈h/sh⌉·⌈w/sw⌉/4⌉/128⌉; block 128.
    pub(in crate::ops) fn conv_dx_direct_any(dy: Ptr, w: Ptr, dx: Ptr, shape: ConvShape, add: i32);
    /// dw: small groups; in parts of `p_part` pixels.
    /// Grid (⌈c/groups·q/32⌉, ⌈kh·kw/9⌉, ⌈n·oh·ow/p_part⌉); block (32, 8).
    pub(in crate::ops) fn conv_dw_direct_any(x: Ptr, dy: Ptr, dw: Ptr, shape: ConvShape, p_part: i32, add: i32);
    }
}

/// Sums of columns and of parts.
pub mod sums {
    use super::*;
    kernels! { "sums":
    /// out\[j\] = Σ of column j of x, `rows × columns`, in parts of `rows_part` rows.
    /// Grid (⌈columns/X⌉, ⌈rows/rows_part⌉); block (X, 256/X), X a power of two, 32 at most.
    pub(in crate::ops) fn column_sums(x: Ptr, out: Ptr, rows: i32, columns: i32, rows_part: i32, add: i32);
    /// out\[i\] = Σ over `count` parts of `length` numbers each, plus the bias of `columns` where there is one, written or added.
    /// Grid ⌈length/256⌉; block 256.
    pub(in crate::ops) fn sum_parts(parts: Ptr, bias: Ptr, out: Ptr, length: i32, count: i32, columns: i32, add: i32);
    }
}
