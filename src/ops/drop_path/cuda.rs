//! Floor: x read and y written once, and the reverse.

use super::DropPath;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Gpu, Kernel, Ptr, int, kernels, per_four};
use crate::ops::flatten::cuda::copy;
use crate::rng::Key;

kernels! { "elementwise":
    /// y = x·mask/(1 − p), or that added: an image drops where its number is below the threshold p·2⁶⁴.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn elementwise_drop_path(x: Ptr, y: Ptr, n: i32, per_image: i32, key: u64, threshold: u64, factor: f32, add: i32);
}

impl DropPath {
    /// y from x, and dx from dy, of `n` images of `len` elements.
    fn apply(&self, gpu: &Gpu, key: Key, [x, y]: [Ptr; 2], [n, len]: [usize; 2], add: bool) -> Result<()> {
        let (threshold, factor) = ((self.p * 2f64.powi(64)) as u64, (1.0 / (1.0 - self.p)) as f32);
        elementwise_drop_path(gpu, per_four(n * len), x, y, int(n * len), int(len), key.number(), threshold, factor, i32::from(add))
    }
}

impl Kernel for DropPath {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        if !io.training {
            return copy(io.gpu, io.x[0], io.y, io.n * io.output.len(), false);
        }
        self.apply(io.gpu, io.key, [io.x[0], io.y], [io.n, io.output.len()], false)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        if !io.training {
            return copy(io.gpu, io.dy, dx, io.n * io.output.len(), add);
        }
        self.apply(io.gpu, io.key, [io.dy, dx], [io.n, io.output.len()], add)
    }
}
