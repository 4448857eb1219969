//! Floor: x read and y written once; x and dy read, dx written once.

use super::ChannelScale;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Kernel, Launch, Ptr, blocks, columns, int, kernels};

kernels! { "elementwise":
    /// y = x·s, or that added: images of `per_image` elements of `c` channels, and c factors each.
    /// Grid (⌈per_image/1024⌉, images), at most 65535 each; block 256.
    fn elementwise_channel_scale(x: Ptr, s: Ptr, y: Ptr, images: i32, per_image: i32, c: i32, add: i32);
    /// ds\[c\] = Σ over an image's pixels of x·dy, or that added.
    /// Grid (images, ⌈c/64⌉), or ⌈c/256⌉ where c is a multiple of 4; block 256.
    fn elementwise_channel_products(x: Ptr, dy: Ptr, ds: Ptr, pixels: i32, c: i32, add: i32);
}

impl ChannelScale {
    fn launch(images: usize, per_image: usize) -> Launch {
        Launch { grid: [blocks(per_image, 1024, 65535), blocks(images, 1, 65535), 1], block: [256, 1, 1], shared: 0 }
    }
}

impl Kernel for ChannelScale {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let (len, c) = (io.output.len(), io.output.c);
        let launch = ChannelScale::launch(io.n, len);
        elementwise_channel_scale(io.gpu, launch, io.x[0], io.x[1], io.y, int(io.n), int(len), int(c), 0)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let (len, c) = (io.output.len(), io.output.c);
        // First what reads dy, which dx may take the place of.
        if let Some((ds, add)) = io.dx[1].target() {
            let launch = Launch { grid: [blocks(io.n, 1, u32::MAX), columns(c).div_ceil(64), 1], block: [256, 1, 1], shared: 0 };
            elementwise_channel_products(io.gpu, launch, io.x[0], io.dy, ds, int(len / c), int(c), i32::from(add))?;
        }
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let launch = ChannelScale::launch(io.n, len);
        elementwise_channel_scale(io.gpu, launch, io.dy, io.x[1], dx, int(io.n), int(len), int(c), i32::from(add))
    }
}
