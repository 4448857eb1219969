//! Floor: forward reads x twice and r once, and writes y once; backward reads x twice, dy and r once, writes dz and dr once,
//! and from dz dx once.

use super::NormAct;
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::activation::{apply_in_place, gradient_at_affine, gradient_at_affine_sum};
use crate::ops::batch_norm::Piece;
use crate::ops::{Backward, Forward, Grad, Kernel, Op};

impl Kernel<Cpu> for NormAct {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize) -> usize {
        self.norm.cpu().scratch(inputs, output, n)
    }

    fn forward(&self, io: Forward<'_, f32>) {
        let level = simd_level();
        let r = self.add.then(|| io.x[1]);
        let r = r.as_ref().map(parallel::contiguous);
        self.norm.forward_then(io, |start, z| {
            if let Some(r) = r {
                parallel::combine(level, z, &r[start..], |z, r| z + r);
            }
            apply_in_place(level, self.act, z);
        });
    }

    fn backward(&self, io: Backward<'_, f32>) {
        let level = simd_level();
        let r = self.add.then(|| io.x[1]);
        let r = r.as_ref().map(parallel::contiguous);
        let add = matches!(io.dx.get(1), Some(Grad::Add(_)));
        self.norm.backward_behind(io, |Piece { start, x, dy, dr, scale, shift }| {
            match r {
                Some(r) => gradient_at_affine_sum(level, self.act, dy, x, &r[start..], scale, shift),
                None => gradient_at_affine(level, self.act, dy, x, scale, shift),
            }
            parallel::combine(level, dr, dy, |dr, dz| if add { dr + dz } else { dz });
        });
    }
}
