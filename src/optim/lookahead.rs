//! Lookahead: slow weights that follow any other optimizer.

use super::rule::check_moments;
use super::{Optimizer, ParamTable, Rates};
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// The name of the slow weights among the moments.
const SLOW: &str = "slow";

/// Lookahead (Zhang et al. 2019) around another optimizer, whose weights are the fast ones. The slow weights start as a
/// copy of the values before the first step; after every `k`-th step
///
/// ```text
/// slow ← slow + α·(fast − slow)
/// fast ← slow
/// ```
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
    k: u32,
    alpha: E,
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
        Ok(Lookahead { fast, slow, k, alpha: E::of(alpha) })
    }
}

impl<E: Real> Optimizer<E> for Lookahead<E> {
    fn step(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        self.fast.table().check_len("parameters", values.len())?;
        if self.fast.steps() == 0 {
            self.slow.copy_from_slice(values);
        }
        self.fast.step(values, grads, rates)?;
        if self.fast.steps().is_multiple_of(self.k.into()) {
            let alpha = self.alpha;
            self.fast.table().each((values, &mut self.slow[..]), |(values, slow), _| {
                for (fast, slow) in values.iter_mut().zip(slow) {
                    *slow += alpha * (*fast - *slow);
                    *fast = *slow;
                }
            });
        }
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.fast.steps()
    }

    fn moments(&self) -> Vec<(&'static str, &[E])> {
        let mut moments = self.fast.moments();
        moments.push((SLOW, &self.slow));
        moments
    }

    fn restore(&mut self, steps: u64, moments: &[(&str, &[E])]) -> Result<()> {
        check_moments(&self.moments(), moments)?;
        let (slow, fast): (Vec<_>, Vec<_>) = moments.iter().copied().partition(|(name, _)| *name == SLOW);
        self.fast.restore(steps, &fast)?;
        slow.iter().for_each(|(_, saved)| self.slow.copy_from_slice(saved));
        Ok(())
    }

    fn table(&self) -> &ParamTable {
        self.fast.table()
    }
}
