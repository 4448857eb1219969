//! Floor: every input read and y written once; dy read and every dx written once.

use super::Add;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Ptr, int, kernels, per_four};
use crate::ops::MAX_INPUTS;
use crate::ops::flatten::cuda::pass_on;

kernels! { "elementwise":
    /// y = x₀ + x₁ + … of `count` inputs.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn elementwise_add(inputs: Inputs, count: i32, y: Ptr, n: i32);
}

/// Addresses of inputs; the last ones may be null.
#[derive(Clone, Copy)]
#[repr(C)]
struct Inputs {
    x: [Ptr; MAX_INPUTS],
}

impl Kernel for Add {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let n = io.n * io.output.len();
        let mut inputs = Inputs { x: [Ptr::NULL; MAX_INPUTS] };
        inputs.x[..io.x.len()].copy_from_slice(&io.x);
        elementwise_add(io.gpu, per_four(n), inputs, int(io.x.len()), io.y, int(n))
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        io.dx.iter().try_for_each(|&dx| pass_on(io.gpu, io.dy, dx, io.n * io.output.len()))
    }
}
