//! A convolution or linear layer with the layers behind it as one op: what inference plans make of them.
//!
//! - y = last(norm_behind(act(norm(x ∗ w + b))) + r)
//!
//! Each part but the product may be absent; r is another map, or x itself. In evaluation a batch-norm is
//! scale·v + shift per channel with constants, so that
//!
//! - the one before the activation is folded: w·scale in place of w, b·scale + shift in place of b;
//! - the one behind it stays scale and shift. It could be folded into the next layer, but not over zero padding: the
//!   next layer pads its input with 0, which this one would have to turn into −shift/scale.
//!
//! The truth is the composition of the parts' references. There is no backward pass: training runs the parts.
//!
//! Floor: the product's operations; x, r and the weights are read once, y is written once.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Activation, BatchNorm, Conv2d, InPlace, Kernel, Linear, Mismatch, Op, ParamSpec};
use crate::backend::{Cpu, Reference};
use crate::graph::{Shape, list};

/// The layer that multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// A convolution.
    Conv2d(Conv2d),
    /// A linear layer, of a map as if a Flatten came before.
    Linear(Linear),
}

/// What a residual sum adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residual {
    /// The product's own input.
    Input,
    /// Another node, which comes first among the inputs.
    Other,
}

/// A product and what follows it, in inference: inputs `[x]`, or `[r, x]`.
///
/// A plan makes these from a graph's layers; `handgrad plan RECIPE --mode infer` prints them.
///
/// ```
/// use handgrad::{backend::Cpu, models, plan::{Mode, Plan}};
/// let graph = models::build("resnet18", &Default::default())?;
/// let (eval, infer) = (Plan::compile::<Cpu>(&graph, 1, Mode::Eval)?, Plan::compile::<Cpu>(&graph, 1, Mode::Infer)?);
/// assert!(infer.steps() < eval.steps() / 2);
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvNormAct {
    /// The product.
    pub product: Product,
    /// The normalisation of its result.
    pub norm: Option<BatchNorm>,
    /// The activation.
    pub act: Option<Activation>,
    /// The normalisation behind the activation.
    pub norm_behind: Option<BatchNorm>,
    /// What is added.
    pub add: Option<Residual>,
    /// The activation of the sum.
    pub last: Option<Activation>,
}

impl ConvNormAct {
    /// The product alone.
    pub const fn new(product: Product) -> Self {
        ConvNormAct { product, norm: None, act: None, norm_behind: None, add: None, last: None }
    }

    /// The shape of the product's input.
    fn input(&self, inputs: &[Shape]) -> Shape {
        inputs[usize::from(self.add == Some(Residual::Other))]
    }

    /// The vector that a linear layer makes of a map, as a Flatten would.
    fn flat(x: Shape) -> Result<Shape, Mismatch> {
        super::Flatten.output(&[x])
    }

    /// What the product sees of its input.
    fn product_input(&self, x: Shape) -> Shape {
        match self.product {
            Product::Conv2d(_) => x,
            Product::Linear(_) => Self::flat(x).unwrap_or(x),
        }
    }

    fn product(&self) -> &dyn Op {
        match &self.product {
            Product::Conv2d(conv) => conv,
            Product::Linear(linear) => linear,
        }
    }

    fn has_bias(&self) -> bool {
        match self.product {
            Product::Conv2d(conv) => conv.bias,
            Product::Linear(linear) => linear.bias,
        }
    }

    fn norms(&self) -> impl Iterator<Item = BatchNorm> {
        self.norm.into_iter().chain(self.norm_behind)
    }
}

impl Op for ConvNormAct {
    fn kind(&self) -> &'static str {
        "conv_norm_act"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let expected = if self.add == Some(Residual::Other) { 2 } else { 1 };
        if inputs.len() != expected {
            return Err(Mismatch::new(format!("{} inputs", inputs.len()), format!("{expected}")));
        }
        let x = self.input(inputs);
        let x = if let Product::Linear(_) = self.product { Self::flat(x)? } else { x };
        let y = self.product().output(&[x])?;
        for norm in self.norms() {
            norm.output(&[y])?;
        }
        for act in self.act.iter().chain(&self.last) {
            act.output(&[y])?;
        }
        if self.add.is_some() && !inputs[0].same_dims(y) {
            return Err(Mismatch::new(format!("inputs {}", list(inputs)), format!("a residual {y}")));
        }
        Ok(y)
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let x = self.product_input(self.input(inputs));
        let mut params = self.product().params(&[x]);
        if let Ok(y) = self.product().output(&[x]) {
            self.norms().for_each(|norm| params.extend(norm.params(&[y])));
        }
        params
    }

    fn states(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let x = self.product_input(self.input(inputs));
        let y = self.product().output(&[x]);
        self.norms().flat_map(|norm| y.as_ref().map_or(Vec::new(), |&y| norm.states(&[y]))).collect()
    }

    fn flops(&self, inputs: &[Shape], output: Shape) -> u64 {
        self.product().flops(&[self.product_input(self.input(inputs))], output)
    }

    fn in_place(&self) -> InPlace {
        // Over the residual: where sums stay in registers until it is added.
        let in_tile = matches!(self.product, Product::Conv2d(_)) && cpu::in_tile(self.act).is_some();
        let forward = self.add == Some(Residual::Other) && in_tile;
        InPlace { forward, backward: false }
    }

    fn only_infers(&self) -> bool {
        true
    }

    fn reference(&self) -> &dyn Kernel<Reference> {
        self
    }

    fn cpu(&self) -> &dyn Kernel<Cpu> {
        self
    }
}
