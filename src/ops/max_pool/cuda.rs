//! Floor: x read, y and winners written; dy and winners read, dx written.

use super::MaxPool;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Launch, Ptr, int, kernels, per_one};
use crate::graph::Shape;
use crate::ops::Window;

kernels! { "pool":
    /// The maximum of each window, and the cell that has it; `winners` may be null.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_max_forward(x: Ptr, y: Ptr, winners: Ptr, images: i32, c: i32, window: WindowArgument);
    /// dx of each winner, gathered from the windows that cover it.
    /// Grid ⌈V/256⌉, at most 65535, for V values written, or V/4 where c is a multiple of 4; block 256.
    fn pool_max_backward(dy: Ptr, winners: Ptr, dx: Ptr, images: i32, c: i32, add: i32, window: WindowArgument);
}

/// A map, a sliding window, and how many windows there are, as kernels take them by value.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::ops) struct WindowArgument {
    /// Height and width of the map, windows down and across.
    sizes: [i32; 4],
    /// Height and width, strides, padding, dilation.
    settings: [[i32; 2]; 4],
}

impl WindowArgument {
    pub fn new(window: &Window, input: Shape, output: Shape) -> Self {
        let Window { kernel, stride, pad, dilation } = *window;
        WindowArgument {
            sizes: [input.h, input.w, output.h, output.w].map(int),
            settings: [kernel, stride, pad, dilation].map(|(down, across)| [int(down), int(across)]),
        }
    }
}

/// The launch of a kernel whose threads write four channels of a pixel, or one where their number is no multiple of four.
pub(in crate::ops) fn per_vector(n: usize, written: Shape) -> Launch {
    let each = if written.c.is_multiple_of(4) { 4 } else { 1 };
    per_one(n * written.len() / each)
}

impl Kernel for MaxPool {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let (window, c) = (WindowArgument::new(&self.window, io.inputs[0], io.output), int(io.output.c));
        let winners = io.saved.first().copied().unwrap_or_default();
        pool_max_forward(io.gpu, per_vector(io.n, io.output), io.x[0], io.y, winners, int(io.n), c, window)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let (window, c) = (WindowArgument::new(&self.window, io.inputs[0], io.output), int(io.output.c));
        let launch = per_vector(io.n, io.inputs[0]);
        pool_max_backward(io.gpu, launch, io.dy, io.saved[0], dx, int(io.n), c, i32::from(add), window)
    }
}
