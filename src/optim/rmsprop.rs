//! RMSProp.

use super::rule::{Core, Rule, check_fraction, check_size};
use super::{Decay, ParamTable, Rates};
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// The settings of [`RmsProp`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropConfig {
    /// μ in `[0, 1)`; 0 keeps no moment for it.
    pub momentum: f64,
    /// β in `[0, 1)`: the memory of the gradient's square.
    pub sqr_momentum: f64,
    /// ε ≥ 0 of the denominator.
    pub eps: f64,
    /// Divide first and average then, as PyTorch does, not the other way round, as fastai does. Without momentum they
    /// are the same.
    pub divide_first: bool,
    /// Weight decay.
    pub decay: Decay,
}

impl RmsPropConfig {
    /// fastai's and PyTorch's defaults, which agree: β .99, ε 1e-8, no momentum, no decay (decoupled as in fastai).
    pub const DEFAULT: RmsPropConfig = RmsPropConfig {
        momentum: 0.0,
        sqr_momentum: 0.99,
        eps: 1e-8,
        divide_first: false,
        decay: Decay::Decoupled(0.0),
    };
}

/// RMSProp (Hinton 2012): with `g` the gradient (plus `λ·p` if the decay is coupled),
///
/// ```text
/// v ← β·v + (1 − β)·g²                                   its bias is not taken out
/// p ← p·(1 − lr·λ) − lr·g/(√v + ε)                       no momentum
/// a ← μ·a + g;              p ← … − lr·a/(√v + ε)        fastai
/// a ← μ·a + g/(√v + ε);     p ← … − lr·a                 PyTorch
/// ```
///
/// The floor is memory: 5 accesses per element, 7 with momentum.
///
/// ```
/// use handgrad::optim::{Optimizer, ParamEntry, ParamTable, Rates, RmsProp, RmsPropConfig};
/// let table = ParamTable::new([ParamEntry::vector("w", 0, 1)], 1, &[])?;
/// let mut rmsprop = RmsProp::<f64>::new(RmsPropConfig { eps: 0.0, ..RmsPropConfig::DEFAULT }, table)?;
/// let mut w = [1.0];
/// rmsprop.step(&mut w, &[5.0], Rates::of(0.1))?;
/// assert!(w[0].abs() < 1e-12); // g/√(.01·g²) = 10
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RmsProp<E> {
    config: RmsPropConfig,
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

impl<E: Real> RmsProp<E> {
    /// An optimizer at step 0 with zero moments.
    ///
    /// # Errors
    /// `Usage` if a momentum is outside `[0, 1)`, or ε or the decay negative or not finite.
    pub fn new(config: RmsPropConfig, table: ParamTable) -> Result<Self> {
        check_fraction("momentum", config.momentum)?;
        check_fraction("sqr_momentum", config.sqr_momentum)?;
        check_size("eps", config.eps)?;
        check_size("weight_decay", config.decay.strength())?;
        let coefficients = Vec::with_capacity(table.groups(0.0).count());
        let names: &[&str] = if config.momentum == 0.0 { &["square"] } else { &["square", "momentum"] };
        Ok(RmsProp { config, core: Core::new(table, names), coefficients })
    }

    /// Sets the coefficients of a step, and gives its μ.
    fn prepare(&mut self, rates: Rates) -> Result<f64> {
        let RmsPropConfig { momentum, decay, .. } = self.config;
        if rates.momentum.is_some() && momentum == 0.0 {
            let e = Error::new(ErrorKind::Usage, "momentum", "a schedule that moves it, and RMSProp without momentum");
            return Err(e.hint("give the optimizer a momentum above 0, or keep the schedule from moving it"));
        }
        self.coefficients.clear();
        self.coefficients.extend(self.core.table.groups(decay.strength()).map(|(lr_scale, wd)| {
            let (coupled, decoupled) = decay.split(wd);
            Coefficients { lr: E::of(rates.lr * lr_scale), coupled: E::of(coupled), decoupled: E::of(decoupled) }
        }));
        Ok(rates.momentum.unwrap_or(momentum))
    }
}

impl<E: Real> Rule for RmsProp<E> {
    type Elem = E;

    fn core(&self) -> &Core<E> {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core<E> {
        &mut self.core
    }

    fn apply(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        let RmsPropConfig { sqr_momentum, eps, divide_first, .. } = self.config;
        let mu = E::of(self.prepare(rates)?);
        let groups = &self.coefficients;
        let (keep, take, eps) = (E::of(sqr_momentum), E::of(1.0 - sqr_momentum), E::of(eps));
        let square = |v: &mut E, g: E| {
            *v = keep * *v + take * g * g;
            v.sqrt() + eps
        };
        let Core { table, moments, .. } = &mut self.core;
        match &mut moments[..] {
            [v, a] => {
                table.each((((values, &mut v[..]), &mut a[..]), grads), |(((values, v), a), grads), group| {
                    let c = groups[group];
                    for (((p, v), a), &g) in values.iter_mut().zip(v).zip(a).zip(grads) {
                        let g = g + c.coupled * *p;
                        let d = square(v, g);
                        let step = if divide_first {
                            *a = mu * *a + g / d;
                            *a
                        } else {
                            *a = mu * *a + g;
                            *a / d
                        };
                        *p = *p - c.lr * (step + c.decoupled * *p);
                    }
                });
            }
            [v] => table.each(((values, &mut v[..]), grads), |((values, v), grads), group| {
                let c = groups[group];
                for ((p, v), &g) in values.iter_mut().zip(v).zip(grads) {
                    let g = g + c.coupled * *p;
                    let d = square(v, g);
                    *p = *p - c.lr * (g / d + c.decoupled * *p);
                }
            }),
            _ => unreachable!("there are one or two moments"),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn apply_on_device(&mut self, on: super::OnDevice, rates: Rates) -> Result<bool> {
        use super::device::{optim_rmsprop, optim_rmsprop_momentum};
        let mu = self.prepare(rates)? as f32;
        let RmsPropConfig { sqr_momentum, eps, divide_first, .. } = self.config;
        let (keep, take, eps) = (sqr_momentum as f32, (1.0 - sqr_momentum) as f32, eps as f32);
        let groups = self.coefficients.iter().map(|c| [c.lr, c.coupled, c.decoupled].map(|c| c.wide() as f32));
        let kept = self.core.on_device(on.gpu)?;
        let rates = kept.coefficients(groups)?;
        let (Some(launch), pieces) = (kept.pieces.launch(), kept.pieces.ptr()) else { return Ok(true) };
        let (gpu, p, g) = (on.gpu, on.values, on.grads);
        match &kept.moments[..] {
            [v, a] => {
                let (v, a, divide_first) = (v.ptr(), a.ptr(), i32::from(divide_first));
                optim_rmsprop_momentum(gpu, launch, p, v, a, g, pieces, rates, keep, take, eps, mu, divide_first)?;
            }
            [v] => optim_rmsprop(gpu, launch, p, v.ptr(), g, pieces, rates, keep, take, eps)?,
            _ => unreachable!("there are one or two moments"),
        }
        Ok(true)
    }
}
