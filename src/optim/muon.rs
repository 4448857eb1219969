//! Muon: momentum made orthogonal, for the weight matrices inside a network.

#[cfg(feature = "cuda")]
mod device;

use rayon::prelude::*;

use super::adam::{Averages, MOMENTS, power};
#[cfg(feature = "cuda")]
use super::device::There;
use super::rule::{Core, Rule, check_fraction, check_size};
use super::{AdamConfig, ParamTable, Rates};
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// The iteration's coefficients: the steepest at 0 of those that bring every singular value to about 1.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
/// A direction's norm counts as no less than this.
const LEAST_NORM: f64 = 1e-7;
/// Elements of a pass over one matrix that a thread handles alone.
const PIECE: usize = 16 * 1024;

/// The settings of [`Muon`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonConfig {
    /// μ in `[0, 1)`.
    pub momentum: f64,
    /// Look ahead along the moment.
    pub nesterov: bool,
    /// Steps of the iteration, 1 to 99.
    pub ns_steps: u32,
    /// Scale steps to the size of Adam's (Liu et al. 2025), so that its rates serve here.
    pub match_rms: bool,
    /// λ of the decoupled weight decay, of all parameters.
    pub weight_decay: f64,
    /// The settings for the other parameters; its decay does not count.
    pub adam: AdamConfig,
    /// The factor on their learning rate.
    pub adam_lr_scale: f64,
}

impl MuonConfig {
    /// PyTorch's defaults, and for the other parameters those of Muon's author: β .9 and .95, ε 1e-10, and 3e-4 where
    /// matrices have a rate of .02.
    pub const DEFAULT: MuonConfig = MuonConfig {
        momentum: 0.95,
        nesterov: true,
        ns_steps: 5,
        match_rms: false,
        weight_decay: 0.1,
        adam: AdamConfig { sqr_momentum: 0.95, eps: 1e-10, ..AdamConfig::adamw(0.0) },
        adam_lr_scale: 0.015,
    };
}

/// Muon (Jordan et al. 2024). A weight counts as a matrix of its outputs by all inputs of one (for a convolution those
/// under its window). All matrices but the first and the last of the model take
///
/// ```text
/// m ← μ·m + (1 − μ)·g
/// x = m, or g + μ·(m − g) with Nesterov, divided by its Frobenius norm
/// x ← a·x + (b·x·xᵀ + c·(x·xᵀ)²)·x                       ns_steps times: Newton and Schulz
/// p ← p·(1 − lr·λ) − lr·√max(1, outputs/inputs)·x        with match_rms: lr·.2·√max(outputs, inputs)
/// ```
///
/// and all else AdamW. The floor is arithmetic: for a matrix with r ≤ c sides, 4·r²·c + 2·r³ operations per iteration.
/// The iteration does not care which side is which, so x is laid out with its shorter side as rows.
///
/// ```
/// use handgrad::optim::{Muon, MuonConfig, Optimizer, ParamEntry, ParamTable, Rates};
/// let matrix = |name, offset| ParamEntry { matrix: Some((2, 2)), ..ParamEntry::vector(name, offset, 4) };
/// let table = ParamTable::new([matrix("in", 0), matrix("hidden", 4), matrix("out", 8)], 12, &[])?;
/// let config = MuonConfig { weight_decay: 0.0, ..MuonConfig::DEFAULT };
/// let mut muon = Muon::<f64>::new(config, table)?;
/// let mut w = [0.0; 12];
/// muon.step(&mut w, &[5.0, 0.0, 0.0, 0.1, 5.0, 0.0, 0.0, 0.1, 5.0, 0.0, 0.0, 0.1], Rates::of(1.0))?;
/// // However different its gradient's singular values, the hidden matrix moves by about 1 in each direction.
/// assert!(w[4] < -0.6 && w[7] < -0.6 && w[5] == 0.0);
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Muon<E> {
    config: MuonConfig,
    /// For the matrices, the second moment's buffer holds the direction of the step.
    core: Core<E>,
    matrices: Vec<Matrix>,
    /// Of each piece: whether it belongs to a matrix, and the sum of its direction's squares.
    pieces: Vec<(bool, f64)>,
    /// Each group's lr and lr·λ in one step.
    rates: Vec<(f64, f64)>,
    work: Work<E>,
    #[cfg(feature = "cuda")]
    device: There<device::Working>,
}

/// One weight that is stepped as a matrix.
#[derive(Clone, Debug)]
struct Matrix {
    place: usize,
    inputs: usize,
    outputs: usize,
}

impl Matrix {
    /// All matrices but the first and the last: the layers that touch images and classes are not hidden. Frozen ones have
    /// no pieces, and take no work.
    fn hidden(table: &ParamTable) -> Vec<Matrix> {
        let found = |(i, place): (usize, &super::table::Place)| {
            place.matrix.filter(|_| place.len > 0).map(|(inputs, outputs)| Matrix { place: i, inputs, outputs })
        };
        let mut matrices: Vec<Matrix> = table.places().iter().enumerate().filter_map(found).collect();
        matrices.pop();
        matrices.drain(..matrices.len().min(1));
        matrices.retain(|matrix| !table.places()[matrix.place].pieces.is_empty());
        matrices
    }

    /// Rows and columns of x: the shorter and the longer side.
    fn sides(&self) -> (usize, usize) {
        (self.inputs.min(self.outputs), self.inputs.max(self.outputs))
    }

    /// The factor on the rate.
    fn size(&self, match_rms: bool) -> f64 {
        let (long, short) = (self.sides().1 as f64, self.outputs as f64 / self.inputs as f64);
        if match_rms { 0.2 * long.sqrt() } else { short.max(1.0).sqrt() }
    }
}

/// Buffers of the iteration, as long as the largest matrix needs.
#[derive(Clone, Debug)]
struct Work<E> {
    x: Vec<E>,
    next: Vec<E>,
    gram: Vec<E>,
    update: Vec<E>,
    scratch: Vec<E>,
}

impl<E: Real> Muon<E> {
    /// An optimizer at step 0 with zero moments.
    ///
    /// # Errors
    /// `Usage` if a setting is outside the range that [`MuonConfig`] states.
    pub fn new(config: MuonConfig, table: ParamTable) -> Result<Self> {
        check_fraction("momentum", config.momentum)?;
        check_size("weight_decay", config.weight_decay)?;
        check_size("adam_lr_scale", config.adam_lr_scale)?;
        config.adam.check()?;
        if !(1..100).contains(&config.ns_steps) {
            return Err(Error::new(ErrorKind::Usage, "ns_steps", config.ns_steps).expected("1 to 99"));
        }
        if config.adam.rectified || config.adam.beta > 0.0 {
            let e = Error::new(ErrorKind::Usage, "muon", "a rectified Adam, or one with a soft denominator");
            return Err(e.expected("Adam's own settings"));
        }
        let matrices = Matrix::hidden(&table);
        let mut pieces = vec![(false, 0.0); table.piece_count()];
        for matrix in &matrices {
            pieces[table.places()[matrix.place].pieces.clone()].fill((true, 0.0));
        }
        let rates = Vec::with_capacity(table.groups(0.0).count());
        let work = Work::new(&matrices);
        Ok(Muon {
            config,
            core: Core::new(table, &MOMENTS),
            matrices,
            pieces,
            rates,
            work,
            #[cfg(feature = "cuda")]
            device: There::default(),
        })
    }

    /// Sets the rates of a step, and gives μ, Adam's averages, and 1/(1 − β₁ᵗ).
    fn prepare(&mut self, rates: Rates) -> (f64, Averages<E>, f64) {
        let (step, MuonConfig { momentum, weight_decay, adam, .. }) = (self.core.steps + 1, self.config);
        let of_group = |(lr_scale, wd): (f64, f64)| (rates.lr * lr_scale, rates.lr * lr_scale * wd);
        self.rates.clear();
        self.rates.extend(self.core.table.groups(weight_decay).map(of_group));
        let debias = 1.0 / (1.0 - power(adam.momentum, step));
        (rates.momentum.unwrap_or(momentum), Averages::new(&adam, adam.momentum, step), debias)
    }

    /// The elements that it keeps beside its moments, to work on its largest matrix.
    pub fn work_len(table: &ParamTable) -> usize {
        Work::<E>::lens(&Matrix::hidden(table)).into_iter().fold(0, usize::saturating_add)
    }
}

impl<E: Real> Work<E> {
    fn new(matrices: &[Matrix]) -> Self {
        let [x, next, gram, update, scratch] = Work::<E>::lens(matrices).map(|len| vec![E::zero(); len]);
        Work { x, next, gram, update, scratch }
    }

    /// The lengths of x, next, gram, update and scratch.
    fn lens(matrices: &[Matrix]) -> [usize; 5] {
        let most = |of: &dyn Fn(usize, usize) -> usize| {
            matrices.iter().map(|matrix| matrix.sides()).map(|(r, c)| of(r, c)).max().unwrap_or(0)
        };
        let scratch = |r: usize, c: usize| {
            [E::multiply_transposed_scratch(r, c, r), E::multiply_scratch(r, r, r), E::multiply_scratch(r, r, c)]
                .into_iter()
                .max()
                .unwrap_or(0)
        };
        let (matrix, square) = (most(&|r, c| r * c), most(&|r, _| r * r));
        [matrix, matrix, square, square, most(&scratch)]
    }

    /// One step of the iteration on `x [r, c]`.
    fn iterate(&mut self, r: usize, c: usize) {
        let (a, b, c2) = (E::of(COEFFICIENTS.0), E::of(COEFFICIENTS.1), E::of(COEFFICIENTS.2));
        let (x, next) = (&mut self.x[..r * c], &mut self.next[..r * c]);
        let (gram, update) = (&mut self.gram[..r * r], &mut self.update[..r * r]);
        E::multiply_transposed([r, c, r], x, x, gram, &mut self.scratch);
        E::multiply([r, r, r], gram, gram, update, &mut self.scratch);
        update.iter_mut().zip(&*gram).for_each(|(u, &g)| *u = b * g + c2 * *u);
        E::multiply([r, r, c], update, x, next, &mut self.scratch);
        x.par_chunks_mut(PIECE).zip(next.par_chunks(PIECE)).for_each(|(x, next)| {
            x.iter_mut().zip(next).for_each(|(x, &next)| *x = a * *x + next);
        });
    }
}

/// `to [n, m]` = factor · (`from [m, n]`)ᵀ.
fn transpose<E: Real>(from: &[E], to: &mut [E], n: usize, factor: E) {
    let m = from.len() / n.max(1);
    to.par_chunks_mut(m.max(1)).enumerate().for_each(|(j, row)| {
        row.iter_mut().zip(from.iter().skip(j).step_by(n)).for_each(|(to, &from)| *to = factor * from);
    });
}

impl<E: Real> Rule for Muon<E> {
    type Elem = E;

    fn core(&self) -> &Core<E> {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core<E> {
        &mut self.core
    }

    fn apply(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        let MuonConfig { nesterov, ns_steps, match_rms, adam_lr_scale, .. } = self.config;
        let (mu, averages, debias) = self.prepare(rates);
        let Core { table, moments, .. } = &mut self.core;
        let [m, v] = &mut moments[..] else { unreachable!("there are two moments") };

        // One pass over all: Adam's parameters are stepped, the matrices get their direction.
        let groups = &self.rates;
        let (keep, take) = (E::of(mu), E::of(1.0 - mu));
        let buffers = (((&mut *values, &mut m[..]), &mut v[..]), grads);
        table.each_with(buffers, &mut self.pieces, |(((values, m), v), grads), group, (is_matrix, squares)| {
            if *is_matrix {
                *squares = 0.0;
                for ((m, direction), &g) in m.iter_mut().zip(v).zip(grads) {
                    *m = keep * *m + take * g;
                    *direction = if nesterov { g + keep * (*m - g) } else { *m };
                    *squares += direction.wide() * direction.wide();
                }
                return;
            }
            let (lr, lr_decay) = groups[group];
            let (factor, shrink) = (E::of(lr * adam_lr_scale * debias), E::of(lr_decay * adam_lr_scale));
            for (((p, m), v), &g) in values.iter_mut().zip(m).zip(v).zip(grads) {
                averages.update(m, v, g);
                *p = *p - (factor * (*m / averages.denominator(*v)) + shrink * *p);
            }
        });

        for matrix in &self.matrices {
            let place = &table.places()[matrix.place];
            let (range, (r, c)) = (place.offset..place.offset + place.len, matrix.sides());
            let (inputs, outputs) = (matrix.inputs, matrix.outputs);
            let norm = self.pieces[place.pieces.clone()].iter().map(|(_, squares)| squares).sum::<f64>().sqrt();
            let shrink = E::of(1.0 / norm.max(LEAST_NORM));
            let (direction, x) = (&mut v[range.clone()], &mut self.work.x[..r * c]);
            if inputs <= outputs {
                x.iter_mut().zip(&*direction).for_each(|(x, &direction)| *x = shrink * direction);
            } else {
                transpose(direction, x, outputs, shrink);
            }
            (0..ns_steps).for_each(|_| self.work.iterate(r, c));
            if inputs <= outputs {
                direction.copy_from_slice(&self.work.x[..r * c]);
            } else {
                transpose(&self.work.x[..r * c], direction, inputs, E::one());
            }
            let (lr, lr_decay) = groups[place.group];
            let (factor, shrink) = (E::of(lr * matrix.size(match_rms)), E::of(lr_decay));
            values[range].par_chunks_mut(PIECE).zip(direction.par_chunks(PIECE)).for_each(|(values, direction)| {
                values.iter_mut().zip(direction).for_each(|(p, &x)| *p = *p - (factor * x + shrink * *p));
            });
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn apply_on_device(&mut self, on: super::OnDevice, rates: Rates) -> Result<bool> {
        device::step(self, on, rates).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::ParamEntry;

    #[test]
    fn the_work_that_is_announced_is_what_it_keeps() {
        let matrix = |name, offset, (inputs, outputs)| ParamEntry {
            matrix: Some((inputs, outputs)),
            ..ParamEntry::vector(name, offset, inputs * outputs)
        };
        let entries = [matrix("in", 0, (50, 40)), matrix("hidden", 2000, (3, 7)), matrix("out", 2021, (60, 50))];
        let table = ParamTable::new(entries, 5021, &[]).unwrap();
        let announced = Muon::<f32>::work_len(&table);
        let Work { x, next, gram, update, scratch } = Muon::<f32>::new(MuonConfig::DEFAULT, table).unwrap().work;
        assert_eq!([x.len(), next.len(), gram.len(), update.len()], [21, 21, 9, 9]);
        assert_eq!(announced, 60 + scratch.len());
    }
}
