//! Stochastic gradient descent with momentum.

use super::rule::{Core, Rule, check_fraction, check_size};
use super::{Decay, ParamTable, Rates};
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

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
    /// Its moment is `a`; there is none without momentum.
    core: Core<E>,
    /// What one element of each group needs; refilled by every step, allocated once.
    coefficients: Vec<Coefficients<E>>,
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
        check_fraction("momentum", config.momentum)?;
        if config.nesterov && config.momentum == 0.0 {
            return Err(Error::new(ErrorKind::Usage, "nesterov", "true without momentum").expected("momentum above 0"));
        }
        check_size("weight_decay", config.decay.strength())?;
        let coefficients = Vec::with_capacity(table.groups(0.0).count());
        let core = Core::new(table, if config.momentum == 0.0 { &[] } else { &["momentum"] });
        Ok(Sgd { config, core, coefficients })
    }

    /// μ of a step.
    fn momentum(&self, rates: Rates) -> Result<f64> {
        if rates.momentum.is_some() && self.config.momentum == 0.0 {
            let e = Error::new(ErrorKind::Usage, "momentum", "a schedule that moves it, and SGD without momentum");
            return Err(e.hint("give the optimizer a momentum above 0, or keep the schedule from moving it"));
        }
        Ok(rates.momentum.unwrap_or(self.config.momentum))
    }

    fn set_coefficients(&mut self, lr: f64) {
        let decay = self.config.decay;
        self.coefficients.clear();
        self.coefficients.extend(self.core.table.groups(decay.strength()).map(|(lr_scale, wd)| {
            let (coupled, decoupled) = decay.split(wd);
            Coefficients { lr: E::of(lr * lr_scale), coupled: E::of(coupled), decoupled: E::of(decoupled) }
        }));
    }

    fn step_with_momentum<const NESTEROV: bool>(&mut self, values: &mut [E], grads: &[E], mu: f64) {
        let (mu, groups) = (E::of(mu), &self.coefficients);
        let update = |((values, moment), grads): ((&mut [E], &mut [E]), &[E]), group: usize| {
            let c = groups[group];
            for ((p, a), &g) in values.iter_mut().zip(moment).zip(grads) {
                let g = g + c.coupled * *p;
                *a = mu * *a + g;
                let direction = if NESTEROV { g + mu * *a } else { *a };
                *p = *p - c.lr * (direction + c.decoupled * *p);
            }
        };
        self.core.table.each(((values, &mut self.core.moments[0][..]), grads), update);
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
        self.core.table.each((values, grads), update);
    }
}

impl<E: Real> Rule for Sgd<E> {
    type Elem = E;

    fn core(&self) -> &Core<E> {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core<E> {
        &mut self.core
    }

    fn apply(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        let SgdConfig { momentum, nesterov, .. } = self.config;
        let mu = self.momentum(rates)?;
        self.set_coefficients(rates.lr);
        match (momentum > 0.0, nesterov) {
            (false, _) => self.step_plain(values, grads),
            (true, false) => self.step_with_momentum::<false>(values, grads, mu),
            (true, true) => self.step_with_momentum::<true>(values, grads, mu),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn apply_on_device(&mut self, on: super::OnDevice, rates: Rates) -> Result<bool> {
        use super::device::{optim_sgd, optim_sgd_momentum};
        let mu = self.momentum(rates)? as f32;
        self.set_coefficients(rates.lr);
        let groups = self.coefficients.iter().map(|c| [c.lr, c.coupled, c.decoupled].map(|c| c.wide() as f32));
        let kept = self.core.on_device(on.gpu)?;
        let coefficients = kept.coefficients(groups)?;
        let Some(launch) = kept.pieces.launch() else { return Ok(true) };
        let (pieces, nesterov) = (kept.pieces.ptr(), i32::from(self.config.nesterov));
        match &kept.moments[..] {
            [a] => {
                optim_sgd_momentum(on.gpu, launch, on.values, a.ptr(), on.grads, pieces, coefficients, mu, nesterov)?
            }
            _ => optim_sgd(on.gpu, launch, on.values, on.grads, pieces, coefficients)?,
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
