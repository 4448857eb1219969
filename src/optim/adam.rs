//! Adam and its family: decoupled decay (AdamW), rectification (RAdam), a soft denominator (SAdam).

use super::rule::{Core, Rule, check_fraction, check_size};
use super::{Decay, ParamTable, Rates};
use crate::Result;
use crate::backend::Real;

/// The settings of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// β₁ in `[0, 1)`: the memory of the gradient's mean.
    pub momentum: f64,
    /// β₂ in `[0, 1)`: the memory of its square.
    pub sqr_momentum: f64,
    /// ε ≥ 0 of the denominator.
    pub eps: f64,
    /// Add ε to √v before the bias of v is taken out, as PyTorch's RAdam and E3's Ranger do, not after it.
    pub eps_before_debias: bool,
    /// Rectify the variance of the first steps: RAdam.
    pub rectified: bool,
    /// Where above 0, the denominator d becomes softplus(β·d)/β: SAdam.
    pub beta: f64,
    /// Weight decay.
    pub decay: Decay,
}

impl AdamConfig {
    /// fastai's Adam: β .9 and .99, ε 1e-5, decoupled decay (its default: .01).
    pub const fn fastai(weight_decay: f64) -> Self {
        AdamConfig {
            momentum: 0.9,
            sqr_momentum: 0.99,
            eps: 1e-5,
            eps_before_debias: false,
            rectified: false,
            beta: 0.0,
            decay: Decay::Decoupled(weight_decay),
        }
    }

    /// PyTorch's AdamW: β .9 and .999, ε 1e-8, decoupled decay (its default: .01).
    pub const fn adamw(weight_decay: f64) -> Self {
        AdamConfig { sqr_momentum: 0.999, eps: 1e-8, ..AdamConfig::fastai(weight_decay) }
    }

    /// fastai's RAdam: β .9 and .99, ε 1e-5, decoupled decay (its default: 0).
    pub const fn radam(weight_decay: f64) -> Self {
        AdamConfig { rectified: true, ..AdamConfig::fastai(weight_decay) }
    }

    /// What fastai's `ranger` wraps in [`Lookahead`](super::Lookahead): RAdam with β .95 and .99, ε 1e-6, decoupled
    /// decay (its default: .01).
    pub const fn ranger(weight_decay: f64) -> Self {
        AdamConfig { momentum: 0.95, eps: 1e-6, ..AdamConfig::radam(weight_decay) }
    }
}

/// Adam (Kingma and Ba 2015). With `g` the gradient (plus `λ·p` if the decay is coupled) and t the number of the step,
///
/// ```text
/// m ← β₁·m + (1 − β₁)·g
/// v ← β₂·v + (1 − β₂)·g²
/// d = √(v/(1 − β₂ᵗ)) + ε                            (√v + ε)/√(1 − β₂ᵗ) if ε comes before
/// p ← p·(1 − lr·λ) − lr/(1 − β₁ᵗ)·m/d               no λ if the decay is coupled
/// ```
///
/// RAdam (Liu et al. 2020): with r∞ = 2/(1 − β₂) − 1 and r = r∞ − 2t·β₂ᵗ/(1 − β₂ᵗ), the step is taken times
/// √((r − 4)(r − 2)r∞ / ((r∞ − 4)(r∞ − 2)r)) where r > 5, and without the denominator before. SAdam (Tong et al. 2019)
/// replaces d by softplus(β·d)/β.
///
/// Decoupled decay is computed as `p − (step + lr·λ·p)`, since `1 − lr·λ` would round away most of a small `lr·λ` in
/// f32. The floor is memory: 7 accesses per element (28 bytes in f32); a square root and a division hide behind them.
///
/// ```
/// use handgrad::optim::{Adam, AdamConfig, Optimizer, ParamEntry, ParamTable, Rates};
/// let table = ParamTable::new([ParamEntry::vector("w", 0, 1)], 1, &[])?;
/// let mut adam = Adam::<f64>::new(AdamConfig { eps: 0.0, ..AdamConfig::adamw(0.0) }, table)?;
/// let mut w = [1.0];
/// adam.step(&mut w, &[-123.0], Rates::of(0.1))?;
/// assert!((w[0] - 1.1).abs() < 1e-12); // the first step has the length of the rate, whatever the gradient
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adam<E> {
    config: AdamConfig,
    core: Core<E>,
    /// What one element of each group needs; refilled by every step, allocated once.
    coefficients: Vec<Coefficients<E>>,
}

/// One group's numbers in one step.
#[derive(Clone, Copy, Debug)]
struct Coefficients<E> {
    /// Factor of m/d.
    step: E,
    /// λ where it is added to the gradient.
    coupled: E,
    /// lr·λ where it is added to the step.
    decay: E,
}

/// β₁, β₂ and what belongs to them in one step.
#[derive(Clone, Copy)]
pub(super) struct Averages<E> {
    keep1: E,
    take1: E,
    keep2: E,
    take2: E,
    /// 1/√(1 − β₂ᵗ).
    debias: E,
    /// What is added to √v·debias.
    eps: E,
}

impl<E: Real> Averages<E> {
    pub fn new(config: &AdamConfig, beta1: f64, step: u64) -> Self {
        let debias = 1.0 / (1.0 - power(config.sqr_momentum, step)).sqrt();
        Averages {
            keep1: E::of(beta1),
            take1: E::of(1.0 - beta1),
            keep2: E::of(config.sqr_momentum),
            take2: E::of(1.0 - config.sqr_momentum),
            debias: E::of(debias),
            eps: E::of(if config.eps_before_debias { config.eps * debias } else { config.eps }),
        }
    }

    #[cfg(feature = "cuda")]
    pub fn on_device(&self) -> super::device::Averages {
        let [keep1, take1, keep2, take2, debias, eps] =
            [self.keep1, self.take1, self.keep2, self.take2, self.debias, self.eps].map(|value| value.wide() as f32);
        super::device::Averages { keep1, take1, keep2, take2, debias, eps }
    }

    /// Takes one element's gradient into its moments.
    #[inline(always)]
    pub fn update(&self, m: &mut E, v: &mut E, g: E) {
        *m = self.keep1 * *m + self.take1 * g;
        *v = self.keep2 * *v + self.take2 * g * g;
    }

    /// The denominator d.
    #[inline(always)]
    pub fn denominator(&self, v: E) -> E {
        v.sqrt() * self.debias + self.eps
    }
}

/// βᵗ.
pub(super) fn power(beta: f64, step: u64) -> f64 {
    beta.powf(step as f64)
}

/// What the direction of a step is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    /// m/d, times this.
    Adaptive(f64),
    /// m alone: RAdam's first steps.
    Mean,
}

impl Direction {
    fn of(config: &AdamConfig, step: u64) -> Self {
        let beta = config.sqr_momentum;
        if !config.rectified {
            return Direction::Adaptive(1.0);
        }
        let (t, power) = (step as f64, power(beta, step));
        let end = 2.0 / (1.0 - beta) - 1.0;
        let r = end - 2.0 * t * power / (1.0 - power);
        if r > 5.0 {
            Direction::Adaptive(((r - 4.0) * (r - 2.0) * end / ((end - 4.0) * (end - 2.0) * r)).sqrt())
        } else {
            Direction::Mean
        }
    }
}

impl<E: Real> Adam<E> {
    /// An optimizer at step 0 with zero moments.
    ///
    /// # Errors
    /// `Usage` if a momentum is outside `[0, 1)`, or ε, β or the decay negative or not finite.
    pub fn new(config: AdamConfig, table: ParamTable) -> Result<Self> {
        config.check()?;
        Ok(Adam {
            config,
            coefficients: Vec::with_capacity(table.groups(0.0).count()),
            core: Core::new(table, &MOMENTS),
        })
    }

    /// The coefficients of a step, its direction, and β₁, β₂ and what belongs to them.
    fn prepare(&mut self, rates: Rates) -> (Direction, Averages<E>) {
        let step = self.core.steps + 1;
        let beta1 = rates.momentum.unwrap_or(self.config.momentum);
        let direction = Direction::of(&self.config, step);
        let factor = match direction {
            Direction::Adaptive(rectified) => rectified,
            Direction::Mean => 1.0,
        };
        let factor = factor / (1.0 - power(beta1, step));
        let decay = self.config.decay;
        self.coefficients.clear();
        self.coefficients.extend(self.core.table.groups(decay.strength()).map(|(lr_scale, wd)| {
            let (lr, (coupled, decoupled)) = (rates.lr * lr_scale, decay.split(wd));
            Coefficients { step: E::of(lr * factor), coupled: E::of(coupled), decay: E::of(lr * decoupled) }
        }));
        (direction, Averages::new(&self.config, beta1, step))
    }

    /// The fused pass: moments, and `p − (step·direction(m, v) + decay·p)`.
    fn pass(&mut self, values: &mut [E], grads: &[E], averages: Averages<E>, direction: impl Fn(E, E) -> E + Sync) {
        let Core { table, moments, .. } = &mut self.core;
        let [m, v] = &mut moments[..] else { unreachable!("there are two moments") };
        let groups = &self.coefficients;
        table.each((((values, &mut m[..]), &mut v[..]), grads), |(((values, m), v), grads), group| {
            let c = groups[group];
            for (((p, m), v), &g) in values.iter_mut().zip(m).zip(v).zip(grads) {
                averages.update(m, v, g + c.coupled * *p);
                *p = *p - (c.step * direction(*m, *v) + c.decay * *p);
            }
        });
    }
}

/// The moments' names in a checkpoint.
pub(super) const MOMENTS: [&str; 2] = ["mean", "square"];

impl AdamConfig {
    pub(super) fn check(&self) -> Result<()> {
        check_fraction("momentum", self.momentum)?;
        check_fraction("sqr_momentum", self.sqr_momentum)?;
        check_size("eps", self.eps)?;
        check_size("beta", self.beta)?;
        check_size("weight_decay", self.decay.strength())
    }
}

impl<E: Real> Rule for Adam<E> {
    type Elem = E;

    fn core(&self) -> &Core<E> {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core<E> {
        &mut self.core
    }

    fn apply(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        let (direction, averages) = self.prepare(rates);
        match direction {
            Direction::Mean => self.pass(values, grads, averages, |m, _| m),
            Direction::Adaptive(_) if self.config.beta > 0.0 => {
                let beta = E::of(self.config.beta);
                self.pass(values, grads, averages, |m, v| m / softplus(averages.denominator(v), beta));
            }
            Direction::Adaptive(_) => self.pass(values, grads, averages, |m, v| m / averages.denominator(v)),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn apply_on_device(&mut self, on: super::OnDevice, rates: Rates) -> Result<bool> {
        let (direction, averages) = self.prepare(rates);
        let kind = match direction {
            Direction::Mean => 1,
            Direction::Adaptive(_) if self.config.beta > 0.0 => 2,
            Direction::Adaptive(_) => 0,
        };
        let groups = self.coefficients.iter().map(|c| [c.step, c.coupled, c.decay].map(|c| c.wide() as f32));
        let kept = self.core.on_device(on.gpu)?;
        let coefficients = kept.coefficients(groups)?;
        let (Some(launch), [m, v]) = (kept.pieces.launch(), &kept.moments[..]) else { return Ok(true) };
        super::device::optim_adam(
            on.gpu,
            launch,
            on.values,
            m.ptr(),
            v.ptr(),
            on.grads,
            kept.pieces.ptr(),
            coefficients,
            averages.on_device(),
            kind,
            self.config.beta as f32,
        )?;
        Ok(true)
    }
}

/// ln(1 + exp(β·x))/β for x ≥ 0, as x + ln(1 + exp(−β·x))/β; x itself above 20/β, where they are the same in f32:
/// PyTorch's.
#[inline(always)]
fn softplus<E: Real>(x: E, beta: E) -> E {
    let z = beta * x;
    let soft = x + (-z).lane_exp().lane_ln_1p() / beta;
    if z > E::of(20.0) { x } else { soft }
}
