//! Floor: x read and y written once, and the reverse.

use super::Dropout;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Gpu, Kernel, Launch, Ptr, int, kernels, per_four};
use crate::ops::flatten::cuda::copy;
use crate::rng::Key;

kernels! { "elementwise":
    /// y = x·mask/(1 − p), or that added: an element of an image drops where its number is below the threshold p·2⁶⁴.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn elementwise_dropout(x: Ptr, y: Ptr, n: i32, per_image: i32, key: u64, threshold: u64, factor: f32, add: i32);
}

/// A kernel with the parameters of [`elementwise_dropout`].
pub(in crate::ops) type Drop = fn(&Gpu, Launch, Ptr, Ptr, i32, i32, u64, u64, f32, i32) -> Result<()>;

/// y from x, or dx from dy, of an op that drops with probability `p` in training and keeps everything else.
fn apply(gpu: &Gpu, drop: Drop, p: Option<f64>, key: Key, [x, y]: [Ptr; 2], [n, len]: [usize; 2], add: bool) -> Result<()> {
    let Some(p) = p else { return copy(gpu, x, y, n * len, add) };
    let (threshold, factor) = ((p * 2f64.powi(64)) as u64, (1.0 / (1.0 - p)) as f32);
    drop(gpu, per_four(n * len), x, y, int(n * len), int(len), key.number(), threshold, factor, i32::from(add))
}

/// The forward pass of an op that drops by this kernel.
pub(in crate::ops) fn forward(drop: Drop, p: f64, io: &Forward<'_>) -> Result<()> {
    apply(io.gpu, drop, io.training.then_some(p), io.key, [io.x[0], io.y], [io.n, io.output.len()], false)
}

/// And its backward pass.
pub(in crate::ops) fn backward(drop: Drop, p: f64, io: &Backward<'_>) -> Result<()> {
    let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
    apply(io.gpu, drop, io.training.then_some(p), io.key, [io.dy, dx], [io.n, io.output.len()], add)
}

impl Kernel for Dropout {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        forward(elementwise_dropout, self.p, io)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        backward(elementwise_dropout, self.p, io)
    }
}
