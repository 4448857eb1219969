//! What a backend is to an engine: memory, and a way to run a plan's steps in it.

use std::ops::ControlFlow;

use ndarray::ArrayView2;

use super::{Arena, Input, Plan};
use crate::Result;
use crate::backend::{Backend, Host};
use crate::graph::NodeId;
#[cfg(feature = "train")]
use crate::optim::Update;
use crate::params::Params;

/// What sees each node and its output, and may end the run.
pub type Look<'a, E> = &'a mut dyn FnMut(NodeId, &[E]) -> ControlFlow<()>;

/// The memory of one engine on one backend, which runs any of its plans, one at a time.
///
/// [`Params`] are what the host sees of parameters, gradients and states: they are up to date between calls. A machine with
/// memory of its own copies what has changed.
pub trait Machine<B: Backend>: Sized + Send {
    /// How many training steps may be on their way when the next one is queued: none where a step is over when its call
    /// returns.
    const LATE: usize = 0;

    /// Whether it makes the images of an [`Input`] from its [`Pixels`](super::Pixels). Nobody gives it any where it doesn't.
    const TAKES_PIXELS: bool = false;

    /// Memory for plans of up to `len` elements, and for the parameters.
    ///
    /// # Errors
    /// Where there is too little memory.
    fn new(len: usize, params: &Params<B::Elem>) -> Result<Self>;

    /// The longest plan that it can run, in elements.
    fn plan_len(&self) -> usize;

    /// Parameters or states were changed by the host.
    fn params_changed(&mut self) {}

    /// Whether parameters, gradients and states may stay where the machine has them: [`Params`] are up to date only behind
    /// [`Machine::fetch`] then, and may be changed only there.
    fn keep(&mut self, _keep: bool) {}

    /// Brings parameters, gradients and states to the host.
    ///
    /// # Errors
    /// As [`Machine::forward`].
    fn fetch(&mut self, _params: &mut Params<B::Elem>) -> Result<()> {
        Ok(())
    }

    /// Updates the parameters from their gradients.
    ///
    /// # Errors
    /// Those of [`Update`], and as [`Machine::forward`].
    #[cfg(feature = "train")]
    fn update(&mut self, params: &mut Params<B::Elem>, update: Update<'_, B::Elem>) -> Result<()> {
        update.on_host(params)
    }

    /// Runs all forward steps, or those until `look` ends the run.
    ///
    /// # Errors
    /// What the device reports.
    fn forward(
        &mut self,
        plan: &Plan,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        look: Option<Look<'_, B::Elem>>,
    ) -> Result<()>;

    /// Runs all backward steps after [`Machine::forward`] on the same input. `scale` is the gradient of each image's loss;
    /// `accumulate` adds to the parameters' gradients instead of overwriting them.
    ///
    /// # Errors
    /// As [`Machine::forward`].
    fn backward(
        &mut self,
        plan: &Plan,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        scale: f64,
        accumulate: bool,
    ) -> Result<()>;

    /// Runs all steps of a training pass and adds the seconds that each took to `seconds`, one entry per step.
    ///
    /// # Errors
    /// As [`Machine::forward`].
    fn time_steps(
        &mut self,
        plan: &Plan,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        scale: f64,
        seconds: &mut [f64],
    ) -> Result<()>;

    /// Queues what brings scores and losses of the last forward run, of `n` images, to the host: [`Machine::LATE`] and one at
    /// a time, which [`Machine::receive`] takes in turn.
    ///
    /// # Errors
    /// As [`Machine::forward`].
    fn send(&mut self, _plan: &Plan, _n: usize) -> Result<()> {
        Ok(())
    }

    /// Waits for the first scores and losses that were sent and not received.
    ///
    /// # Errors
    /// As [`Machine::forward`], of work that was queued before.
    fn receive(&mut self, _plan: &Plan, _n: usize) -> Result<()> {
        Ok(())
    }

    /// The class scores `[n, classes]` that were received last, of `n` images.
    fn logits<'a>(&'a self, plan: &Plan, n: usize) -> ArrayView2<'a, B::Elem>;

    /// The loss of each image that was received last.
    fn losses<'a>(&'a self, plan: &Plan, n: usize) -> &'a [B::Elem];
}

/// The host's memory: parameters lie where everybody sees them.
impl<B: Host> Machine<B> for Arena<B::Elem> {
    fn new(len: usize, _params: &Params<B::Elem>) -> Result<Self> {
        Arena::new(len)
    }

    fn plan_len(&self) -> usize {
        self.len()
    }

    fn forward(
        &mut self,
        plan: &Plan,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        look: Option<Look<'_, B::Elem>>,
    ) -> Result<()> {
        match look {
            Some(look) => plan.forward::<B>(input, params, self, look),
            None => plan.forward::<B>(input, params, self, |_, _| ControlFlow::Continue(())),
        }
        Ok(())
    }

    fn backward(
        &mut self,
        plan: &Plan,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        scale: f64,
        accumulate: bool,
    ) -> Result<()> {
        plan.backward::<B>(input, params, self, scale, accumulate);
        Ok(())
    }

    fn time_steps(
        &mut self,
        plan: &Plan,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        scale: f64,
        seconds: &mut [f64],
    ) -> Result<()> {
        plan.time_steps::<B>(input, params, self, scale, seconds);
        Ok(())
    }

    fn logits<'a>(&'a self, plan: &Plan, n: usize) -> ArrayView2<'a, B::Elem> {
        plan.logits(n, self)
    }

    fn losses<'a>(&'a self, plan: &Plan, n: usize) -> &'a [B::Elem] {
        plan.losses(n, self)
    }
}
