//! Self-attention without softmax: fastai's SimpleSelfAttention, whose weight has a spectral norm (Miyato et al. 2018).
//!
//! An image is X `[C, N]`, N = h·w pixels. With the weight W `[C, C]` (a 1×1 convolution), V = W/σ and a scalar γ that
//! starts at 0:
//!
//! - Y = γ·(X·Xᵀ)·(V·X) + X
//!
//! σ = uᵀ·W·v. In training, one power iteration first: v ← Wᵀ·u, u ← W·v, both divided by their norms (by 1e-12 at
//! least). For the gradient u and v are constants; evaluation leaves them as they are.
//!
//! Backward, with G = X·Xᵀ and the upstream gradient D:
//!
//! - dγ = ⟨D, G·V·X⟩
//! - d(V·X) = γ·G·D, as G is symmetric, so that dV = d(V·X)·Xᵀ and X gets Vᵀ·d(V·X)
//! - dG = γ·D·(V·X)ᵀ, and X gets (dG + dGᵀ)·X; besides, X gets D
//! - dW = dV/σ − ⟨dV, W⟩/σ²·u·vᵀ, since dσ/dW = u·vᵀ
//!
//! With `sym` the weight is (W + Wᵀ)/2 in all of this, and dW is symmetrised likewise. (In the published code the option
//! has no effect: the hook of the spectral norm computes the weight anew.)
//!
//! NHWC memory holds A = Xᵀ `[N, C]`, and there Y = A + γ·A·Vᵀ·G. Which product comes first depends on the shape:
//!
//! - N ≥ C, "by channels": G = AᵀA and M = VᵀG are `[C, C]`; Y = A + γ·A·M, in 2·N·C² + C³ multiply-adds. Backward, with
//!   K = γ·AᵀD: dγ = ⟨AᵀD, M⟩, dV = G·Kᵀ, dA = D + γ·D·Mᵀ + A·(V·K + (V·K)ᵀ)
//! - N < C, "by pixels": H = A·Vᵀ and P = H·Aᵀ `[N, N]`; Y = A + γ·P·A, in N·C² + 2·N²·C. Backward, with Q = γ·D·Aᵀ and
//!   dH = Q·A: dγ = ⟨D·Aᵀ, P⟩, dV = dHᵀ·A, dA = D + γ·Pᵀ·D + Qᵀ·H + dH·V

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Init, Keeps, Kernel, Layout, Mismatch, Op, ParamSpec, Saved, one_input};
use crate::backend::{Cpu, Real, Reference};
use crate::graph::Shape;

/// Self-attention over the pixels of a map: `[h, w, c]` → `[h, w, c]`.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::SelfAttention;
/// let mut g = Graph::new(Shape::new(16, 16, 64));
/// g.node("sa", SelfAttention { sym: false }, &[g.images()])?;
/// let names: Vec<&str> = g.params().iter().chain(g.states()).map(|p| p.name.as_str()).collect();
/// assert_eq!(names, ["sa.conv.weight_orig", "sa.gamma", "sa.conv.weight_u", "sa.conv.weight_v"]);
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfAttention {
    /// Whether the weight is made symmetric.
    pub sym: bool,
}

/// The smallest divisor of a vector that is normalised.
const EPS: f64 = 1e-12;

impl SelfAttention {
    /// Whether the products over pixels come first.
    fn by_channels(input: Shape) -> bool {
        input.h * input.w >= input.c
    }

    /// Elements of the two matrices of an image that are made first: G and M, or H and P.
    fn products(input: Shape) -> usize {
        let (n, c) = (input.h * input.w, input.c);
        if Self::by_channels(input) { 2 * c * c } else { n * c + n * n }
    }

    /// Element (o, i) of the weight, symmetric where the option says so.
    #[inline(always)]
    fn weight<E: Real>(&self, w: &[E], channels: usize, o: usize, i: usize) -> E {
        let here = w[o * channels + i];
        if self.sym { E::of(0.5) * (here + w[i * channels + o]) } else { here }
    }

    /// One power iteration, in f64: v ← Wᵀ·u, u ← W·v, normalised.
    fn iterate<E: Real>(&self, w: &[E], u: &mut [E], v: &mut [E]) {
        let channels = u.len();
        let at = |o, i| self.weight(w, channels, o, i).wide();
        let normalise = |values: &mut [E]| {
            let norm = values.iter().map(|value| value.wide().powi(2)).sum::<f64>().sqrt().max(EPS);
            values.iter_mut().for_each(|value| *value = E::of(value.wide() / norm));
        };
        for (i, v) in v.iter_mut().enumerate() {
            *v = E::of((0..channels).map(|o| at(o, i) * u[o].wide()).sum());
        }
        normalise(v);
        for (o, u) in u.iter_mut().enumerate() {
            *u = E::of((0..channels).map(|i| at(o, i) * v[i].wide()).sum());
        }
        normalise(u);
    }

    /// uᵀ·W·v, in f64.
    fn sigma<E: Real>(&self, w: &[E], u: &[E], v: &[E]) -> f64 {
        let channels = u.len();
        let row = |o: usize| (0..channels).map(|i| self.weight(w, channels, o, i).wide() * v[i].wide()).sum::<f64>();
        (0..channels).map(|o| u[o].wide() * row(o)).sum()
    }
}

impl Op for SelfAttention {
    fn kind(&self) -> &'static str {
        "self_attention"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        // So that matrices between pixels or channels stay below 2^31 elements.
        let limit = 1 << 15;
        if (x.h * x.w).min(x.c) > limit {
            return Err(Mismatch::new(format!("a map {x}"), format!("at most {limit} pixels or channels")));
        }
        Ok(Shape::new(x.h, x.w, x.c))
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let c = inputs[0].c;
        let (layout, init) = (Layout::Plain(vec![c, c, 1]), Init::Normal((2.0 / c as f64).sqrt()));
        vec![
            ParamSpec { name: "conv.weight_orig", layout, init },
            ParamSpec { name: "gamma", layout: Layout::Plain(vec![1]), init: Init::Constant(0.0) },
        ]
    }

    fn states(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let layout = Layout::Plain(vec![inputs[0].c]);
        let state = |name| ParamSpec { name, layout: layout.clone(), init: Init::Direction };
        vec![state("conv.weight_u"), state("conv.weight_v")]
    }

    /// Of the three products as they are written above, as published counts have it.
    fn flops(&self, inputs: &[Shape], _output: Shape) -> u64 {
        let Shape { h, w, c, .. } = inputs[0];
        6 * (h * w) as u64 * (c * c) as u64
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn saved(&self, inputs: &[Shape], _output: Shape) -> Vec<Saved> {
        let x = inputs[0];
        vec![
            // u, v, σ
            Saved { per_image: 0, fixed: 2 * x.c + 1 },
            // the two products of each image
            Saved { per_image: Self::products(x), fixed: 0 },
        ]
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
