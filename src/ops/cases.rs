//! The one list of cases that gradient check, backend comparison and benches read.

use super::OpSpec;
use crate::graph::Shape;

/// An op on inputs of certain shapes. Each op's room has a list of them, odd on purpose.
#[derive(Clone, Debug)]
pub struct Case {
    /// The op.
    pub op: OpSpec,
    /// Shapes of its inputs.
    pub inputs: Vec<Shape>,
    /// Images.
    pub batch: usize,
    /// The gradients hold the state that a training pass leaves constant (vectors of a spectral norm): differences are
    /// taken of the evaluation pass with that state.
    pub constant_state: bool,
    /// Parameters, by name, whose published gradient is not the derivative: differences say nothing of them.
    pub not_derivatives: &'static [&'static str],
}

impl Case {
    /// `op` on `batch` images of these shapes.
    pub fn new(op: impl Into<OpSpec>, inputs: &[Shape], batch: usize) -> Self {
        let op = op.into();
        Case { op, inputs: inputs.to_vec(), batch, constant_state: false, not_derivatives: &[] }
    }

    /// The same with [`Case::constant_state`].
    #[must_use]
    pub fn with_constant_state(mut self) -> Self {
        self.constant_state = true;
        self
    }

    /// The same with [`Case::not_derivatives`].
    #[must_use]
    pub fn without_derivatives(mut self, names: &'static [&'static str]) -> Self {
        self.not_derivatives = names;
        self
    }

    /// The case as text, to find it again.
    pub fn name(&self) -> String {
        format!("{:?} on {} × {}", self.op, self.batch, crate::graph::list(&self.inputs))
    }
}
