//! Muon's step on a GPU.
//!
//! A matrix keeps the layout of its weight `[inputs][outputs]`: x·xᵀ of the shorter side is a linear layer's input gradient
//! where the inputs are fewer, its weight gradient where the outputs are, and the polynomial of it stands on the side that is
//! left. So nothing is transposed.

use super::{COEFFICIENTS, Matrix, Muon, MuonConfig};
use crate::Result;
use crate::backend::Real;
use crate::backend::cuda::{Buffer, Gpu, Ptr, int};
use crate::ops::Products;
use crate::optim::device::{
    OnDevice, Pieces, optim_adam, optim_muon_blend, optim_muon_factors, optim_muon_moments, optim_muon_start,
    optim_muon_step, over_all,
};
use crate::optim::{ParamTable, Rates};

/// What a step works on beside the moments.
pub(super) struct Working {
    /// Of the parameters that Adam steps.
    adam: Pieces,
    /// Of the matrices, in their order.
    matrices: Pieces,
    /// Of each of these pieces.
    squares: Buffer<f64>,
    /// Of each matrix.
    factors: Buffer,
    x: Buffer,
    next: Buffer,
    gram: Buffer,
    update: Buffer,
    scratch: Buffer,
}

impl Working {
    fn new(gpu: &'static Gpu, table: &ParamTable, matrices: &[Matrix]) -> Result<Self> {
        let is_matrix = |place: usize| matrices.iter().any(|matrix| matrix.place == place);
        let of_matrices = Pieces::some(gpu, table, is_matrix)?;
        let most = |of: &dyn Fn(&Matrix) -> usize| matrices.iter().map(of).max().unwrap_or(0);
        let (len, square) = (most(&|m| m.inputs * m.outputs), most(&|m| m.sides().0 * m.sides().0));
        let buffer = |len| Buffer::new(gpu, len);
        Ok(Working {
            adam: Pieces::some(gpu, table, |place| !is_matrix(place))?,
            squares: Buffer::new(gpu, of_matrices.count())?,
            matrices: of_matrices,
            factors: buffer(matrices.len())?,
            x: buffer(len)?,
            next: buffer(len)?,
            gram: buffer(square)?,
            update: buffer(square)?,
            scratch: buffer(most(&|m| m.products().scratch().max(m.square().scratch())))?,
        })
    }

    /// The iteration's steps from what lies in x on; where they end.
    fn iterate(&self, gpu: &Gpu, matrix: &Matrix, steps: u32) -> Result<Ptr> {
        let (a, b, c) = COEFFICIENTS;
        let (side, n) = (matrix.sides().0, matrix.inputs * matrix.outputs);
        let (mut x, mut next) = (self.x.ptr(), self.next.ptr());
        let (gram, update, scratch) = (self.gram.ptr(), self.update.ptr(), self.scratch.ptr());
        let (products, wide) = (matrix.products(), matrix.is_wide());
        for _ in 0..steps {
            if wide {
                products.against_columns(gpu, [x, x, gram], scratch)?;
            } else {
                products.against_rows(gpu, [x, x, gram], scratch)?;
            }
            matrix.square().forward(gpu, [gram, gram, update], scratch)?;
            let squares = side * side;
            optim_muon_blend(gpu, over_all(squares), gram, update, int(squares), b as f32, c as f32)?;
            let operands = if wide { [update, x, next] } else { [x, update, next] };
            products.forward(gpu, operands, scratch)?;
            optim_muon_blend(gpu, over_all(n), x, next, int(n), a as f32, 1.0)?;
            std::mem::swap(&mut x, &mut next);
        }
        Ok(x)
    }
}

impl Matrix {
    fn is_wide(&self) -> bool {
        self.inputs <= self.outputs
    }

    /// Those of x, and of x and a square of its shorter side.
    fn products(&self) -> Products {
        if self.is_wide() {
            Products::new(self.inputs, self.inputs, self.outputs)
        } else {
            Products::new(self.inputs, self.outputs, self.outputs)
        }
    }

    /// Those of two such squares.
    fn square(&self) -> Products {
        let side = self.sides().0;
        Products::new(side, side, side)
    }
}

/// A step of all parameters.
pub(super) fn step<E: Real>(muon: &mut Muon<E>, on: OnDevice, rates: Rates) -> Result<()> {
    let MuonConfig { nesterov, ns_steps, match_rms, adam_lr_scale, .. } = muon.config;
    let (mu, averages, debias) = muon.prepare(rates);
    let groups = &muon.rates;
    let steps = groups
        .iter()
        .map(|&(lr, lr_decay)| [(lr * adam_lr_scale * debias) as f32, 0.0, (lr_decay * adam_lr_scale) as f32]);
    let kept = muon.core.on_device(on.gpu)?;
    let steps = kept.coefficients(steps)?;
    let [m, v] = &kept.moments[..] else { unreachable!("there are two moments") };
    let (gpu, m, v) = (on.gpu, m.ptr(), v.ptr());
    let table = &muon.core.table;
    let working = muon.device.or_make(|| Working::new(gpu, table, &muon.matrices))?;
    if let Some(launch) = working.adam.launch() {
        let pieces = working.adam.ptr();
        optim_adam(gpu, launch, on.values, m, v, on.grads, pieces, steps, averages.on_device(), 0, 0.0)?;
    }
    let Some(launch) = working.matrices.launch() else { return Ok(()) };
    let (pieces, squares, factors) = (working.matrices.ptr(), working.squares.ptr(), working.factors.ptr());
    let (keep, take) = (mu as f32, (1.0 - mu) as f32);
    optim_muon_moments(gpu, launch, m, v, on.grads, pieces, keep, take, i32::from(nesterov), squares)?;
    let (places, count, of_places) = working.matrices.places();
    optim_muon_factors(gpu, of_places, squares, places, count, factors)?;
    for (i, matrix) in muon.matrices.iter().enumerate() {
        let place = &table.places()[matrix.place];
        let (len, all) = (int(place.len), over_all(place.len));
        let (p, direction) = (on.values.at(place.offset), v.at(place.offset));
        optim_muon_start(gpu, all, direction, factors, int(i), working.x.ptr(), len)?;
        let x = working.iterate(gpu, matrix, ns_steps)?;
        let (lr, lr_decay) = groups[place.group];
        optim_muon_step(gpu, all, p, direction, x, len, (lr * matrix.size(match_rms)) as f32, lr_decay as f32)?;
    }
    Ok(())
}
