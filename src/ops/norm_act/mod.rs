//! Batch-norm, a residual sum if there is one, and the activation behind it as one op: what training plans make of them.
//!
//! With γ·x̂ + β as in [`BatchNorm`], r a second input or 0:
//!
//! - z = γ·x̂ + β + r, y = f(z)
//! - dz = f′(z)·dy, dr = dz, and from dz dγ, dβ and dx as there
//!
//! z is stored nowhere: the backward pass makes it again from x, r, the batch's mean and 1/√(v + ε), block by block, in the
//! cache. Nor need y be stored between the passes ([`Op::recomputes`]): a plan has it made again before the layers behind it
//! go backward. Of x, γ·x̂ + β, z and y, x alone stays.
//!
//! The truth is the composition of the parts' references. On the CPU results are those of the single layers to the bit.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Activation, BatchNorm, InPlace, Keeps, Kernel, Mismatch, Op, ParamSpec, Saved};
use crate::backend::{Cpu, Reference};
use crate::graph::{Shape, list};

/// Normalisation by batch statistics, a sum, an activation: inputs `[x]`, or `[x, r]` of one shape.
///
/// A plan makes these from a graph's layers where nothing else reads what lies between; `handgrad plan RECIPE` prints them.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::{Activation, BatchNorm, Conv2d, NormAct};
/// let mut g = Graph::new(Shape::new(32, 32, 3));
/// let x = g.node("conv", Conv2d::square(8, 3, 1, 1).no_bias(), &[g.images()])?;
/// g.node("norm_act", NormAct { norm: BatchNorm::running(), add: false, act: Activation::Mish }, &[x])?;
/// assert_eq!(g.params()[1].name, "norm_act.weight");
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormAct {
    /// The normalisation.
    pub norm: BatchNorm,
    /// A second input is added to its output.
    pub add: bool,
    /// The activation of the sum.
    pub act: Activation,
}

impl Op for NormAct {
    fn kind(&self) -> &'static str {
        "norm_act"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = match inputs {
            [x] if !self.add => *x,
            [x, r] if self.add && x.same_dims(*r) => *x,
            _ => {
                let expected = if self.add { "two of one shape" } else { "one" };
                return Err(Mismatch::new(format!("inputs {}", list(inputs)), expected));
            }
        };
        self.act.output(&[self.norm.output(&[x])?])
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        self.norm.params(inputs)
    }

    fn states(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        self.norm.states(inputs)
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn saved(&self, inputs: &[Shape], output: Shape) -> Vec<Saved> {
        self.norm.saved(inputs, output)
    }

    fn in_place(&self) -> InPlace {
        InPlace::BOTH
    }

    fn recomputes(&self) -> bool {
        true
    }

    fn reference(&self) -> &dyn Kernel<Reference> {
        self
    }

    fn cpu(&self) -> &dyn Kernel<Cpu> {
        self
    }
}
