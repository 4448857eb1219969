//! Floor: forward reads x and writes y once; backward reads dy and what is kept, and writes dx, once.

use super::Activation;
use crate::backend::{Cpu, parallel, simd_level};
use crate::ops::{Backward, Forward, Grad, Kernel, Op};

impl Kernel<Cpu> for Activation {
    fn forward(&self, mut io: Forward<'_, f32>) {
        let level = simd_level();
        let y = parallel::contiguous_mut(&mut io.y);
        if io.in_place {
            parallel::chunks_mut(y, |_, y| apply_in_place(level, *self, y));
        } else {
            let x = parallel::contiguous(&io.x[0]);
            parallel::chunks_mut(y, |start, y| apply(level, *self, y, &x[start..]));
        }
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let level = simd_level();
        let kept = parallel::contiguous(io.x.first().unwrap_or(&io.y));
        let dy = parallel::contiguous_mut(&mut io.dy);
        let add = matches!(io.dx[0], Grad::Add(_));
        match &mut io.dx[0] {
            Grad::Skip => {}
            Grad::InPlace(dx) => parallel::chunks_mut(parallel::contiguous_mut(dx), |start, dx| {
                gradient_in_place(level, *self, dx, &kept[start..]);
            }),
            Grad::Write(dx) | Grad::Add(dx) => parallel::chunks_mut(parallel::contiguous_mut(dx), |start, dx| {
                gradient(level, *self, dx, &kept[start..], &dy[start..], add);
            }),
        }
    }
}

/// The same loop for each variant: where the variant is known, its formula is without branches and the loop vectorises.
macro_rules! per_variant {
    ($activation:expr, $op:ident => $loop:block) => {
        match $activation {
            Activation::Relu => {
                let $op = Activation::Relu;
                $loop
            }
            Activation::LeakyRelu { slope } => {
                let $op = Activation::LeakyRelu { slope };
                $loop
            }
            Activation::GeneralRelu { leak, sub, maxv: None } => {
                let $op = Activation::GeneralRelu { leak, sub, maxv: None };
                $loop
            }
            Activation::GeneralRelu { leak, sub, maxv: Some(maxv) } => {
                let $op = Activation::GeneralRelu { leak, sub, maxv: Some(maxv) };
                $loop
            }
            Activation::Mish => {
                let $op = Activation::Mish;
                $loop
            }
            Activation::Silu => {
                let $op = Activation::Silu;
                $loop
            }
            Activation::Sigmoid => {
                let $op = Activation::Sigmoid;
                $loop
            }
            Activation::Tanh => {
                let $op = Activation::Tanh;
                $loop
            }
            Activation::Gelu => {
                let $op = Activation::Gelu;
                $loop
            }
            Activation::Softplus => {
                let $op = Activation::Softplus;
                $loop
            }
        }
    };
}

// Plain `for` loops: a closure per variant would be too long for the compiler to inline into each SIMD level.

crate::multiversion! {
    /// y = f(x).
    fn apply(activation: Activation, y: &mut [f32], x: &[f32]) {
        per_variant!(activation, op => {
            for (y, x) in y.iter_mut().zip(x) {
                *y = op.f(*x);
            }
        });
    }
}

crate::multiversion! {
    /// y = f(y).
    pub(in crate::ops) fn apply_in_place(activation: Activation, y: &mut [f32]) {
        per_variant!(activation, op => {
            for y in y.iter_mut() {
                *y = op.f(*y);
            }
        });
    }
}

crate::multiversion! {
    /// dx = df(kept)·dy, or that added.
    fn gradient(activation: Activation, dx: &mut [f32], kept: &[f32], dy: &[f32], add: bool) {
        per_variant!(activation, op => {
            for (dx, (kept, dy)) in dx.iter_mut().zip(kept.iter().zip(dy)) {
                let old = if add { *dx } else { 0.0 };
                *dx = old + op.df(*kept) * dy;
            }
        });
    }
}

crate::multiversion! {
    /// dx = df(kept)·dx.
    fn gradient_in_place(activation: Activation, dx: &mut [f32], kept: &[f32]) {
        per_variant!(activation, op => {
            for (dx, kept) in dx.iter_mut().zip(kept) {
                *dx *= op.df(*kept);
            }
        });
    }
}

crate::multiversion! {
    /// dz = df·dz at z = scale·x + shift, which lies nowhere; the coefficients are as wide as a group of pixels.
    pub(in crate::ops) fn gradient_at_affine(
        activation: Activation, dz: &mut [f32], x: &[f32], scale: &[f32], shift: &[f32],
    ) {
        per_variant!(activation, op => {
            let of_input = op.keeps().inputs;
            for (dz, x) in dz.chunks_mut(scale.len()).zip(x.chunks(scale.len())) {
                for ((dz, x), (scale, shift)) in dz.iter_mut().zip(x).zip(scale.iter().zip(shift)) {
                    let z = x * scale + shift;
                    *dz *= op.df(if of_input { z } else { op.f(z) });
                }
            }
        });
    }
}

crate::multiversion! {
    /// The same at z = scale·x + shift + r.
    pub(in crate::ops) fn gradient_at_affine_sum(
        activation: Activation, dz: &mut [f32], x: &[f32], r: &[f32], scale: &[f32], shift: &[f32],
    ) {
        per_variant!(activation, op => {
            let of_input = op.keeps().inputs;
            let groups = dz.chunks_mut(scale.len()).zip(x.chunks(scale.len()).zip(r.chunks(scale.len())));
            for (dz, (x, r)) in groups {
                for ((dz, (x, r)), (scale, shift)) in dz.iter_mut().zip(x.iter().zip(r)).zip(scale.iter().zip(shift)) {
                    let z = x * scale + shift + r;
                    *dz *= op.df(if of_input { z } else { op.f(z) });
                }
            }
        });
    }
}
