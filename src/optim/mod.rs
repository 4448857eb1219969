//! Optimizers: one pass over contiguous buffers of values, gradients and moments.
//!
//! All parameters of a model lie in one buffer; their gradients and each moment of the optimizer lie in further
//! buffers of the same length, and a [`ParamTable`] says where each parameter is and which group it belongs to.
//! A step reads every used element once, allocates nothing, and gives the same bits for any thread count.
//!
//! ```
//! use handgrad::optim::{Decay, GroupRule, Optimizer, ParamEntry, ParamTable, Sgd, SgdConfig};
//! let entry = |name, offset, len| ParamEntry { name, offset, len, used: true };
//! let entries = [entry("linear.weight", 0, 2), entry("linear.bias", 2, 1)];
//! let rules = [GroupRule { pattern: "*.bias".into(), lr_scale: 2.0, weight_decay: Some(0.0) }];
//! let table = ParamTable::new(entries, 3, &rules)?;
//! let config = SgdConfig { momentum: 0.9, nesterov: false, decay: Decay::Coupled(0.5) };
//! let mut sgd = Sgd::<f32>::new(config, table)?;
//! let mut values = [1.0, -2.0, 0.5];
//! sgd.step(&mut values, &[1.0, 1.0, 1.0], 0.1)?;
//! assert_eq!(values, [0.85, -2.0, 0.3]); // the bias: twice the rate, no decay
//! # Ok::<(), handgrad::Error>(())
//! ```

mod clip;
mod sgd;
mod table;

pub use clip::clip_grad_norm;
pub use sgd::{Decay, Sgd, SgdConfig};
pub use table::{GroupRule, ParamEntry, ParamTable};

use crate::Result;
use crate::backend::Real;

/// What a training loop and a checkpoint need of an optimizer.
pub trait Optimizer<E: Real>: Send {
    /// Updates `values` by one step at learning rate `lr` (before each group's factor).
    ///
    /// # Errors
    /// `Shape` if a buffer is not as long as the table says, `Usage` if `lr` is negative or not finite;
    /// nothing is changed then.
    fn step(&mut self, values: &mut [E], grads: &[E], lr: f64) -> Result<()>;

    /// How many steps were made.
    fn steps(&self) -> u64;

    /// The state to save: each moment's name and buffer, in a fixed order.
    fn moments(&self) -> Vec<(&'static str, &[E])>;

    /// Takes back a saved state.
    ///
    /// # Errors
    /// `Format` if the names, their number, or a length differ from [`Optimizer::moments`]; nothing is changed then.
    fn restore(&mut self, steps: u64, moments: &[(&str, &[E])]) -> Result<()>;

    /// Where the parameters lie and how they are grouped.
    fn table(&self) -> &ParamTable;
}
