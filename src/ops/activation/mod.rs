//! Element-wise activations: y = f(x), dx = f′(x)·dy.
//!
//! Every activation is a pair `f`, `df` side by side. `df` is stated in terms of the output y, so that the input need
//! not be kept and the op works in place.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
mod reference;

use serde::{Deserialize, Serialize};

use super::{InPlace, Keeps, Kernel, Mismatch, Op, one_input};
use crate::backend::{Cpu, Real, Reference};
use crate::graph::Shape;

/// An element-wise activation.
///
/// ```
/// use handgrad::ops::Activation;
/// assert_eq!(Activation::LeakyRelu { slope: 0.5 }.f(-2.0_f64), -1.0);
/// assert_eq!(Activation::Relu.df(3.0_f64), 1.0); // at an input whose output is 3
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x where positive, slope·x elsewhere; slope ≥ 0.
    LeakyRelu {
        /// The slope below zero.
        slope: f64,
    },
    /// fastai's GeneralRelu: min(leaky_relu(x, leak) − sub, maxv).
    GeneralRelu {
        /// The slope below zero, ≥ 0.
        leak: f64,
        /// Subtracted after the rectifier.
        sub: f64,
        /// The largest output, if there is one.
        maxv: Option<f64>,
    },
}

impl Activation {
    /// The activation.
    #[inline(always)] // into the loop of each SIMD level
    pub fn f<E: Real>(self, x: E) -> E {
        // The comparisons are written so that a NaN stays a NaN.
        let leaky = |slope: f64| if x <= E::zero() { x * E::of(slope) } else { x };
        match self {
            Activation::Relu => {
                if x <= E::zero() {
                    E::zero()
                } else {
                    x
                }
            }
            Activation::LeakyRelu { slope } => leaky(slope),
            Activation::GeneralRelu { leak, sub, maxv } => {
                let y = leaky(leak) - E::of(sub);
                match maxv {
                    Some(maxv) if y > E::of(maxv) => E::of(maxv),
                    _ => y,
                }
            }
        }
    }

    /// Its derivative, as a function of the output y = f(x). At a kink it is the limit from below, as in PyTorch
    /// (a value clamped at exactly `maxv` has derivative 0 here: the output does not tell it from one cut off).
    #[inline(always)]
    pub fn df<E: Real>(self, y: E) -> E {
        let step = |positive: bool, slope: f64| if positive { E::one() } else { E::of(slope) };
        match self {
            Activation::Relu => step(y > E::zero(), 0.0),
            Activation::LeakyRelu { slope } => step(y > E::zero(), slope),
            Activation::GeneralRelu { maxv: Some(maxv), .. } if y >= E::of(maxv) => E::zero(),
            Activation::GeneralRelu { leak, sub, .. } => step(y > E::of(-sub), leak),
        }
    }

    fn slope(self) -> f64 {
        match self {
            Activation::Relu => 0.0,
            Activation::LeakyRelu { slope } => slope,
            Activation::GeneralRelu { leak, .. } => leak,
        }
    }
}

impl Op for Activation {
    fn kind(&self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::LeakyRelu { .. } => "leaky_relu",
            Activation::GeneralRelu { .. } => "general_relu",
        }
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        if !(self.slope() >= 0.0 && self.slope().is_finite()) {
            return Err(Mismatch::new(format!("slope {}", self.slope()), "a slope of 0 or more"));
        }
        one_input(inputs)
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }

    fn in_place(&self) -> InPlace {
        InPlace::BOTH
    }

    fn reference(&self) -> &dyn Kernel<Reference> {
        self
    }

    fn cpu(&self) -> &dyn Kernel<Cpu> {
        self
    }
}
