//! Optimizers: one pass over contiguous buffers of values, gradients and moments.
//!
//! All parameters of a model lie in one buffer; their gradients and each moment of the optimizer lie in further
//! buffers of the same length, and a [`ParamTable`] says where each parameter is and which group it belongs to.
//! A step reads every used element once, allocates nothing, and gives the same bits for any thread count.
//!
//! ```
//! use handgrad::optim::{Decay, GroupRule, Optimizer, ParamEntry, ParamTable, Rates, Sgd, SgdConfig};
//! let entries = [ParamEntry::vector("linear.weight", 0, 2), ParamEntry::vector("linear.bias", 2, 1)];
//! let rules = [GroupRule { pattern: "*.bias".into(), lr_scale: 2.0, weight_decay: Some(0.0) }];
//! let table = ParamTable::new(entries, 3, &rules)?;
//! let config = SgdConfig { momentum: 0.9, nesterov: false, decay: Decay::Coupled(0.5) };
//! let mut sgd = Sgd::<f32>::new(config, table)?;
//! let mut values = [1.0, -2.0, 0.5];
//! sgd.step(&mut values, &[1.0, 1.0, 1.0], Rates::of(0.1))?;
//! assert_eq!(values, [0.85, -2.0, 0.3]); // the bias: twice the rate, no decay
//! # Ok::<(), handgrad::Error>(())
//! ```

mod adam;
mod clip;
#[cfg(feature = "cuda")]
pub(crate) mod device;
mod ema;
mod lamb;
mod lookahead;
mod muon;
mod rmsprop;
mod rule;
mod sgd;
mod table;
mod update;

pub use adam::{Adam, AdamConfig};
pub use clip::clip_grad_norm;
#[cfg(feature = "cuda")]
pub use device::OnDevice;
pub use ema::Ema;
pub use lamb::Lamb;
pub use lookahead::Lookahead;
pub use muon::{Muon, MuonConfig};
pub use rmsprop::{RmsProp, RmsPropConfig};
pub use rule::Decay;
pub use sgd::{Sgd, SgdConfig};
pub use table::{GroupRule, ParamEntry, ParamTable};
pub use update::Update;

use crate::Result;
use crate::backend::Real;

/// What a schedule decides anew for every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The learning rate, before each group's factor.
    pub lr: f64,
    /// μ, or Adam's β₁, where the schedule moves it; `None` keeps the optimizer's own.
    pub momentum: Option<f64>,
    /// α of [`Lookahead`], where it moves; `None` keeps its own, and other optimizers have none.
    pub lookahead_alpha: Option<f64>,
}

impl Rates {
    /// A learning rate alone.
    pub const fn of(lr: f64) -> Self {
        Rates { lr, momentum: None, lookahead_alpha: None }
    }

    fn check(self) -> Result<()> {
        rule::check_size("learning rate", self.lr)?;
        self.momentum.map_or(Ok(()), |momentum| rule::check_fraction("momentum", momentum))
    }
}

/// What a training loop and a checkpoint need of an optimizer.
pub trait Optimizer<E: Real>: Send {
    /// Updates `values` by one step.
    ///
    /// # Errors
    /// `Shape` if a buffer is not as long as the table says, `Usage` for a rate that is negative or not finite, a
    /// momentum outside `[0, 1)`, or one for an optimizer that keeps none; nothing is changed then.
    fn step(&mut self, values: &mut [E], grads: &[E], rates: Rates) -> Result<()>;

    /// Averages running statistics as the step before averaged weights, in an optimizer that does so
    /// ([`Lookahead::with_states`]); to be called after each step.
    ///
    /// # Errors
    /// `Shape` if there are not as many as the optimizer was made for.
    fn average_states(&mut self, _states: &mut [E]) -> Result<()> {
        Ok(())
    }

    /// Makes the weights, and running statistics that are averaged, what they are to be after the last step:
    /// the slow ones of [`Lookahead`], those that are there otherwise.
    ///
    /// # Errors
    /// `Shape` as [`Optimizer::step`] and [`Optimizer::average_states`].
    fn finish(&mut self, _values: &mut [E], _states: &mut [E]) -> Result<()> {
        Ok(())
    }

    /// [`Optimizer::step`] on parameters and gradients of a device, the moments being kept there from then on. `false`, and
    /// nothing changed, from an optimizer that has no kernel.
    ///
    /// # Errors
    /// As [`Optimizer::step`], and what the device reports.
    #[cfg(feature = "cuda")]
    fn step_on_device(&mut self, _on: OnDevice, _rates: Rates) -> Result<bool> {
        Ok(false)
    }

    /// [`clip_grad_norm`] there; only of an optimizer that steps there.
    ///
    /// # Errors
    /// As [`clip_grad_norm`], and what the device reports.
    #[cfg(feature = "cuda")]
    fn clip_on_device(&mut self, _on: OnDevice, _max_norm: f64) -> Result<bool> {
        Ok(false)
    }

    /// [`Optimizer::average_states`] of `len` states there, behind [`Optimizer::step_on_device`].
    ///
    /// # Errors
    /// As [`Optimizer::average_states`], and what the device reports.
    #[cfg(feature = "cuda")]
    fn average_states_on_device(
        &mut self,
        _gpu: &'static crate::backend::cuda::Gpu,
        _states: crate::backend::cuda::Ptr,
        _len: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Brings moments that a device keeps to the host: before [`Optimizer::moments`] is called.
    ///
    /// # Errors
    /// What the device reports.
    fn fetch(&mut self) -> Result<()> {
        Ok(())
    }

    /// How many steps were made.
    fn steps(&self) -> u64;

    /// The state to save: each moment's name and buffer, in a fixed order.
    fn moments(&self) -> Vec<(&'static str, &[E])>;

    /// Takes back a saved state, its moments in any order.
    ///
    /// # Errors
    /// `Format` if the names, their number, or a length differ from [`Optimizer::moments`]; nothing is changed then.
    fn restore(&mut self, steps: u64, moments: &[(&str, &[E])]) -> Result<()>;

    /// Where the parameters lie and how they are grouped.
    fn table(&self) -> &ParamTable;
}

#[cfg(test)]
mod tests;
