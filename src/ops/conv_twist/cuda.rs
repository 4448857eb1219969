//! Floor: each application's convolution at the rate of multiply-adds; besides, forward writes and reads its three maps
//! once, backward reads the upstream gradient and writes three.

use super::{ConvTwist, GroupOrder, Twisting};
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{
    Backward, Forward, Gpu, Kernel, Launch, Parts, Ptr, blocks, int, kernels, per_four, per_one,
};
use crate::graph::Shape;
use crate::ops::TwistGradient;
use crate::ops::conv2d::cuda::Convolution;
use crate::ops::flatten::cuda::copy;

kernels! { "conv_twist":
    /// All kernels of a layer without a twist, each in the block of the input group that it reads.
    /// Grid ⌈9·cin·width/256⌉, at most 65535; block 256.
    fn conv_twist_plain_weights(w: Ptr, all: Ptr, groups: Groups);
    /// Those of Sobel's twist.
    /// Grid ⌈9·cin·width/256⌉, at most 65535; block 256.
    fn conv_twist_sobel_weights(w: Ptr, ax: Ptr, ay: Ptr, all: Ptr, groups: Groups);
    /// Those of the free twist.
    /// Grid ⌈9·cin·width/256⌉, at most 65535; block 256.
    fn conv_twist_free_weights(w: Ptr, wx: Ptr, wy: Ptr, cx: Ptr, cy: Ptr, all: Ptr, groups: Groups);
    /// y = share·(a + X·b + Y·c), or that added; z = x + y where it is not null.
    /// Grid ⌈V/256⌉, at most 65535, for V values of y, or V/4 where a group's channels are a multiple of 4; block 256.
    fn conv_twist_combine(maps: Ptr, y: Ptr, x: Ptr, z: Ptr, images: i32, h: i32, w: i32, share: f32, add: i32, groups: Groups);
    /// The gradients of a, b and c: share·(d, X·d, Y·d).
    /// Grid ⌈V/256⌉, at most 65535, for V values of d, or V/4 where a group's channels are a multiple of 4; block 256.
    fn conv_twist_spread(d: Ptr, dmaps: Ptr, images: i32, h: i32, w: i32, share: f32, groups: Groups);
    /// dx = e − dy, or that added.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn conv_twist_difference(e: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32);
    /// The gradient of W, written or added, from that of all kernels.
    /// Grid ⌈9·cin·width/256⌉, at most 65535; block 256.
    fn conv_twist_plain_gradient(dall: Ptr, dw: Ptr, add: i32, groups: Groups);
    /// Those of Ax and Ay, each null where nobody reads it.
    /// Grid ⌈cin·width/256⌉, at most 65535; block 256.
    fn conv_twist_sobel_gradient(dall: Ptr, dax: Ptr, add_dax: i32, day: Ptr, add_day: i32, groups: Groups);
    /// That of Wx, `kind` being 1 and `shift` cx, or of Wy, `kind` being 2 and `shift` cy.
    /// Grid ⌈9·cin·width/256⌉, at most 65535; block 256.
    fn conv_twist_free_gradient(dall: Ptr, shift: Ptr, dkernel: Ptr, kind: i32, tied: i32, add: i32, groups: Groups);
    /// That of the shift which belongs to `kernel`: of cx to Wx, of cy to Wy.
    /// Grid ⌈width/32⌉; block (32, 8).
    fn conv_twist_shift_gradient(dall: Ptr, kernel: Ptr, dshift: Ptr, add: i32, groups: Groups);
}

/// The shape of a layer, as kernels take it by value.
#[derive(Clone, Copy)]
#[repr(C)]
struct Groups {
    width: i32,
    groups: i32,
    order: i32,
    kinds: i32,
    /// Of a group.
    cin: i32,
}

/// A layer and `n` images.
struct Pass<'a> {
    op: &'a ConvTwist,
    input: Shape,
    output: Shape,
    n: usize,
    iterations: usize,
    /// The convolutions as one.
    conv: Convolution,
    groups: Groups,
}

/// Where forward has what, the convolution's own working memory behind it.
struct ForwardRoom {
    weights: Ptr,
    maps: Ptr,
    /// The one z that there is at a time, where none is saved.
    z: Ptr,
}

/// Where backward has what, the convolution's own working memory behind it.
struct BackwardRoom {
    weights: Ptr,
    dweights: Ptr,
    dmaps: Ptr,
    e: Ptr,
}

impl<'a> Pass<'a> {
    fn new(op: &'a ConvTwist, (input, output): (Shape, Shape), n: usize, precision: Precision) -> Self {
        let maps = Shape::new(output.h, output.w, op.kinds() * output.c);
        let order = match op.order {
            GroupOrder::Straight => 0,
            GroupOrder::Rotated => 1,
            GroupOrder::CyclesOfFour => 2,
        };
        let [width, groups, kinds, cin] = [op.channels, op.groups, op.kinds(), input.c / op.groups].map(int);
        Pass {
            op,
            input,
            output,
            n,
            iterations: op.iterations(input),
            conv: Convolution::new(&op.conv().window, op.groups, (input, maps), n, precision),
            groups: Groups { width, groups, order, kinds, cin },
        }
    }

    /// Weights of one kernel of every output channel.
    fn kernel(&self) -> usize {
        9 * self.input.c / self.op.groups * self.op.channels
    }

    /// Elements of all images.
    fn inputs(&self) -> usize {
        self.n * self.input.len()
    }

    fn maps(&self) -> usize {
        self.n * self.op.kinds() * self.output.len()
    }

    /// Elements of a tensor that only iterations need.
    fn iterated(&self) -> usize {
        if self.iterations > 1 { self.inputs() } else { 0 }
    }

    fn forward_room(&self, parts: &mut Parts, saves: bool) -> ForwardRoom {
        ForwardRoom {
            weights: parts.take(self.op.kinds() * self.kernel()),
            maps: parts.take(self.maps()),
            z: parts.take(if saves { 0 } else { self.iterated() }),
        }
    }

    fn backward_room(&self, parts: &mut Parts) -> BackwardRoom {
        BackwardRoom {
            weights: parts.take(self.op.kinds() * self.kernel()),
            dweights: parts.take(self.op.kinds() * self.kernel()),
            dmaps: parts.take(self.maps()),
            e: parts.take(self.iterated()),
        }
    }

    /// The launch of a kernel for all values of an output.
    fn per_value(&self) -> Launch {
        let each = if (self.op.channels / self.op.groups).is_multiple_of(4) { 4 } else { 1 };
        per_one(self.n * self.output.len() / each)
    }

    /// What each application of T is multiplied with.
    fn share(&self) -> f32 {
        1.0 / self.iterations as f32
    }

    /// Writes all kernels.
    fn gather(&self, gpu: &Gpu, params: &[Ptr], weights: Ptr) -> Result<()> {
        let launch = per_one(self.kernel());
        match *params {
            [w, ax, ay] => conv_twist_sobel_weights(gpu, launch, w, ax, ay, weights, self.groups),
            [w, wx, wy, cx, cy] => conv_twist_free_weights(gpu, launch, w, wx, wy, cx, cy, weights, self.groups),
            _ => conv_twist_plain_weights(gpu, launch, params[0], weights, self.groups),
        }
    }

    /// The gradients of a, b and c from that of what they are combined to.
    fn spread(&self, gpu: &Gpu, d: Ptr, dmaps: Ptr) -> Result<()> {
        let [n, h, w] = [self.n, self.output.h, self.output.w].map(int);
        conv_twist_spread(gpu, self.per_value(), d, dmaps, n, h, w, self.share(), self.groups)
    }

    /// The parameters' gradients from that of all kernels.
    fn scatter(&self, io: &Backward<'_>, dweights: Ptr) -> Result<()> {
        let (gpu, groups, launch) = (io.gpu, self.groups, per_one(self.kernel()));
        let dw = io.dparams[0];
        if dw.needed {
            conv_twist_plain_gradient(gpu, launch, dweights, dw.at, i32::from(dw.add), groups)?;
        }
        match self.op.twist {
            Twisting::Off => Ok(()),
            Twisting::Sobel { .. } => {
                let (dax, day) = (io.dparams[1], io.dparams[2]);
                let launch = per_one(self.kernel() / 9);
                let (add_dax, add_day) = (i32::from(dax.add), i32::from(day.add));
                conv_twist_sobel_gradient(gpu, launch, dweights, dax.wanted(), add_dax, day.wanted(), add_day, groups)
            }
            Twisting::Free { gradient } => [1, 2].into_iter().try_for_each(|kind| {
                let (kernel, shift) = (io.params[kind], io.params[2 + kind]);
                let (dkernel, dshift) = (io.dparams[kind], io.dparams[2 + kind]);
                if dkernel.needed {
                    let tied = i32::from(gradient == TwistGradient::Tied);
                    let (kind, add) = (int(kind), i32::from(dkernel.add));
                    conv_twist_free_gradient(gpu, launch, dweights, shift, dkernel.at, kind, tied, add, groups)?;
                }
                if !dshift.needed {
                    return Ok(());
                }
                let grid = [blocks(self.op.channels, 32, u32::MAX), 1, 1];
                let launch = Launch { grid, block: [32, 8, 1], shared: 0 };
                conv_twist_shift_gradient(gpu, launch, dweights, kernel, dshift.at, i32::from(dshift.add), groups)
            }),
        }
    }
}

impl Kernel for ConvTwist {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize, precision: Precision) -> usize {
        let pass = Pass::new(self, (inputs[0], output), n, precision);
        let (mut forward, mut backward) = (Parts::of(Ptr::NULL), Parts::of(Ptr::NULL));
        pass.forward_room(&mut forward, false);
        pass.backward_room(&mut backward);
        forward.len().max(backward.len()) + pass.conv.scratch()
    }

    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let pass = Pass::new(self, (io.inputs[0], io.output), io.n, io.precision);
        let mut parts = Parts::of(io.scratch);
        let ForwardRoom { weights, maps, z: unsaved } = pass.forward_room(&mut parts, !io.saved.is_empty());
        pass.gather(io.gpu, &io.params, weights)?;
        let [n, h, w] = [io.n, io.output.h, io.output.w].map(int);
        let mut z = io.x[0];
        for iteration in 0..pass.iterations {
            pass.conv.forward(io.gpu, [z, weights, Ptr::NULL, maps], parts.rest())?;
            let last = iteration + 1 == pass.iterations;
            let next = match io.saved.first() {
                _ if last => Ptr::NULL,
                Some(saved) => saved.at(iteration * pass.inputs()),
                None => unsaved,
            };
            let (x, share, add) = (io.x[0], pass.share(), i32::from(iteration > 0));
            conv_twist_combine(io.gpu, pass.per_value(), maps, io.y, x, next, n, h, w, share, add, pass.groups)?;
            z = next;
        }
        Ok(())
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let pass = Pass::new(self, (io.inputs[0], io.output), io.n, io.precision);
        let mut parts = Parts::of(io.scratch);
        let BackwardRoom { weights, dweights, dmaps, e } = pass.backward_room(&mut parts);
        let scratch = parts.rest();
        let (iterated, target) = (pass.iterations > 1, io.dx[0].target());
        let learns = io.dparams.iter().any(|dparam| dparam.needed);
        if iterated || target.is_some() {
            pass.gather(io.gpu, &io.params, weights)?;
        }
        if iterated {
            copy(io.gpu, io.dy, e, pass.inputs(), false)?;
        }
        for iteration in (0..pass.iterations).rev() {
            let (d, last) = if iterated { (e, iteration + 1 == pass.iterations) } else { (io.dy, true) };
            pass.spread(io.gpu, d, dmaps)?;
            if learns {
                let z = if iteration == 0 { io.x[0] } else { io.saved[0].at((iteration - 1) * pass.inputs()) };
                pass.conv.weight_gradient(io.gpu, [z, dmaps, dweights], !last, scratch)?;
            }
            match target {
                Some((dx, add)) if !iterated => {
                    pass.conv.input_gradient(io.gpu, [dmaps, weights, dx], add, scratch)?;
                }
                None if iteration == 0 => {}
                _ => pass.conv.input_gradient(io.gpu, [dmaps, weights, e], true, scratch)?,
            }
        }
        if let Some((dx, add)) = target.filter(|_| iterated) {
            let len = pass.inputs();
            conv_twist_difference(io.gpu, per_four(len), e, io.dy, dx, int(len), i32::from(add))?;
        }
        if learns { pass.scatter(io, dweights) } else { Ok(()) }
    }
}
