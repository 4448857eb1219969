//! What all optimizers share: the table, the moments, and the checks around a step.

use super::{Optimizer, ParamTable, Rates};
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// How weight decay enters a step; the number is its strength λ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// L2 regularisation: `g += λ·p` before anything else (E1, E5's SGD).
    Coupled(f64),
    /// `p *= 1 − lr·λ` before the step, outside the moments (E2, E3).
    Decoupled(f64),
}

impl Decay {
    /// λ.
    pub(super) fn strength(self) -> f64 {
        let (Decay::Coupled(strength) | Decay::Decoupled(strength)) = self;
        strength
    }

    /// A group's λ (which may differ from this one) as the two coefficients of a kernel: what is added to the gradient,
    /// and what is added to the step, both per unit of p.
    pub(super) fn split(self, strength: f64) -> (f64, f64) {
        match self {
            Decay::Coupled(_) => (strength, 0.0),
            Decay::Decoupled(_) => (0.0, strength),
        }
    }
}

/// An optimizer's table, its moments, and how many steps it has made.
#[derive(Clone, Debug)]
pub(super) struct Core<E> {
    pub table: ParamTable,
    pub steps: u64,
    names: &'static [&'static str],
    pub moments: Vec<Vec<E>>,
    #[cfg(feature = "cuda")]
    device: super::device::There<super::device::Kept>,
}

impl<E: Real> Core<E> {
    /// With moments of these names, all zero.
    pub fn new(table: ParamTable, names: &'static [&'static str]) -> Self {
        let moments = names.iter().map(|_| vec![E::zero(); table.len()]).collect();
        Core {
            table,
            steps: 0,
            names,
            moments,
            #[cfg(feature = "cuda")]
            device: Default::default(),
        }
    }

    /// What the device keeps of it, copied there at first.
    #[cfg(feature = "cuda")]
    pub fn on_device(&mut self, gpu: &'static crate::backend::cuda::Gpu) -> Result<&mut super::device::Kept> {
        self.device.or_make(|| super::device::Kept::new(gpu, &self.table, &self.moments))
    }

    /// Brings the moments back from a device.
    #[cfg(feature = "cuda")]
    fn fetch(&mut self) -> Result<()> {
        let Some(kept) = self.device.get() else { return Ok(()) };
        kept.moments.iter().zip(&mut self.moments).try_for_each(|(from, to)| super::device::download(from, to))
    }

    /// Forgets what a device keeps: the host's moments count.
    fn leave_device(&mut self) {
        #[cfg(feature = "cuda")]
        self.device.leave();
    }

    fn named(&self) -> Vec<(&'static str, &[E])> {
        self.names.iter().zip(&self.moments).map(|(&name, moment)| (name, &moment[..])).collect()
    }
}

/// An optimizer without what [`Core`] does for it.
pub(super) trait Rule: Send {
    type Elem: Real;
    fn core(&self) -> &Core<Self::Elem>;
    fn core_mut(&mut self) -> &mut Core<Self::Elem>;
    /// One step, the number `core.steps + 1`, on buffers and rates that have been checked.
    ///
    /// # Errors
    /// Where this optimizer cannot follow the rates; nothing is changed then.
    fn apply(&mut self, values: &mut [Self::Elem], grads: &[Self::Elem], rates: Rates) -> Result<()>;
    /// The same on a device; `false` from a rule that has no kernel.
    ///
    /// # Errors
    /// As [`Rule::apply`], and what the device reports.
    #[cfg(feature = "cuda")]
    fn apply_on_device(&mut self, _on: super::OnDevice, _rates: Rates) -> Result<bool> {
        Ok(false)
    }
}

impl<E: Real, R: Rule<Elem = E>> Optimizer<E> for R {
    fn step(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()> {
        self.core().table.check_len("parameters", values.len())?;
        self.core().table.check_len("gradients", grads.len())?;
        rates.check()?;
        self.fetch()?;
        self.core_mut().leave_device();
        self.apply(values, grads, rates)?;
        self.core_mut().steps += 1;
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn step_on_device(&mut self, on: super::OnDevice, rates: Rates) -> Result<bool> {
        rates.check()?;
        let done = self.apply_on_device(on, rates)?;
        self.core_mut().steps += u64::from(done);
        Ok(done)
    }

    #[cfg(feature = "cuda")]
    fn clip_on_device(&mut self, on: super::OnDevice, max_norm: f64) -> Result<bool> {
        self.core_mut().on_device(on.gpu)?.clip(on.grads, max_norm)?;
        Ok(true)
    }

    #[cfg(feature = "cuda")]
    fn fetch(&mut self) -> Result<()> {
        self.core_mut().fetch()
    }

    fn steps(&self) -> u64 {
        self.core().steps
    }

    fn moments(&self) -> Vec<(&'static str, &[E])> {
        self.core().named()
    }

    fn restore(&mut self, steps: u64, moments: &[(&str, &[E])]) -> Result<()> {
        check_moments(&self.core().named(), moments)?;
        let core = self.core_mut();
        for (name, moment) in core.names.iter().zip(&mut core.moments) {
            if let Some((_, saved)) = moments.iter().find(|(n, _)| n == name) {
                moment.copy_from_slice(saved);
            }
        }
        core.steps = steps;
        core.leave_device();
        Ok(())
    }

    fn table(&self) -> &ParamTable {
        &self.core().table
    }
}

/// An error unless saved moments have the names and lengths of an optimizer's own, in any order.
pub(super) fn check_moments<E>(own: &[(&str, &[E])], saved: &[(&str, &[E])]) -> Result<()> {
    let describe = |list: &[(&str, &[E])]| {
        let mut texts: Vec<String> = list.iter().map(|(name, m)| format!("{name} × {}", m.len())).collect();
        texts.sort();
        texts
    };
    let (expected, found) = (describe(own), describe(saved));
    if expected == found {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Format, "optimizer state", format!("moments {found:?}"))
        .expected(format!("{expected:?}"))
        .hint("the checkpoint belongs to another optimizer or model"))
}

/// An error unless `value` is in `[0, 1)`.
pub(super) fn check_fraction(subject: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, subject, value).expected("a number from 0 to below 1"))
}

/// An error unless `value` is finite and not negative.
pub(super) fn check_size(subject: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, subject, value).expected("a finite number, 0 or more"))
}
