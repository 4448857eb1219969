//! Floor: nothing, beside a layer of pixels.

use super::SoftmaxCrossEntropy;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Grad, Kernel, Launch, Ptr, blocks, int, kernels};

kernels! { "loss":
    /// The loss of each image; `log_p` and `targets`, for a backward pass, are both null where none follows.
    /// Grid ⌈images/4⌉; block 128.
    fn loss_cross_entropy_forward(x: Ptr, t: Ptr, y: Ptr, log_p: Ptr, targets: Ptr, images: i32, classes: i32);
    /// dx and dt, each null where nobody needs it.
    /// Grid ⌈images/4⌉; block 128.
    fn loss_cross_entropy_backward(log_p: Ptr, targets: Ptr, dy: Ptr, dx: Ptr, add_dx: i32, dt: Ptr, add_dt: i32, images: i32, classes: i32);
}

/// A warp for each image.
fn per_image(n: usize) -> Launch {
    Launch::line(blocks(n, 4, u32::MAX), 128)
}

impl Kernel for SoftmaxCrossEntropy {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let (log_p, targets) = match io.saved[..] {
            [log_p, targets] => (log_p, targets),
            _ => (Ptr::NULL, Ptr::NULL),
        };
        let (n, classes) = (int(io.n), int(io.inputs[0].c));
        loss_cross_entropy_forward(io.gpu, per_image(io.n), io.x[0], io.x[1], io.y, log_p, targets, n, classes)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let place = |grad: Grad| grad.target().map_or((Ptr::NULL, 0), |(at, add)| (at, i32::from(add)));
        let ((dx, add_dx), (dt, add_dt)) = (place(io.dx[0]), place(io.dx[1]));
        let (n, classes) = (int(io.n), int(io.inputs[0].c));
        let [log_p, targets] = [io.saved[0], io.saved[1]];
        let launch = per_image(io.n);
        loss_cross_entropy_backward(io.gpu, launch, log_p, targets, io.dy, dx, add_dx, dt, add_dt, n, classes)
    }
}
