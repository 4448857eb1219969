//! Floor: x read and y written once, and the reverse.

use super::DropPath;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Ptr, kernels};
use crate::ops::dropout::cuda as dropout;

kernels! { "elementwise":
    /// y = x·mask/(1 − p), or that added: an image drops where its number is below the threshold p·2⁶⁴.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn elementwise_drop_path(x: Ptr, y: Ptr, n: i32, per_image: i32, key: u64, threshold: u64, factor: f32, add: i32);
}

impl Kernel for DropPath {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        dropout::forward(elementwise_drop_path, self.p, io)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        dropout::backward(elementwise_drop_path, self.p, io)
    }
}
