//! Floor: x read and y written once, and the reverse.

use super::ChannelShuffle;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Ptr, int, kernels, per_one};

kernels! { "elementwise":
    /// y\[p, j·groups + i\] = x\[p, i·m + j\] with m = c/groups, or that added.
    /// Grid ⌈n/256⌉, at most 65535; block 256.
    fn elementwise_channel_shuffle(x: Ptr, y: Ptr, n: i32, c: i32, groups: i32, add: i32);
}

impl Kernel for ChannelShuffle {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let (n, c) = (io.n * io.output.len(), io.output.c);
        elementwise_channel_shuffle(io.gpu, per_one(n), io.x[0], io.y, int(n), int(c), int(self.groups), 0)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let (n, c) = (io.n * io.output.len(), io.output.c);
        elementwise_channel_shuffle(io.gpu, per_one(n), io.dy, dx, int(n), int(c), int(c / self.groups), i32::from(add))
    }
}
