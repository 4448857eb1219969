//! Lookahead: slow weights that follow any other optimizer.

use super::rule::check_moments;
#[cfg(feature = "cuda")]
use super::{
    OnDevice,
    device::{Pieces, There, download, optim_lookahead, upload},
};
use super::{Optimizer, ParamTable, Rates};
use crate::backend::Real;
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Buffer, Gpu, Ptr};
use crate::{Error, ErrorKind, Result};

/// The names of the slow weights and of the slow running statistics among the moments.
const SLOW: &str = "slow";
const SLOW_STATES: &str = "slow_states";

/// Lookahead (Zhang et al. 2019) around another optimizer, whose weights are the fast ones. The slow weights start as a
/// copy of the values before the first step; after every `k`-th step
///
/// ```text
/// slow ← slow + α·(fast − slow)
/// fast ← slow
/// ```
///
/// α may move ([`Rates::lookahead_alpha`]): airbench94 has α = 1 − .95⁵·(share of training done)³. [`Optimizer::finish`]
/// leaves the slow weights as the result.
///
/// Values that the training loop sees and evaluates are the fast ones, as in fastai. With [`AdamConfig::ranger`] inside
/// it is Ranger.
///
/// The floor is memory: one further pass of 4 accesses per element in every `k`-th step.
///
/// ```
/// use handgrad::optim::{Adam, AdamConfig, Lookahead, Optimizer, ParamEntry, ParamTable, Rates};
/// let table = ParamTable::new([ParamEntry::vector("w", 0, 1)], 1, &[])?;
/// let mut ranger = Lookahead::<f64>::new(Box::new(Adam::new(AdamConfig::ranger(0.0), table)?), 6, 0.5)?;
/// let mut w = [1.0];
/// for step in 0..6 {
///     ranger.step(&mut w, &[f64::from(step)], Rates::of(0.1))?;
/// }
/// assert_eq!(ranger.moments()[2], ("slow", &w[..]));
/// # Ok::<(), handgrad::Error>(())
/// ```
///
/// [`AdamConfig::ranger`]: super::AdamConfig::ranger
pub struct Lookahead<E> {
    fast: Box<dyn Optimizer<E>>,
    slow: Vec<E>,
    /// Where running statistics are averaged too.
    slow_states: Option<Vec<E>>,
    k: u32,
    alpha: f64,
    /// α of the step just made, where it was one that looks ahead.
    pulled: Option<E>,
    #[cfg(feature = "cuda")]
    device: There<Kept>,
}

/// What a device keeps.
#[cfg(feature = "cuda")]
struct Kept {
    pieces: Pieces,
    slow: Buffer,
    /// Where running statistics are averaged too.
    states: Option<(Pieces, Buffer)>,
}

impl<E: Real> Lookahead<E> {
    /// Slow weights behind `fast`, which has made no step yet or will be restored.
    ///
    /// # Errors
    /// `Usage` unless `k` is above 0 and `alpha` above 0, at most 1.
    pub fn new(fast: Box<dyn Optimizer<E>>, k: u32, alpha: f64) -> Result<Self> {
        if k == 0 {
            return Err(Error::new(ErrorKind::Usage, "lookahead k", k).expected("1 or more"));
        }
        if !(alpha > 0.0 && alpha <= 1.0) {
            return Err(Error::new(ErrorKind::Usage, "lookahead alpha", alpha).expected("above 0, at most 1"));
        }
        let slow = vec![E::zero(); fast.table().len()];
        Ok(Lookahead {
            fast,
            slow,
            slow_states: None,
            k,
            alpha,
            pulled: None,
            #[cfg(feature = "cuda")]
            device: There::default(),
        })
    }

    /// Averages `len` running statistics as well ([`Optimizer::average_states`]): slow ones start as a copy of what they
    /// are after the first step, and follow in the same steps by the same α.
    ///
    /// ```
    /// use handgrad::optim::{Decay, Lookahead, Optimizer, ParamEntry, ParamTable, Rates, Sgd, SgdConfig};
    /// let table = ParamTable::new([ParamEntry::vector("w", 0, 1)], 1, &[])?;
    /// let sgd = Sgd::<f64>::new(SgdConfig { momentum: 0.0, nesterov: false, decay: Decay::Coupled(0.0) }, table)?;
    /// let mut ahead = Lookahead::new(Box::new(sgd), 2, 0.5)?.with_states(1);
    /// let (mut w, mut mean) = ([1.0], [0.0]);
    /// for seen in [4.0, 8.0] {
    ///     ahead.step(&mut w, &[1.0], Rates::of(0.25))?;
    ///     mean = [seen];
    ///     ahead.average_states(&mut mean)?;
    /// }
    /// assert_eq!((w, mean), ([0.75], [6.0])); // half the way from 1 to 0.5, and from 4 to 8
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    #[must_use]
    pub fn with_states(mut self, len: usize) -> Self {
        self.slow_states = Some(vec![E::zero(); len]);
        self
    }

    /// α of a step.
    fn alpha_of(&self, rates: Rates) -> Result<f64> {
        let alpha = rates.lookahead_alpha.unwrap_or(self.alpha);
        if (0.0..=1.0).contains(&alpha) {
            return Ok(alpha);
        }
        Err(Error::new(ErrorKind::Usage, "lookahead alpha", alpha).expected("0 to 1"))
    }

    /// Forgets what a device keeps: the host's slow weights count.
    fn leave_device(&mut self) {
        #[cfg(feature = "cuda")]
        self.device.leave();
    }

    /// The slow statistics, where there are as many as `states`.
    fn states_for(&mut self, states: &[E]) -> Result<Option<&mut Vec<E>>> {
        match &mut self.slow_states {
            Some(slow) if slow.len() != states.len() => {
                let found = format!("{} elements", states.len());
                Err(Error::new(ErrorKind::Shape, "states", found).expected(format!("{} elements", slow.len())))
            }
            slow => Ok(slow.as_mut()),
        }
    }
}

impl<E: Real> Optimizer<E> for Lookahead<E> {
    fn step(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        self.fast.table().check_len("parameters", values.len())?;
        if self.fast.steps() == 0 {
            self.slow.copy_from_slice(values);
        }
        let alpha = self.alpha_of(rates)?;
        self.fetch()?;
        self.leave_device();
        self.fast.step(values, grads, Rates { lookahead_alpha: None, ..rates })?;
        self.pulled = None;
        if self.fast.steps().is_multiple_of(self.k.into()) {
            let alpha = E::of(alpha);
            self.pulled = Some(alpha);
            self.fast.table().each((values, &mut self.slow[..]), |(values, slow), _| {
                for (fast, slow) in values.iter_mut().zip(slow) {
                    *slow += alpha * (*fast - *slow);
                    *fast = *slow;
                }
            });
        }
        Ok(())
    }

    fn average_states(&mut self, states: &mut [E]) -> Result<()> {
        let (first, pulled) = (self.fast.steps() == 1, self.pulled);
        let Some(slow) = self.states_for(states)? else { return Ok(()) };
        if first {
            slow.copy_from_slice(states);
        } else if let Some(alpha) = pulled {
            for (fast, slow) in states.iter_mut().zip(slow) {
                *slow += alpha * (*fast - *slow);
                *fast = *slow;
            }
        }
        Ok(())
    }

    fn finish(&mut self, values: &mut [E], states: &mut [E]) -> Result<()> {
        self.fast.table().check_len("parameters", values.len())?;
        if self.fast.steps() == 0 {
            return Ok(());
        }
        if let Some(slow) = self.states_for(states)? {
            states.copy_from_slice(slow);
        }
        self.fast.table().each((values, &self.slow[..]), |(values, slow), _| values.copy_from_slice(slow));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn step_on_device(&mut self, on: OnDevice, rates: Rates) -> Result<bool> {
        let (alpha, first) = (self.alpha_of(rates)?, self.fast.steps() == 0);
        let kept = self.device.or_make(|| {
            let states = self.slow_states.as_ref();
            let states = states.map(|slow| Ok((Pieces::whole(on.gpu, slow.len())?, upload(on.gpu, slow)?)));
            let pieces = Pieces::of(on.gpu, self.fast.table())?;
            Ok(Kept { pieces, slow: upload(on.gpu, &self.slow)?, states: states.transpose()? })
        })?;
        if first {
            crate::ops::copy_on_device(on.gpu, on.values, kept.slow.ptr(), self.slow.len())?;
        }
        if !self.fast.step_on_device(on, Rates { lookahead_alpha: None, ..rates })? {
            self.device.leave();
            return Ok(false);
        }
        self.pulled = None;
        if self.fast.steps().is_multiple_of(self.k.into()) {
            self.pulled = Some(E::of(alpha));
            if let Some(launch) = kept.pieces.launch() {
                optim_lookahead(on.gpu, launch, on.values, kept.slow.ptr(), kept.pieces.ptr(), alpha as f32)?;
            }
        }
        Ok(true)
    }

    #[cfg(feature = "cuda")]
    fn clip_on_device(&mut self, on: OnDevice, max_norm: f64) -> Result<bool> {
        self.fast.clip_on_device(on, max_norm)
    }

    #[cfg(feature = "cuda")]
    fn average_states_on_device(&mut self, gpu: &'static Gpu, states: Ptr, len: usize) -> Result<()> {
        let (first, pulled) = (self.fast.steps() == 1, self.pulled);
        let Some((pieces, slow)) = self.device.get().and_then(|kept| kept.states.as_ref()) else { return Ok(()) };
        match (first, pulled, pieces.launch()) {
            (true, ..) => crate::ops::copy_on_device(gpu, states, slow.ptr(), len),
            (false, Some(alpha), Some(launch)) => {
                optim_lookahead(gpu, launch, states, slow.ptr(), pieces.ptr(), alpha.wide() as f32)
            }
            _ => Ok(()),
        }
    }

    fn fetch(&mut self) -> Result<()> {
        self.fast.fetch()?;
        #[cfg(feature = "cuda")]
        if let Some(kept) = self.device.get() {
            download(&kept.slow, &mut self.slow)?;
            if let (Some((_, from)), Some(to)) = (&kept.states, &mut self.slow_states) {
                download(from, to)?;
            }
        }
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.fast.steps()
    }

    fn moments(&self) -> Vec<(&'static str, &[E])> {
        let mut moments = self.fast.moments();
        moments.push((SLOW, &self.slow));
        moments.extend(self.slow_states.iter().map(|slow| (SLOW_STATES, &slow[..])));
        moments
    }

    fn restore(&mut self, steps: u64, moments: &[(&str, &[E])]) -> Result<()> {
        check_moments(&self.moments(), moments)?;
        let own = |name: &str| [SLOW, SLOW_STATES].contains(&name);
        let (slow, fast): (Vec<_>, Vec<_>) = moments.iter().copied().partition(|(name, _)| own(name));
        self.fast.restore(steps, &fast)?;
        for (name, saved) in slow {
            match &mut self.slow_states {
                Some(states) if name == SLOW_STATES => states.copy_from_slice(saved),
                _ => self.slow.copy_from_slice(saved),
            }
        }
        self.pulled = None;
        self.leave_device();
        Ok(())
    }

    fn table(&self) -> &ParamTable {
        self.fast.table()
    }
}
