//! Floor: 2·inputs operations for each output, thrice over; for small batches the weights, read twice and written once.

use super::Linear;
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{Backward, Forward, Gpu, Kernel, Ptr};
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

/// The products of a linear layer, for who has matrices and no layer: x `[rows, inputs]`, w `[inputs, outputs]`, y
/// `[rows, outputs]`, each without gaps.
#[derive(Clone, Copy)]
pub(crate) struct Products(Convolution);

impl Products {
    pub fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        Products(Convolution::linear(rows, inputs, outputs, Precision::F32))
    }

    /// Elements of working memory that any of these products needs.
    pub fn scratch(&self) -> usize {
        self.0.scratch()
    }

    /// y = x·w.
    pub fn forward(&self, gpu: &Gpu, [x, w, y]: [Ptr; 3], scratch: Ptr) -> Result<()> {
        self.0.forward(gpu, [x, w, Ptr::NULL, y], scratch)
    }

    /// x = y·wᵀ.
    pub fn against_columns(&self, gpu: &Gpu, [y, w, x]: [Ptr; 3], scratch: Ptr) -> Result<()> {
        self.0.input_gradient(gpu, [y, w, x], false, scratch)
    }

    /// w = xᵀ·y.
    pub fn against_rows(&self, gpu: &Gpu, [x, y, w]: [Ptr; 3], scratch: Ptr) -> Result<()> {
        self.0.weight_gradient(gpu, [x, y, w], false, scratch)
    }
}
