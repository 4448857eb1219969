//! Floor: every input read and the output written once, and the reverse.

use super::Concat;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Ptr, int, kernels, per_one};

kernels! { "elementwise":
    /// Channels `[first, first + width)` of a map of `channels` channels from a map of `width`.
    /// Grid ⌈pixels·width/256⌉, at most 65535; block 256.
    fn elementwise_concat(x: Ptr, y: Ptr, pixels: i32, width: i32, first: i32, channels: i32);
    /// The same channels of a map as a map of their own, or that added.
    /// Grid ⌈pixels·width/256⌉, at most 65535; block 256.
    fn elementwise_slice(x: Ptr, y: Ptr, pixels: i32, width: i32, first: i32, channels: i32, add: i32);
}

impl Kernel for Concat {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let pixels = io.n * io.output.h * io.output.w;
        let mut first = 0;
        for (&x, width) in io.x.iter().zip(io.inputs.iter().map(|input| input.c)) {
            let launch = per_one(pixels * width);
            elementwise_concat(io.gpu, launch, x, io.y, int(pixels), int(width), int(first), int(io.output.c))?;
            first += width;
        }
        // The widths that a host's backward pass finds in `saved`, here the shapes say.
        Ok(())
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let pixels = io.n * io.output.h * io.output.w;
        let mut first = 0;
        for (dx, width) in io.dx.iter().zip(io.inputs.iter().map(|input| input.c)) {
            if let Some((dx, add)) = dx.target() {
                let (launch, add) = (per_one(pixels * width), i32::from(add));
                elementwise_slice(io.gpu, launch, io.dy, dx, int(pixels), int(width), int(first), int(io.output.c), add)?;
            }
            first += width;
        }
        Ok(())
    }
}
