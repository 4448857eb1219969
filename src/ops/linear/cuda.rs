//! Floor: 2·inputs operations for each output, thrice over; for small batches the weights, read twice and written once.

use super::Linear;
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{Backward, Forward, Kernel};
use crate::graph::Shape;
use crate::ops::conv2d::cuda::Convolution;

impl Kernel for Linear {
    fn scratch(&self, inputs: &[Shape], _output: Shape, n: usize, precision: Precision) -> usize {
        Convolution::linear(n, inputs[0].c, self.outputs, precision).scratch()
    }

    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let bias = io.params.get(1).copied().unwrap_or_default();
        let product = Convolution::linear(io.n, io.inputs[0].c, self.outputs, io.precision);
        product.forward(io.gpu, [io.x[0], io.params[0], bias, io.y], io.scratch)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        Convolution::linear(io.n, io.inputs[0].c, self.outputs, io.precision).backward(io)
    }
}
