//! LAMB: Adam with a rate for each parameter.

use super::adam::{Averages, MOMENTS, power};
#[cfg(feature = "cuda")]
use super::device::There;
use super::rule::{Core, Rule};
use super::{AdamConfig, Decay, ParamTable, Rates};
use crate::Result;
use crate::backend::Real;
#[cfg(feature = "cuda")]
use crate::backend::cuda::Buffer;

/// The most that a parameter's size raises its rate.
const MAX_TRUST: f64 = 10.0;

/// LAMB (You et al. 2020) as fastai computes it: with m and v as in [`Adam`](super::Adam),
///
/// ```text
/// p ← p·(1 − lr·λ)                                       if the decay is decoupled
/// s = m/(1 − β₁ᵗ)/(√(v/(1 − β₂ᵗ)) + ε)
/// q = min(‖p‖/‖s‖, 10)                                   per parameter; 1 if a norm is 0
/// p ← p − lr·q·s
/// ```
///
/// Two passes: the first leaves moments and norms, the second computes s once more from the moments, since storing it
/// would cost as much as reading m and v. Squares are summed in f64 per piece, pieces in order. The floor is memory: 11
/// accesses per element.
///
/// ```
/// use handgrad::optim::{AdamConfig, Lamb, Optimizer, ParamEntry, ParamTable, Rates};
/// let table = ParamTable::new([ParamEntry::vector("w", 0, 2)], 2, &[])?;
/// let mut lamb = Lamb::<f64>::new(AdamConfig { eps: 0.0, ..AdamConfig::fastai(0.0) }, table)?;
/// let mut w = [3.0, -4.0];
/// lamb.step(&mut w, &[7.0, 1.0], Rates::of(0.01))?;
/// let moved = f64::hypot(w[0] - 3.0, w[1] + 4.0);
/// assert!((moved - 0.01 * 5.0).abs() < 1e-12); // a step is as long as rate and parameter say
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lamb<E> {
    config: AdamConfig,
    core: Core<E>,
    /// The squares of each piece: those of p and of s.
    squares: Vec<(f64, f64)>,
    /// Each piece's lr·q.
    rates: Vec<E>,
    /// Each group's λ for the gradient and lr·λ for the values, in one step.
    decays: Vec<(E, E)>,
    #[cfg(feature = "cuda")]
    device: There<Working>,
}

/// Working memory of a step on a device.
#[cfg(feature = "cuda")]
struct Working {
    squares: Buffer<f64>,
    group_rates: Buffer<f64>,
    rates: Buffer,
}

impl<E: Real> Lamb<E> {
    /// An optimizer at step 0 with zero moments. What is only RAdam's or SAdam's in `config` has to be off.
    ///
    /// # Errors
    /// `Usage` if a momentum is outside `[0, 1)`, or ε or the decay negative or not finite.
    pub fn new(config: AdamConfig, table: ParamTable) -> Result<Self> {
        config.check()?;
        if config.rectified || config.beta > 0.0 {
            let e = crate::Error::new(crate::ErrorKind::Usage, "lamb", "rectified, or with a soft denominator");
            return Err(e.expected("Adam's own settings"));
        }
        let pieces = table.piece_count();
        let decays = Vec::with_capacity(table.groups(0.0).count());
        let core = Core::new(table, &MOMENTS);
        Ok(Lamb {
            config,
            core,
            squares: vec![(0.0, 0.0); pieces],
            rates: vec![E::zero(); pieces],
            decays,
            #[cfg(feature = "cuda")]
            device: There::default(),
        })
    }

    /// Sets the decays of a step, and gives β₁, β₂ and what belongs to them, and 1/(1 − β₁ᵗ).
    fn prepare(&mut self, rates: Rates) -> (Averages<E>, E) {
        let step = self.core.steps + 1;
        let beta1 = rates.momentum.unwrap_or(self.config.momentum);
        let decay: Decay = self.config.decay;
        self.decays.clear();
        self.decays.extend(self.core.table.groups(decay.strength()).map(|(lr_scale, wd)| {
            let (coupled, decoupled) = decay.split(wd);
            (E::of(coupled), E::of(rates.lr * lr_scale * decoupled))
        }));
        (Averages::new(&self.config, beta1, step), E::of(1.0 / (1.0 - power(beta1, step))))
    }
}

impl<E: Real> Rule for Lamb<E> {
    type Elem = E;

    fn core(&self) -> &Core<E> {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core<E> {
        &mut self.core
    }

    fn apply(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        let (averages, debias) = self.prepare(rates);
        let Core { table, moments, .. } = &mut self.core;
        let [m, v] = &mut moments[..] else { unreachable!("there are two moments") };

        let decays = &self.decays;
        let buffers = (((&mut *values, &mut m[..]), &mut v[..]), grads);
        table.each_with(buffers, &mut self.squares, |(((values, m), v), grads), group, squares| {
            let (coupled, shrink) = decays[group];
            *squares = (0.0, 0.0);
            for (((p, m), v), &g) in values.iter_mut().zip(m).zip(v).zip(grads) {
                averages.update(m, v, g + coupled * *p);
                *p = *p - shrink * *p;
                let s = debias * *m / averages.denominator(*v);
                squares.0 += p.wide() * p.wide();
                squares.1 += s.wide() * s.wide();
            }
        });

        for place in table.places() {
            let sum = |a: (f64, f64), b: &(f64, f64)| (a.0 + b.0, a.1 + b.1);
            let (p, s) = self.squares[place.pieces.clone()].iter().fold((0.0, 0.0), sum);
            let trust = if p == 0.0 || s == 0.0 { 1.0 } else { (p / s).sqrt().min(MAX_TRUST) };
            let lr_scale = table.groups(0.0).nth(place.group).map_or(1.0, |(lr_scale, _)| lr_scale);
            self.rates[place.pieces.clone()].fill(E::of(rates.lr * lr_scale * trust));
        }

        let buffers = ((values, &m[..]), &v[..]);
        table.each_with(buffers, &mut self.rates, |((values, m), v), _, rate| {
            for ((p, &m), &v) in values.iter_mut().zip(m).zip(v) {
                *p -= *rate * (debias * m / averages.denominator(v));
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn apply_on_device(&mut self, on: super::OnDevice, rates: Rates) -> Result<bool> {
        use super::device::{optim_lamb_moments, optim_lamb_rates, optim_lamb_step};
        let (averages, debias) = self.prepare(rates);
        let (averages, debias) = (averages.on_device(), debias.wide() as f32);
        let steps = self.decays.iter().map(|(coupled, decay)| [0.0, coupled.wide() as f32, decay.wide() as f32]);
        let group_rates: Vec<f64> = self.core.table.groups(0.0).map(|(lr_scale, _)| rates.lr * lr_scale).collect();
        let kept = self.core.on_device(on.gpu)?;
        let steps = kept.coefficients(steps)?;
        let (Some(launch), [m, v]) = (kept.pieces.launch(), &kept.moments[..]) else { return Ok(true) };
        let (gpu, pieces, count) = (on.gpu, kept.pieces.ptr(), kept.pieces.count());
        let working = self.device.or_make(|| {
            let (squares, rates) = (Buffer::new(gpu, 2 * count)?, Buffer::new(gpu, count)?);
            Ok(Working { squares, group_rates: Buffer::new(gpu, group_rates.len())?, rates })
        })?;
        working.group_rates.upload(0, &group_rates)?;
        let (p, m, v, g, squares) = (on.values, m.ptr(), v.ptr(), on.grads, working.squares.ptr());
        optim_lamb_moments(gpu, launch, p, m, v, g, pieces, steps, averages, debias, squares)?;
        let (places, place_count, of_places) = kept.pieces.places();
        let rates = working.rates.ptr();
        optim_lamb_rates(gpu, of_places, squares, places, place_count, working.group_rates.ptr(), rates)?;
        optim_lamb_step(gpu, launch, p, m, v, pieces, rates, averages, debias)?;
        Ok(true)
    }
}
