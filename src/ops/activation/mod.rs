//! Element-wise activations: y = f(x), dx = f′(x)·dy.
//!
//! Every activation is a pair `f`, `df` side by side, written once for f64 and f32. Where it can be, `df` is stated in
//! terms of the output y, so that the input need not be kept and the op works in place; else in terms of x. With
//! σ(x) = 1/(1 + e⁻ˣ) and the normal distribution Φ, φ:
//!
//! | | f | df | of |
//! |---|---|---|---|
//! | Mish (Misra 2019) | x·t, t = tanh(ln(1 + eˣ)) | t + x·σ(x)·(1 − t²) | x |
//! | SiLU | x·σ(x) | σ(x)·(1 + x·(1 − σ(x))) | x |
//! | sigmoid | σ(x) | y·(1 − y) | y |
//! | tanh | tanh(x) | 1 − y² | y |
//! | GELU (Hendrycks, Gimpel 2016) | x·Φ(x) | Φ(x) + x·φ(x) | x |
//! | softplus | ln(1 + eˣ); x above 20 | 1 − e⁻ʸ; 1 above 20 | y |
//!
//! Each takes one exponential. For Mish, with e = eˣ and n = e·(e + 2): t = n/(n + 2), and since n + 1 = (1 + e)²,
//! σ·(1 − t²) = 4·e·(e + 1)/(n + 2)². Above 20, t is 1 in f64 too, so that x need not be followed further there; this is
//! also where PyTorch's softplus becomes linear.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

pub(super) use cpu::{apply_in_place, gradient_at_affine, gradient_at_affine_sum};

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
/// assert_eq!(Activation::Mish.df(25.0_f32), 1.0); // at the input 25
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
    /// x·tanh(softplus(x)).
    Mish,
    /// x·σ(x), also called swish.
    Silu,
    /// σ(x) = 1/(1 + e⁻ˣ).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// x·Φ(x), exact: PyTorch's default.
    Gelu,
    /// ln(1 + eˣ), and x above 20.
    Softplus,
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
            Activation::Mish => {
                let e = at_most_20(x).lane_exp();
                let n = e * (e + E::of(2.0));
                x * (n / (n + E::of(2.0)))
            }
            Activation::Silu => x * sigmoid(x),
            Activation::Sigmoid => sigmoid(x),
            Activation::Tanh => {
                let a = at_most_20(x.abs());
                let m = (a + a).lane_exp_m1();
                (m / (m + E::of(2.0))).copysign(x)
            }
            Activation::Gelu => x * x.lane_normal().0,
            Activation::Softplus => {
                let soft = (-x.abs()).lane_exp().lane_ln_1p() + if x > E::zero() { x } else { E::zero() };
                if x > E::of(20.0) { x } else { soft }
            }
        }
    }

    /// Its derivative, as a function of x for Mish, SiLU and GELU, of the output y = f(x) for all others. At a kink it
    /// is the limit from below, as in PyTorch (a value clamped at exactly `maxv` has derivative 0 here: the output does
    /// not tell it from one cut off).
    #[inline(always)]
    pub fn df<E: Real>(self, at: E) -> E {
        let (x, y) = (at, at);
        let step = |positive: bool, slope: f64| if positive { E::one() } else { E::of(slope) };
        match self {
            Activation::Relu => step(y > E::zero(), 0.0),
            Activation::LeakyRelu { slope } => step(y > E::zero(), slope),
            Activation::GeneralRelu { maxv: Some(maxv), .. } if y >= E::of(maxv) => E::zero(),
            Activation::GeneralRelu { leak, sub, .. } => step(y > E::of(-sub), leak),
            Activation::Mish => {
                let x = at_most_20(x);
                let e = x.lane_exp();
                let n = e * (e + E::of(2.0));
                let share = E::one() / (n + E::of(2.0));
                share * (n + x * (E::of(4.0) * (e * (e + E::one())) * share))
            }
            Activation::Silu => {
                let s = sigmoid(x);
                s * (E::one() + x * (E::one() - s))
            }
            Activation::Sigmoid => y * (E::one() - y),
            Activation::Tanh => E::one() - y * y,
            Activation::Gelu => {
                let (distribution, density) = x.lane_normal();
                distribution + x * density
            }
            Activation::Softplus => {
                let slope = -(-y).lane_exp_m1();
                if y > E::of(20.0) { E::one() } else { slope }
            }
        }
    }

    fn slope(self) -> f64 {
        match self {
            Activation::Relu => 0.0,
            Activation::LeakyRelu { slope } => slope,
            Activation::GeneralRelu { leak, .. } => leak,
            _ => 0.0,
        }
    }
}

/// The smaller of x and 20; a NaN stays one.
#[inline(always)]
fn at_most_20<E: Real>(x: E) -> E {
    if x > E::of(20.0) { E::of(20.0) } else { x }
}

/// 1/(1 + e⁻ˣ) by the exponential that does not overflow.
#[inline(always)]
fn sigmoid<E: Real>(x: E) -> E {
    let e = (-x.abs()).lane_exp();
    (if x < E::zero() { e } else { E::one() }) / (E::one() + e)
}

impl Op for Activation {
    fn kind(&self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::LeakyRelu { .. } => "leaky_relu",
            Activation::GeneralRelu { .. } => "general_relu",
            Activation::Mish => "mish",
            Activation::Silu => "silu",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
            Activation::Gelu => "gelu",
            Activation::Softplus => "softplus",
        }
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        if !(self.slope() >= 0.0 && self.slope().is_finite()) {
            return Err(Mismatch::new(format!("slope {}", self.slope()), "a slope of 0 or more"));
        }
        one_input(inputs)
    }

    fn keeps(&self) -> Keeps {
        match self {
            Activation::Mish | Activation::Silu | Activation::Gelu => Keeps::INPUTS,
            _ => Keeps::OUTPUT,
        }
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

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Option<&dyn crate::backend::cuda::Kernel> {
        Some(self)
    }
}
