//! Stochastic gradient descent with momentum.

use super::{Optimizer, ParamTable};
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// How weight decay enters a step; the number is its strength λ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// L2 regularisation: `g += λ·p` before the momentum (E1, E5).
    Coupled(f64),
    /// `p *= 1 − lr·λ` before the step, outside the momentum (E2, E3).
    Decoupled(f64),
}

/// The settings of [`Sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdConfig {
    /// μ in `[0, 1)`; 0 keeps no moment.
    pub momentum: f64,
    /// Look ahead along the moment (Sutskever et al. 2013, in the form of PyTorch). Needs momentum.
    pub nesterov: bool,
    /// Weight decay.
    pub decay: Decay,
}

/// SGD: with `g` the gradient (plus `λ·p` if the decay is coupled),
///
/// ```text
/// a ← μ·a + g                      no dampening; a starts at 0, so the first a is g
/// p ← p − lr·a                     momentum
/// p ← p − lr·(g + μ·a)             Nesterov
/// ```
///
/// Decoupled decay, `p·(1 − lr·λ) − lr·a`, is computed as `p − lr·(a + λ·p)`: the same number, but `1 − lr·λ` would
/// round away most of a small `lr·λ` in f32.
///
/// The floor is memory: 5 accesses per element with momentum (20 bytes in f32), 3 without.
#[derive(Clone, Debug)]
pub struct Sgd<E> {
    config: SgdConfig,
    table: ParamTable,
    /// The moment `a`; empty without momentum.
    moment: Vec<E>,
    /// What one element of each group needs; refilled by every step, allocated once.
    coefficients: Vec<Coefficients<E>>,
    steps: u64,
}

/// One group's numbers in one step.
#[derive(Clone, Copy, Debug)]
struct Coefficients<E> {
    lr: E,
    /// λ where it is added to the gradient.
    coupled: E,
    /// λ where it is added to the update.
    decoupled: E,
}

impl<E: Real> Sgd<E> {
    /// An optimizer at step 0 with a zero moment.
    ///
    /// # Errors
    /// `Usage` if the momentum is outside `[0, 1)`, Nesterov has no momentum, or the decay is negative or not finite.
    pub fn new(config: SgdConfig, table: ParamTable) -> Result<Self> {
        let usage = |key: &str, found: String, expected: &str| {
            Err(Error::new(ErrorKind::Usage, format!("sgd {key}"), found).expected(expected))
        };
        if !(0.0..1.0).contains(&config.momentum) {
            return usage("momentum", config.momentum.to_string(), "a number from 0 to below 1");
        }
        if config.nesterov && config.momentum == 0.0 {
            return usage("nesterov", "true without momentum".into(), "momentum above 0");
        }
        let (Decay::Coupled(wd) | Decay::Decoupled(wd)) = config.decay;
        if !(wd.is_finite() && wd >= 0.0) {
            return usage("weight_decay", wd.to_string(), "a finite number, 0 or more");
        }
        let moment = if config.momentum == 0.0 { Vec::new() } else { vec![E::default(); table.len()] };
        let mut sgd = Sgd { config, table, moment, coefficients: Vec::new(), steps: 0 };
        sgd.set_coefficients(0.0);
        Ok(sgd)
    }

    fn set_coefficients(&mut self, lr: f64) {
        let (strength, coupled) = match self.config.decay {
            Decay::Coupled(wd) => (wd, true),
            Decay::Decoupled(wd) => (wd, false),
        };
        self.coefficients.clear();
        self.coefficients.extend(self.table.groups(strength).map(|(lr_scale, wd)| Coefficients {
            lr: E::of(lr * lr_scale),
            coupled: E::of(if coupled { wd } else { 0.0 }),
            decoupled: E::of(if coupled { 0.0 } else { wd }),
        }));
    }

    fn step_with_momentum<const NESTEROV: bool>(&mut self, values: &mut [E], grads: &[E]) {
        let (mu, groups) = (E::of(self.config.momentum), &self.coefficients);
        let update = |((values, moment), grads): ((&mut [E], &mut [E]), &[E]), group: usize| {
            let c = groups[group];
            for ((p, a), &g) in values.iter_mut().zip(moment).zip(grads) {
                let g = g + c.coupled * *p;
                *a = mu * *a + g;
                let direction = if NESTEROV { g + mu * *a } else { *a };
                *p = *p - c.lr * (direction + c.decoupled * *p);
            }
        };
        self.table.reduce(((values, &mut self.moment[..]), grads), update, |(), ()| ());
    }

    fn step_plain(&self, values: &mut [E], grads: &[E]) {
        let update = |(values, grads): (&mut [E], &[E]), group: usize| {
            let c = self.coefficients[group];
            // Without a moment both kinds of decay are the same.
            let wd = c.coupled + c.decoupled;
            for (p, &g) in values.iter_mut().zip(grads) {
                *p = *p - c.lr * (g + wd * *p);
            }
        };
        self.table.reduce((values, grads), update, |(), ()| ());
    }
}

impl<E: Real> Optimizer<E> for Sgd<E> {
    fn step(&mut self, values: &mut [E], grads: &[E], lr: f64) -> Result<()> {
        self.table.check_len("parameters", values.len())?;
        self.table.check_len("gradients", grads.len())?;
        if !(lr.is_finite() && lr >= 0.0) {
            return Err(Error::new(ErrorKind::Usage, "learning rate", lr).expected("a finite number, 0 or more"));
        }
        self.set_coefficients(lr);
        match (self.config.momentum > 0.0, self.config.nesterov) {
            (false, _) => self.step_plain(values, grads),
            (true, false) => self.step_with_momentum::<false>(values, grads),
            (true, true) => self.step_with_momentum::<true>(values, grads),
        }
        self.steps += 1;
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn moments(&self) -> Vec<(&'static str, &[E])> {
        if self.config.momentum == 0.0 { Vec::new() } else { vec![("momentum", &self.moment)] }
    }

    fn restore(&mut self, steps: u64, moments: &[(&str, &[E])]) -> Result<()> {
        let describe =
            |list: &[(&str, &[E])]| list.iter().map(|(n, m)| format!("{n} × {}", m.len())).collect::<Vec<_>>();
        let (expected, found) = (describe(&self.moments()), describe(moments));
        if expected != found {
            return Err(Error::new(ErrorKind::Format, "optimizer state", format!("moments {found:?}"))
                .expected(format!("{expected:?}"))
                .hint("the checkpoint belongs to another optimizer or model"));
        }
        if let [(_, saved)] = moments {
            self.moment.copy_from_slice(saved);
        }
        self.steps = steps;
        Ok(())
    }

    fn table(&self) -> &ParamTable {
        &self.table
    }
}

#[cfg(test)]
mod tests;
