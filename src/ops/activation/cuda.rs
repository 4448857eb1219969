//! Floor: x read and y written once; kept and dy read, dx written once.

use super::Activation;
use crate::Result;
use crate::backend::cuda::{Backward, Forward, Gpu, Kernel, Launch, Ptr, int, kernels, per_four};

kernels! { "activation":
    /// y = relu(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_relu_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = relu′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_relu_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = leaky_relu(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_leaky_relu_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = leaky_relu′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_leaky_relu_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = general_relu(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_general_relu_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = general_relu′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_general_relu_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = mish(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_mish_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = mish′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_mish_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = silu(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_silu_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = silu′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_silu_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = sigmoid(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_sigmoid_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = sigmoid′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_sigmoid_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = tanh(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_tanh_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = tanh′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_tanh_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = gelu(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_gelu_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = gelu′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_gelu_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
    /// y = softplus(x).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_softplus_forward(x: Ptr, y: Ptr, n: i32, slope: f32, sub: f32, maxv: f32);
    /// dx = softplus′·dy, added where `add`; `kept` is what the op keeps.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    fn activation_softplus_backward(kept: Ptr, dy: Ptr, dx: Ptr, n: i32, add: i32, slope: f32, sub: f32, maxv: f32);
}

type ForwardKernel = fn(&Gpu, Launch, Ptr, Ptr, i32, f32, f32, f32) -> Result<()>;
type BackwardKernel = fn(&Gpu, Launch, Ptr, Ptr, Ptr, i32, i32, f32, f32, f32) -> Result<()>;

impl Activation {
    fn kernels(self) -> (ForwardKernel, BackwardKernel) {
        match self {
            Activation::Relu => (activation_relu_forward, activation_relu_backward),
            Activation::LeakyRelu { .. } => (activation_leaky_relu_forward, activation_leaky_relu_backward),
            Activation::GeneralRelu { .. } => (activation_general_relu_forward, activation_general_relu_backward),
            Activation::Mish => (activation_mish_forward, activation_mish_backward),
            Activation::Silu => (activation_silu_forward, activation_silu_backward),
            Activation::Sigmoid => (activation_sigmoid_forward, activation_sigmoid_backward),
            Activation::Tanh => (activation_tanh_forward, activation_tanh_backward),
            Activation::Gelu => (activation_gelu_forward, activation_gelu_backward),
            Activation::Softplus => (activation_softplus_forward, activation_softplus_backward),
        }
    }

    /// slope, sub and maxv, a NaN where there is none.
    fn settings(self) -> [f32; 3] {
        match self {
            Activation::LeakyRelu { slope } => [slope as f32, 0.0, f32::NAN],
            Activation::GeneralRelu { leak, sub, maxv } => [leak as f32, sub as f32, maxv.map_or(f32::NAN, |v| v as f32)],
            _ => [0.0, 0.0, f32::NAN],
        }
    }
}

impl Kernel for Activation {
    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let (n, [slope, sub, maxv]) = (io.n * io.output.len(), self.settings());
        self.kernels().0(io.gpu, per_four(n), io.x[0], io.y, int(n), slope, sub, maxv)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        let (n, [slope, sub, maxv]) = (io.n * io.output.len(), self.settings());
        let kept = io.x.first().copied().unwrap_or(io.y);
        self.kernels().1(io.gpu, per_four(n), kept, io.dy, dx, int(n), i32::from(add), slope, sub, maxv)
    }
}
