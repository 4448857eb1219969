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
}

impl Case {
    /// `op` on `batch` images of these shapes.
    pub fn new(op: impl Into<OpSpec>, inputs: &[Shape], batch: usize) -> Self {
        Case { op: op.into(), inputs: inputs.to_vec(), batch }
    }

    /// The case as text, to find it again.
    pub fn name(&self) -> String {
        format!("{:?} on {} × {}", self.op, self.batch, crate::graph::list(&self.inputs))
    }
}
