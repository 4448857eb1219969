//! An engine's memory on the device.

use ndarray::ArrayView2;

use super::inputs::Inputs;
use super::outputs::Outputs;
use super::{Buffer, Gpu};
use crate::Result;
use crate::backend::{Backend, Precision};
use crate::optim::{OnDevice, Update};
use crate::params::Params;
use crate::plan::{Bases, Input, Look, Machine, Mode, Plan};

/// Enough that the device always has a step to work on: the host waits for the loss of a step when the one after it is queued.
const LATE: usize = 1;

/// One arena on the device, laid out by the same plan as on the host, and copies of parameters, gradients and states.
///
/// Parameters are copied to the device where the host changed them ([`Machine::params_changed`]). Whatever the device changes
/// is copied back at once, or, where the training loop says so ([`Machine::keep`]), when it is asked for.
pub struct CudaMachine {
    gpu: &'static Gpu,
    precision: Precision,
    arena: Buffer,
    values: Buffer,
    grads: Buffer,
    states: Buffer,
    inputs: Inputs,
    outputs: Outputs<{ LATE + 1 }>,
    params_changed: bool,
    /// What the host has is brought up to date by `fetch` alone.
    keep: bool,
    plan_len: usize,
}

impl CudaMachine {
    /// Copies over what has changed on the host, and the input.
    fn feed(&mut self, plan: &Plan, input: Input<'_, f32>, params: &Params<f32>) -> Result<()> {
        self.gpu.enter()?;
        if std::mem::take(&mut self.params_changed) {
            self.values.upload(0, params.values())?;
            self.states.upload(0, params.states())?;
        }
        self.inputs.send(self.gpu, plan, input)
    }

    fn bases<'a>(&self, input: Input<'_, f32>, params: &'a Params<f32>) -> Bases<'a> {
        Bases {
            gpu: self.gpu,
            precision: self.precision,
            images: self.inputs.images(),
            targets: self.inputs.targets(),
            arena: self.arena.ptr(),
            values: self.values.ptr(),
            grads: self.grads.ptr(),
            states: self.states.ptr(),
            params,
            n: input.images.dim().0,
            key: input.key,
        }
    }

    /// Runs the forward steps of a plan without a loss, for parameters that nobody changes, and waits for the scores.
    pub(crate) fn infer(&mut self, plan: &Plan, input: Input<'_, f32>, params: &Params<f32>) -> Result<()> {
        self.feed(plan, input, params)?;
        plan.forward_on_device(&self.bases(input, params), |_, _| Ok(true))?;
        self.outputs.send(&self.arena, self.gpu, plan, input.images.dim().0)?;
        self.outputs.receive()
    }

    /// Elements that it holds on the device.
    pub(crate) fn len(&self) -> usize {
        let buffers = [&self.arena, &self.values, &self.grads, &self.states];
        buffers.iter().map(|buffer| buffer.len()).sum::<usize>() + self.inputs.len()
    }
}

impl<B: Backend<Elem = f32, Machine = CudaMachine>> Machine<B> for CudaMachine {
    const LATE: usize = LATE;
    const TAKES_PIXELS: bool = true;

    fn new(len: usize, params: &Params<f32>) -> Result<Self> {
        let gpu = Gpu::current()?;
        let mut grads = Buffer::new(gpu, params.grads().len())?;
        grads.fill(0..params.grads().len(), 0.0)?;
        Ok(CudaMachine {
            gpu,
            precision: B::PRECISION,
            arena: Buffer::new(gpu, len)?,
            values: Buffer::new(gpu, params.values().len())?,
            grads,
            states: Buffer::new(gpu, params.states().len())?,
            inputs: Inputs::new(),
            outputs: Outputs::default(),
            params_changed: true,
            keep: false,
            plan_len: len,
        })
    }

    fn plan_len(&self) -> usize {
        self.plan_len
    }

    fn params_changed(&mut self) {
        self.params_changed = true;
    }

    fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    fn fetch(&mut self, params: &mut Params<f32>) -> Result<()> {
        self.gpu.enter()?;
        // What the host changed after its last fetch is newer.
        if self.params_changed {
            return Ok(());
        }
        self.values.download(0, params.values_mut())?;
        self.grads.download(0, params.grads_mut())?;
        self.states.download(0, params.states_mut())
    }

    fn update(&mut self, params: &mut Params<f32>, update: Update<'_, f32>) -> Result<()> {
        self.gpu.enter()?;
        let on = OnDevice { gpu: self.gpu, values: self.values.ptr(), grads: self.grads.ptr() };
        let Update { optimizer, rates, clip_norm, ema, last } = update;
        let here = match clip_norm {
            Some(max_norm) if !self.params_changed => optimizer.clip_on_device(on, max_norm)?,
            _ => !self.params_changed,
        };
        if !here || !optimizer.step_on_device(on, rates)? {
            // The gradients were clipped on the way here, or not at all.
            let clip_norm = clip_norm.filter(|_| !here);
            Machine::<B>::fetch(self, params)?;
            Update { optimizer, rates, clip_norm, ema, last }.on_host(params)?;
            self.params_changed = true;
            return Ok(());
        }
        optimizer.average_states_on_device(self.gpu, self.states.ptr(), params.states().len())?;
        if last {
            Machine::<B>::fetch(self, params)?;
            optimizer.fetch()?;
            let (values, states) = params.values_and_states_mut();
            optimizer.finish(values, states)?;
            self.values.upload(0, params.values())?;
            self.states.upload(0, params.states())?;
        }
        ema.map_or(Ok(()), |ema| ema.update_on_device(on, self.states.ptr()))?;
        if self.keep { Ok(()) } else { Machine::<B>::fetch(self, params) }
    }

    fn forward(
        &mut self,
        plan: &Plan,
        input: Input<'_, f32>,
        params: &mut Params<f32>,
        look: Option<Look<'_, f32>>,
    ) -> Result<()> {
        self.feed(plan, input, params)?;
        let bases = self.bases(input, params);
        let Some(look) = look else {
            plan.forward_on_device(&bases, |_, _| Ok(true))?;
            if plan.mode() == Mode::Train && !self.keep {
                self.states.download(0, params.states_mut())?;
            }
            return Ok(());
        };
        let (arena, mut values) = (&self.arena, Vec::new());
        plan.forward_on_device(&bases, |node, range| {
            values.resize(range.len(), 0.0);
            arena.download(range.start, &mut values)?;
            Ok(look(node, &values).is_continue())
        })
    }

    fn backward(
        &mut self,
        plan: &Plan,
        input: Input<'_, f32>,
        params: &mut Params<f32>,
        scale: f64,
        accumulate: bool,
    ) -> Result<()> {
        self.gpu.enter()?;
        if let Some(dlosses) = plan.dlosses_range(input.images.dim().0) {
            self.arena.fill(dlosses, scale as f32)?;
        }
        plan.backward_on_device(&self.bases(input, params), accumulate)?;
        if self.keep { Ok(()) } else { self.grads.download(0, params.grads_mut()) }
    }

    fn time_steps(
        &mut self,
        plan: &Plan,
        input: Input<'_, f32>,
        params: &mut Params<f32>,
        scale: f64,
        seconds: &mut [f64],
    ) -> Result<()> {
        self.feed(plan, input, params)?;
        let bases = self.bases(input, params);
        if let Some(dlosses) = plan.dlosses_range(bases.n) {
            self.arena.fill(dlosses, scale as f32)?;
        }
        plan.time_steps_on_device(&bases, seconds)
    }

    fn send(&mut self, plan: &Plan, n: usize) -> Result<()> {
        self.outputs.send(&self.arena, self.gpu, plan, n)
    }

    fn receive(&mut self, _plan: &Plan, _n: usize) -> Result<()> {
        self.gpu.enter()?;
        self.outputs.receive()
    }

    fn logits<'a>(&'a self, plan: &Plan, n: usize) -> ArrayView2<'a, f32> {
        let len = n * plan.classes();
        ArrayView2::from_shape((n, plan.classes()), &self.outputs.logits()[..len]).expect("as many as the last run had")
    }

    fn losses<'a>(&'a self, plan: &Plan, n: usize) -> &'a [f32] {
        &self.outputs.losses()[..plan.losses_range(n).len()]
    }
}
