//! Floor: the convolution with 3·channels outputs at the rate of multiply-adds; besides, forward writes and reads the
//! three maps once, backward reads two of them and dy, and writes three gradients, once.

use super::{Coordinates, Twist, TwistGradient};
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{Backward, Forward, Kernel, Parts, Ptr, int, kernels, per_one};
use crate::graph::Shape;
use crate::ops::batch_norm::cuda::Tiling;
use crate::ops::conv2d::cuda::Convolution;

kernels! { "twist":
    /// W, the projected Wx and Wy side by side, from W and Wx.
    /// Grid ⌈9·cin·width/256⌉, at most 65535; block 256.
    fn twist_weights(w: Ptr, wx: Ptr, all: Ptr, cin: i32, width: i32);
    /// y = a + m·(X·b + Y·c).
    /// Grid (⌈pixels/chunk⌉, ⌈width/64⌉), or ⌈width/256⌉ where width is a multiple of 4; block 256.
    fn twist_combine(maps: Ptr, radii: Ptr, cx: Ptr, cy: Ptr, y: Ptr, pixels: i32, h: i32, w: i32, width: i32, begin: f32, chunk: i32);
    /// The gradients of a, b and c, and each block's sums for those of R, cx and cy.
    /// Grid (⌈pixels/chunk⌉, ⌈width/64⌉), or ⌈width/256⌉ where width is a multiple of 4; block 256.
    fn twist_spread(maps: Ptr, dy: Ptr, radii: Ptr, cx: Ptr, cy: Ptr, dmaps: Ptr, partial: Ptr, pixels: i32, h: i32, w: i32, width: i32, begin: f32, chunk: i32);
    /// Adds the blocks up to the gradients of R, cx and cy, each null where nobody reads it, written or added.
    /// Grid ⌈width/32⌉; block (32, 8).
    fn twist_places(partial: Ptr, radii: Ptr, dradii: Ptr, add_dradii: i32, dcx: Ptr, add_dcx: i32, dcy: Ptr, add_dcy: i32, blocks: i32, width: i32);
    /// The gradients of W, Wx and Wy, each null where nobody reads it, from that of all three side by side.
    /// Grid ⌈9·cin·width/256⌉, at most 65535; block 256.
    fn twist_kernels(dall: Ptr, dw: Ptr, add_dw: i32, dwx: Ptr, add_dwx: i32, dwy: Ptr, add_dwy: i32, cin: i32, width: i32, tied: i32);
}

/// A layer and `n` images.
struct Pass {
    cin: usize,
    output: Shape,
    n: usize,
    /// The three convolutions as one.
    conv: Convolution,
}

/// Where forward has what, the convolution's own working memory behind it.
struct ForwardRoom {
    weights: Ptr,
    maps: Ptr,
}

/// Where backward has what, the convolution's own working memory behind it.
struct BackwardRoom {
    weights: Ptr,
    dweights: Ptr,
    dmaps: Ptr,
    /// Sums of blocks.
    partial: Ptr,
}

impl Pass {
    fn new(op: &Twist, (input, output): (Shape, Shape), n: usize, precision: Precision) -> Self {
        let maps = Shape::new(output.h, output.w, 3 * output.c);
        Pass { cin: input.c, output, n, conv: Convolution::new(&op.window(), 1, (input, maps), n, precision) }
    }

    /// Weights of one of the three kernels.
    fn kernel(&self) -> usize {
        9 * self.cin * self.output.c
    }

    fn maps(&self) -> usize {
        3 * self.n * self.output.len()
    }

    /// `saved`: the maps' place, where they are saved.
    fn forward_room(&self, parts: &mut Parts, saved: Option<Ptr>) -> ForwardRoom {
        ForwardRoom {
            weights: parts.take(3 * self.kernel()),
            maps: saved.unwrap_or_else(|| parts.take(self.maps())),
        }
    }

    fn backward_room(&self, parts: &mut Parts) -> BackwardRoom {
        let pixels = self.n * self.output.h * self.output.w;
        BackwardRoom {
            weights: parts.take(3 * self.kernel()),
            dweights: parts.take(3 * self.kernel()),
            dmaps: parts.take(self.maps()),
            partial: parts.take(3 * self.output.c * Tiling::most_blocks(pixels, self.output.c)),
        }
    }
}

impl Twist {
    /// What is subtracted from both coordinates.
    fn begin(&self) -> f32 {
        if self.coordinates == Coordinates::Centred { 1.0 } else { 0.0 }
    }
}

impl Kernel for Twist {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize, precision: Precision) -> usize {
        let pass = Pass::new(self, (inputs[0], output), n, precision);
        let (mut forward, mut backward) = (Parts::of(Ptr::NULL), Parts::of(Ptr::NULL));
        pass.forward_room(&mut forward, None);
        pass.backward_room(&mut backward);
        forward.len().max(backward.len()) + pass.conv.scratch()
    }

    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let pass = Pass::new(self, (io.inputs[0], io.output), io.n, io.precision);
        let mut parts = Parts::of(io.scratch);
        let ForwardRoom { weights, maps } = pass.forward_room(&mut parts, io.saved.first().copied());
        let (kernel, kernel_x) = (io.params[0], io.params[1]);
        let [radii, cx, cy] = [io.params[3], io.params[4], io.params[5]];
        let [cin, width] = [pass.cin, self.channels].map(int);
        twist_weights(io.gpu, per_one(pass.kernel()), kernel, kernel_x, weights, cin, width)?;
        pass.conv.forward(io.gpu, [io.x[0], weights, Ptr::NULL, maps], parts.rest())?;

        let Tiling { pixels, chunk, tiles, .. } = Tiling::of(io.output, io.n);
        let [pixels, h, w, chunk] = [pixels, io.output.h, io.output.w, chunk].map(int);
        twist_combine(io.gpu, tiles, maps, radii, cx, cy, io.y, pixels, h, w, width, self.begin(), chunk)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let pass = Pass::new(self, (io.inputs[0], io.output), io.n, io.precision);
        let mut parts = Parts::of(io.scratch);
        let BackwardRoom { weights, dweights, dmaps, partial } = pass.backward_room(&mut parts);
        let [radii, cx, cy] = [io.params[3], io.params[4], io.params[5]];
        let [dkernel, dkernel_x, dkernel_y, dradii, dcx, dcy] = [0, 1, 2, 3, 4, 5].map(|i| io.dparams[i]);
        let [cin, width] = [pass.cin, self.channels].map(int);

        let Tiling { pixels, chunk, tiles, finish, .. } = Tiling::of(io.output, io.n);
        let [pixels, h, w, chunk] = [pixels, io.output.h, io.output.w, chunk].map(int);
        // As many sums as there are blocks along the pixels.
        let blocks = int(tiles.grid[0] as usize);
        let (maps, begin) = (io.saved[0], self.begin());
        twist_spread(io.gpu, tiles, maps, io.dy, radii, cx, cy, dmaps, partial, pixels, h, w, width, begin, chunk)?;
        twist_places(
            io.gpu,
            finish,
            partial,
            radii,
            dradii.wanted(),
            i32::from(dradii.add),
            dcx.wanted(),
            i32::from(dcx.add),
            dcy.wanted(),
            i32::from(dcy.add),
            blocks,
            width,
        )?;

        if dkernel.needed || dkernel_x.needed || dkernel_y.needed {
            pass.conv.weight_gradient(io.gpu, [io.x[0], dmaps, dweights], false, parts.rest())?;
            twist_kernels(
                io.gpu,
                per_one(pass.kernel()),
                dweights,
                dkernel.wanted(),
                i32::from(dkernel.add),
                dkernel_x.wanted(),
                i32::from(dkernel_x.add),
                dkernel_y.wanted(),
                i32::from(dkernel_y.add),
                cin,
                width,
                i32::from(self.gradient == TwistGradient::Tied),
            )?;
        }
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        twist_weights(io.gpu, per_one(pass.kernel()), io.params[0], io.params[1], weights, cin, width)?;
        pass.conv.input_gradient(io.gpu, [dmaps, weights, dx], add, parts.rest())
    }
}
