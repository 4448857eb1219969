//! Runs a plan's steps on a CUDA device: the same steps as `run.rs`, on addresses.

use std::ops::Range;
use std::time::Instant;

use super::{DxPlace, Mode, Pass, Place, Plan, Step};
use crate::backend::Precision;
use crate::backend::cuda::{Backward, Forward, Gpu, Grad, Kernel, ParamGrad, Ptr};
use crate::graph::{Node, NodeId};
use crate::params::Params;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// Where on the device a run's tensors begin.
pub(crate) struct Bases<'a> {
    pub gpu: &'a Gpu,
    pub precision: Precision,
    pub images: Ptr,
    pub targets: Ptr,
    pub arena: Ptr,
    pub values: Ptr,
    pub grads: Ptr,
    pub states: Ptr,
    /// Where in these each parameter and state lies.
    pub params: &'a Params<f32>,
    /// Images.
    pub n: usize,
    /// Names the randomness of this step.
    pub key: Key,
}

impl Plan {
    /// Queues the forward steps; `after` gets each node and where in the arena its output lies, and says whether to go on.
    pub(crate) fn forward_on_device(
        &self,
        bases: &Bases<'_>,
        mut after: impl FnMut(NodeId, Range<usize>) -> Result<bool>,
    ) -> Result<()> {
        for step in &self.steps {
            let Pass::Forward { y, .. } = &step.pass else { continue };
            self.step_on_device(step, bases, false)?;
            if !after(NodeId(step.node), self.buffers[*y].range(bases.n))? {
                break;
            }
        }
        Ok(())
    }

    /// Queues the backward steps; the loss' gradient is there.
    pub(crate) fn backward_on_device(&self, bases: &Bases<'_>, accumulate: bool) -> Result<()> {
        let mut backward = self.steps.iter().filter(|step| !matches!(step.pass, Pass::Forward { .. }));
        backward.try_for_each(|step| self.step_on_device(step, bases, accumulate))
    }

    /// Runs all steps one by one and adds the seconds that each took.
    pub(crate) fn time_steps_on_device(&self, bases: &Bases<'_>, seconds: &mut [f64]) -> Result<()> {
        bases.gpu.wait()?;
        for (step, seconds) in self.steps.iter().zip(seconds) {
            let started = Instant::now();
            self.step_on_device(step, bases, false)?;
            bases.gpu.wait()?;
            *seconds += started.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// The elements of the arena that hold the class scores of `n` images.
    pub(crate) fn logits_range(&self, n: usize) -> Range<usize> {
        match self.logits {
            Place::Buffer(b) => self.buffers[b].range(n),
            Place::Images | Place::Targets => 0..0,
        }
    }

    /// Those that hold their losses.
    pub(crate) fn losses_range(&self, n: usize) -> Range<usize> {
        self.loss.map_or(0..0, |b| self.buffers[b].range(n))
    }

    /// Those that hold the gradients of their losses, where backward begins.
    pub(crate) fn dlosses_range(&self, n: usize) -> Option<Range<usize>> {
        self.dlast.map(|b| self.buffers[b].range(n))
    }

    fn step_on_device(&self, step: &Step, bases: &Bases<'_>, accumulate: bool) -> Result<()> {
        let node = &self.graph.nodes()[step.node];
        let queued = match &step.pass {
            Pass::Forward { x, y, .. } => self.forward_step_on_device(step, node, (x, *y), bases),
            // No op of this backend is one whose output is made again.
            Pass::Again { .. } => Ok(()),
            Pass::Backward { .. } => self.backward_step_on_device(step, node, bases, accumulate),
        };
        queued.map_err(|e| if e.kind() == ErrorKind::Device { e.of_layer(&node.name) } else { e })
    }

    fn forward_step_on_device(
        &self,
        step: &Step,
        node: &Node,
        (x, y): (&[Place], usize),
        bases: &Bases<'_>,
    ) -> Result<()> {
        kernel(node)?.forward(&Forward {
            gpu: bases.gpu,
            precision: bases.precision,
            training: self.mode == Mode::Train,
            key: bases.key.with(step.node as u64),
            n: bases.n,
            inputs: node.inputs.iter().map(|&id| self.graph.shape(id)).collect(),
            x: x.iter().map(|&place| self.address(place, bases)).collect(),
            output: node.shape,
            y: self.address(Place::Buffer(y), bases),
            params: bases.values_of(node).collect(),
            states: node.states.iter().map(|&s| bases.states.at(bases.params.state_range(s).start)).collect(),
            saved: step.saved.iter().map(|&b| self.address(Place::Buffer(b), bases)).collect(),
            scratch: step.scratch.map_or(Ptr::NULL, |b| self.address(Place::Buffer(b), bases)),
        })
    }

    fn backward_step_on_device(&self, step: &Step, node: &Node, bases: &Bases<'_>, accumulate: bool) -> Result<()> {
        let Pass::Backward { x, y, dy, dx, dparams } = &step.pass else { return Ok(()) };
        let address = |b: usize| self.address(Place::Buffer(b), bases);
        let dx = dx.iter().map(|dx| match *dx {
            DxPlace::Skip => Grad::Skip,
            DxPlace::Write(b) => Grad::Write(address(b)),
            DxPlace::Add(b) => Grad::Add(address(b)),
            DxPlace::InPlace(b) => Grad::InPlace(address(b)),
        });
        let dparams = node.params.iter().zip(dparams).map(|(&p, place)| ParamGrad {
            at: bases.grads.at(bases.params.range(p).start),
            add: accumulate || place.add,
            needed: place.needed,
        });
        kernel(node)?.backward(&Backward {
            gpu: bases.gpu,
            precision: bases.precision,
            training: self.mode == Mode::Train,
            key: bases.key.with(step.node as u64),
            n: bases.n,
            inputs: node.inputs.iter().map(|&id| self.graph.shape(id)).collect(),
            x: x.iter().map(|&place| self.address(place, bases)).collect(),
            output: node.shape,
            y: y.map_or(Ptr::NULL, |place| self.address(place, bases)),
            dy: address(*dy),
            dx: dx.collect(),
            params: bases.values_of(node).collect(),
            dparams: dparams.collect(),
            saved: step.saved.iter().map(|&b| address(b)).collect(),
            scratch: step.scratch.map_or(Ptr::NULL, address),
        })
    }

    fn address(&self, place: Place, bases: &Bases<'_>) -> Ptr {
        match place {
            Place::Images => bases.images,
            Place::Targets => bases.targets,
            Place::Buffer(b) => bases.arena.at(self.buffers[b].offset),
        }
    }
}

impl Bases<'_> {
    fn values_of(&self, node: &Node) -> impl Iterator<Item = Ptr> {
        node.params.iter().map(|&p| self.values.at(self.params.range(p).start))
    }
}

fn kernel(node: &Node) -> Result<&dyn Kernel> {
    let op = node.op().expect("steps run ops");
    op.cuda().ok_or_else(|| Error::new(ErrorKind::Unsupported, &node.name, format!("{} on a GPU", op.kind())))
}
