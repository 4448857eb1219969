//! What a training loop does between two passes.

use super::{Ema, Optimizer, Rates, clip_grad_norm};
use crate::backend::Real;
use crate::{Params, Result};

/// One update of a model's parameters from their gradients: clipping, a step of the optimizer, averages. See
/// [`Engine::update`](crate::engine::Engine::update).
pub struct Update<'a, E: Real> {
    /// What steps.
    pub optimizer: &'a mut dyn Optimizer<E>,
    /// The rates of this step.
    pub rates: Rates,
    /// The most that the norm of the whole gradient may be, where it is clipped ([`clip_grad_norm`]).
    pub clip_norm: Option<f64>,
    /// Averages that follow.
    pub ema: Option<&'a mut Ema<E>>,
    /// This was the last step ([`Optimizer::finish`]).
    pub last: bool,
}

impl<E: Real> Update<'_, E> {
    /// On parameters in the host's memory.
    pub(crate) fn on_host(self, params: &mut Params<E>) -> Result<()> {
        let Update { optimizer, rates, clip_norm, ema, last } = self;
        let (values, grads, _) = params.split_mut();
        if let Some(max_norm) = clip_norm {
            clip_grad_norm(grads, optimizer.table(), max_norm)?;
        }
        optimizer.step(values, grads, rates)?;
        optimizer.average_states(params.states_mut())?;
        if last {
            let (values, states) = params.values_and_states_mut();
            optimizer.finish(values, states)?;
        }
        ema.map_or(Ok(()), |ema| ema.update(params))
    }
}
