//! Fully connected layer.
//!
//! - y[n, o] = b[o] + Σᵢ x[n, i] · w[i, o]
//! - dx[n, i] = Σₒ dy[n, o] · w[i, o]
//! - dw[i, o] = Σₙ x[n, i] · dy[n, o]
//! - db[o] = Σₙ dy[n, o]
//!
//! Weights lie as `[inputs][outputs]`; PyTorch's files hold `[outputs][inputs]`, with inputs in C, H, W order behind a
//! Flatten ([`Layout::Linear`]).

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Init, Keeps, Kernel, Layout, Mismatch, Op, ParamSpec, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// A fully connected layer with bias: `[inputs]` → `[outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Outputs.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Linear {
    /// A layer with bias.
    pub const fn new(outputs: usize) -> Self {
        Linear { outputs, bias: true }
    }

    /// The same without bias.
    #[must_use]
    pub const fn no_bias(mut self) -> Self {
        self.bias = false;
        self
    }
}

impl Op for Linear {
    fn kind(&self) -> &'static str {
        "linear"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        if !x.is_flat() {
            return Err(Mismatch::new(format!("a map {x}"), "a vector: put a Flatten or a global pool before it"));
        }
        Ok(Shape::flat(self.outputs))
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let x = inputs[0];
        let init = Init::torch_default(x.c);
        let layout = Layout::Linear { map: x.flattened.unwrap_or((1, 1, x.c)), outputs: self.outputs };
        let weight = ParamSpec { name: "weight", layout, init };
        let bias = ParamSpec { name: "bias", layout: Layout::Plain(vec![self.outputs]), init };
        if self.bias { vec![weight, bias] } else { vec![weight] }
    }

    fn flops(&self, inputs: &[Shape], output: Shape) -> u64 {
        2 * inputs[0].c as u64 * output.c as u64
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn reference(&self) -> &dyn Kernel<Reference> {
        self
    }

    fn cpu(&self) -> &dyn Kernel<Cpu> {
        self
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Option<&dyn crate::backend::cuda::Kernel> {
        Some(self)
    }
}
