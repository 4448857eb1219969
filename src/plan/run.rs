//! Runs a plan's steps.

use std::ops::ControlFlow;
use std::time::Instant;

use arrayvec::ArrayVec;
use ndarray::{ArrayView2, ArrayView4, ArrayViewMut4};

use super::{Arena, DxPlace, Explained, Pass, Pixels, Place, Plan, Step};
use crate::Result;
use crate::backend::{Host, Real};
use crate::graph::{Node, NodeId, Shape};
use crate::ops::{Backward, Forward, Grad, ParamGrad};
use crate::params::Params;
use crate::rng::Key;

/// What a run reads: images `[n, h, w, c]` and, where the plan has a loss, dense targets `[n, classes]`, both
/// contiguous.
#[derive(Clone, Copy)]
pub struct Input<'a, E> {
    /// Images.
    pub images: ArrayView4<'a, E>,
    /// What a device makes the images of, where its machine [takes that](super::Machine::TAKES_PIXELS): `images` has their
    /// shape alone then ([`Pixels::input`]).
    pub pixels: Option<Pixels<'a>>,
    /// Targets.
    pub targets: Option<ArrayView2<'a, E>>,
    /// Names the randomness of this step.
    pub key: Key,
}

/// The operands of a forward step, and whether its output is made once more.
struct Outputs<'a> {
    x: &'a [Place],
    y: usize,
    in_place: bool,
    again: bool,
}

/// Parameters, states, and what was prepared of them.
type Constants<'a, E> = (&'a Params<E>, &'a Arena<E>, &'a [E]);

impl<'a, E> Input<'a, E> {
    /// The same for a shorter time (array views do not shorten their lifetimes by themselves).
    fn reborrow<'b>(self) -> Input<'b, E>
    where
        'a: 'b,
    {
        Input {
            images: self.images.reborrow(),
            pixels: self.pixels,
            targets: self.targets.map(|t| t.reborrow()),
            key: self.key,
        }
    }
}

impl Plan {
    /// Runs all forward steps, or those until `after`, which sees each node and its output, breaks off.
    pub(crate) fn forward<B: Host>(
        &self,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        arena: &mut Arena<B::Elem>,
        after: impl FnMut(NodeId, &[B::Elem]) -> ControlFlow<()>,
    ) {
        self.forward_steps::<B>(input, (params, &params.states, &[]), arena, after);
    }

    /// What an inference plan's kernels make of parameters and states: the same for any batch.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where memory is too small.
    pub(crate) fn prepare<B: Host>(&self, params: &Params<B::Elem>) -> Result<Arena<B::Elem>> {
        let mut prepared = Arena::new(self.prepared_len)?;
        for step in &self.steps {
            let node = &self.graph.nodes()[step.node];
            let Some(op) = node.op() else { continue };
            let shapes: Vec<Shape> = node.inputs.iter().map(|&id| self.graph.shape(id)).collect();
            let values: Vec<&[B::Elem]> = node.params.iter().map(|&p| &params.values()[params.range(p)]).collect();
            let states: Vec<&[B::Elem]> =
                node.states.iter().map(|&s| &params.states()[params.state_range(s)]).collect();
            let part = &mut prepared.all_mut()[step.prepared.clone()];
            B::kernel(op).prepare(&shapes, node.shape, &values, &states, part);
        }
        Ok(prepared)
    }

    /// Runs all forward steps with parameters, and what was made of them, that several threads share, and a copy of the
    /// state of its own: kernels get state to change, although only training changes it.
    pub(crate) fn infer<B: Host>(
        &self,
        input: Input<'_, B::Elem>,
        (params, prepared): (&Params<B::Elem>, &[B::Elem]),
        states: &mut Arena<B::Elem>,
        arena: &mut Arena<B::Elem>,
    ) {
        self.forward_steps::<B>(input, (params, states, prepared), arena, |_, _| ControlFlow::Continue(()));
    }

    /// No slice of `states` may live: both callers have it exclusively.
    fn forward_steps<B: Host>(
        &self,
        input: Input<'_, B::Elem>,
        constants: Constants<'_, B::Elem>,
        arena: &mut Arena<B::Elem>,
        mut after: impl FnMut(NodeId, &[B::Elem]) -> ControlFlow<()>,
    ) {
        for step in &self.steps {
            let node = &self.graph.nodes()[step.node];
            if let Pass::Forward { x, y, in_place } = &step.pass {
                let operands = Outputs { x, y: *y, in_place: *in_place, again: false };
                self.forward_step::<B>(step, node, operands, input.reborrow(), constants, arena);
                // SAFETY: the step is over, its operands are gone.
                let output = unsafe { arena.slice(self.buffers[*y].range(input.images.dim().0)) };
                if after(NodeId(step.node), output).is_break() {
                    return;
                }
            }
        }
    }

    /// Runs all backward steps of training. `scale` is the gradient of each image's loss; `accumulate` adds to the
    /// parameters' gradients instead of overwriting them.
    pub(crate) fn backward<B: Host>(
        &self,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        arena: &mut Arena<B::Elem>,
        scale: f64,
        accumulate: bool,
    ) {
        let n = input.images.dim().0;
        if let Some(dloss) = self.dlast {
            arena.all_mut()[self.buffers[dloss].range(n)].fill(B::Elem::of(scale));
        }
        self.backward_steps::<B>(input, (params, &params.grads), arena, accumulate);
    }

    /// Runs all backward steps from the score of each image's class; `grads` takes the parameters' gradients.
    pub(crate) fn explain<B: Host>(
        &self,
        input: Input<'_, B::Elem>,
        params: &Params<B::Elem>,
        grads: &mut Arena<B::Elem>,
        arena: &mut Arena<B::Elem>,
        classes: impl IntoIterator<Item = usize>,
    ) {
        let (n, scores) = (input.images.dim().0, self.classes());
        if let Some(dscores) = self.dlast {
            let dscores = &mut arena.all_mut()[self.buffers[dscores].range(n)];
            for (row, class) in dscores.chunks_mut(scores).zip(classes) {
                row.iter_mut().enumerate().for_each(|(c, d)| *d = B::Elem::of(f64::from(c == class)));
            }
        }
        self.backward_steps::<B>(input, (params, grads), arena, false);
    }

    /// No slice of the gradients may live: both callers have them exclusively.
    fn backward_steps<B: Host>(
        &self,
        input: Input<'_, B::Elem>,
        (params, grads): (&Params<B::Elem>, &Arena<B::Elem>),
        arena: &mut Arena<B::Elem>,
        accumulate: bool,
    ) {
        for step in &self.steps {
            self.step_back::<B>(step, input.reborrow(), (params, grads), arena, accumulate);
        }
    }

    /// Runs a step of the backward pass; leaves one of the forward pass out.
    fn step_back<B: Host>(
        &self,
        step: &Step,
        input: Input<'_, B::Elem>,
        (params, grads): (&Params<B::Elem>, &Arena<B::Elem>),
        arena: &mut Arena<B::Elem>,
        accumulate: bool,
    ) {
        match &step.pass {
            Pass::Forward { .. } => {}
            Pass::Again { x, y } => {
                let node = &self.graph.nodes()[step.node];
                let operands = Outputs { x, y: *y, in_place: false, again: true };
                self.forward_step::<B>(step, node, operands, input.reborrow(), (params, &params.states, &[]), arena);
            }
            Pass::Backward { .. } => {
                self.backward_step::<B>(step, input.reborrow(), (params, grads), arena, accumulate);
            }
        }
    }

    /// The explained layer's output, and its gradient where it has one.
    pub(crate) fn explained<'a, E: Real>(
        &self,
        n: usize,
        arena: &'a Arena<E>,
    ) -> Option<(ArrayView4<'a, E>, Option<ArrayView4<'a, E>>)> {
        let Explained { shape, output, gradient } = self.explained?;
        let view = |b: usize| {
            let values = &arena.all()[self.buffers[b].range(n)];
            ArrayView4::from_shape((n, shape.h, shape.w, shape.c), values).expect("a buffer has its size")
        };
        Some((view(output), gradient.map(view)))
    }

    /// Runs all steps of a training pass and adds the seconds that each took to `seconds`, one entry per step.
    pub(crate) fn time_steps<B: Host>(
        &self,
        input: Input<'_, B::Elem>,
        params: &mut Params<B::Elem>,
        arena: &mut Arena<B::Elem>,
        scale: f64,
        seconds: &mut [f64],
    ) {
        let n = input.images.dim().0;
        for (step, seconds) in self.steps.iter().zip(seconds) {
            let started = Instant::now();
            match &step.pass {
                Pass::Forward { x, y, in_place } => {
                    let node = &self.graph.nodes()[step.node];
                    let operands = Outputs { x, y: *y, in_place: *in_place, again: false };
                    let constants = (&*params, &params.states, &[][..]);
                    self.forward_step::<B>(step, node, operands, input.reborrow(), constants, arena);
                    if self.loss == Some(*y)
                        && let Some(dloss) = self.dlast
                    {
                        arena.all_mut()[self.buffers[dloss].range(n)].fill(B::Elem::of(scale));
                    }
                }
                Pass::Again { .. } | Pass::Backward { .. } => {
                    self.step_back::<B>(step, input.reborrow(), (params, &params.grads), arena, false);
                }
            }
            *seconds += started.elapsed().as_secs_f64();
        }
    }

    /// The class scores of the last forward run of `n` images.
    pub(crate) fn logits<'a, E: Real>(&self, n: usize, arena: &'a Arena<E>) -> ArrayView2<'a, E> {
        let Place::Buffer(b) = self.logits else { unreachable!("a model has at least one layer") };
        let buffer = &self.buffers[b];
        ArrayView2::from_shape((n, buffer.per_image), &arena.all()[buffer.range(n)]).expect("a buffer has its size")
    }

    /// The loss of each image of the last forward run.
    pub(crate) fn losses<'a, E: Real>(&self, n: usize, arena: &'a Arena<E>) -> &'a [E] {
        self.loss.map_or(&[], |b| &arena.all()[self.buffers[b].range(n)])
    }

    fn forward_step<'a, B: Host>(
        &self,
        step: &Step,
        node: &Node,
        Outputs { x, y, in_place, again }: Outputs<'_>,
        input: Input<'a, B::Elem>,
        (params, all_states, prepared): Constants<'a, B::Elem>,
        arena: &'a Arena<B::Elem>,
    ) {
        let n = input.images.dim().0;
        let training = self.mode == super::Mode::Train;
        let mut views = ArrayVec::new();
        for (k, (&place, &id)) in x.iter().zip(&node.inputs).enumerate() {
            let shape = self.graph.shape(id);
            views.push(if in_place && k == 0 {
                empty()
            } else {
                // SAFETY: `check_disjoint`: no operand of this step that is mutable overlaps it.
                unsafe { self.view(place, (n, shape.h, shape.w, shape.c), input, arena) }
            });
        }
        let op = node.op().expect("steps run ops");
        let y_dim = (n, node.shape.h, node.shape.w, node.shape.c);
        // SAFETY: `check_disjoint` made sure that mutable operands of one step overlap nothing else; states of one
        // node are different table entries.
        let (y, saved, scratch, states) = unsafe {
            (
                arena.slice_mut(self.buffers[y].range(n)),
                step.saved.iter().map(|&b| arena.slice_mut(self.buffers[b].range(n))).collect(),
                step.scratch.map_or(&mut [][..], |b| arena.slice_mut(self.buffers[b].range(n))),
                node.states.iter().map(|&s| all_states.slice_mut(params.state_range(s))).collect(),
            )
        };
        // SAFETY: nobody writes parameters while a plan runs.
        let values = node.params.iter().map(|&p| unsafe { params.values.slice(params.range(p)) }).collect();
        B::kernel(op).forward(Forward {
            training,
            again,
            key: input.key.with(step.node as u64),
            x: views,
            y: ArrayViewMut4::from_shape(y_dim, y).expect("a buffer has its size"),
            in_place,
            params: values,
            states,
            saved,
            prepared: &prepared[step.prepared.clone()],
            scratch,
        });
    }

    fn backward_step<'a, B: Host>(
        &self,
        step: &Step,
        input: Input<'a, B::Elem>,
        (params, all_grads): (&'a Params<B::Elem>, &'a Arena<B::Elem>),
        arena: &'a Arena<B::Elem>,
        accumulate: bool,
    ) {
        let Pass::Backward { x, y, dy, dx, dparams } = &step.pass else { return };
        let n = input.images.dim().0;
        let node = &self.graph.nodes()[step.node];
        let dim = |id: usize| {
            let shape = self.graph.nodes()[id].shape;
            (n, shape.h, shape.w, shape.c)
        };
        let mutable = |buffer: usize, id: usize| {
            // SAFETY: `check_disjoint` made sure that mutable operands of one step overlap nothing else.
            let values = unsafe { arena.slice_mut(self.buffers[buffer].range(n)) };
            ArrayViewMut4::from_shape(dim(id), values).expect("a buffer has its size")
        };
        let mut views = ArrayVec::new();
        for (&place, id) in x.iter().zip(&node.inputs) {
            // SAFETY: as above.
            views.push(unsafe { self.view(place, dim(id.0), input, arena) });
        }
        let y = match y {
            // SAFETY: as above.
            Some(place) => unsafe { self.view(*place, dim(step.node), input, arena) },
            None => empty(),
        };
        let in_place = dx.iter().any(|dx| matches!(dx, DxPlace::InPlace(_)));
        let grads = dx.iter().zip(&node.inputs).map(|(dx, id)| match *dx {
            DxPlace::Skip => Grad::Skip,
            DxPlace::Write(b) => Grad::Write(mutable(b, id.0)),
            DxPlace::Add(b) => Grad::Add(mutable(b, id.0)),
            DxPlace::InPlace(b) => Grad::InPlace(mutable(b, id.0)),
        });
        let dparams = node.params.iter().zip(dparams).map(|(&p, place)| ParamGrad {
            // SAFETY: the parameters of one node are different table entries, and nobody else looks at gradients.
            values: unsafe { all_grads.slice_mut(params.range(p)) },
            add: accumulate || place.add,
            needed: place.needed,
        });
        let io = Backward {
            training: self.mode == super::Mode::Train,
            key: input.key.with(step.node as u64),
            x: views,
            y,
            dy: if in_place { empty_mut() } else { mutable(*dy, step.node) },
            dx: grads.collect(),
            // SAFETY: nobody writes parameters while a plan runs.
            params: node.params.iter().map(|&p| unsafe { params.values.slice(params.range(p)) }).collect(),
            dparams: dparams.collect(),
            // SAFETY: `check_disjoint`.
            saved: step.saved.iter().map(|&b| unsafe { arena.slice(self.buffers[b].range(n)) }).collect(),
            // SAFETY: `check_disjoint`.
            scratch: step.scratch.map_or(&mut [], |b| unsafe { arena.slice_mut(self.buffers[b].range(n)) }),
        };
        B::kernel(node.op().expect("steps run ops")).backward(io);
    }

    /// # Safety
    /// No mutable slice of the buffer at `place` may live.
    unsafe fn view<'a, E: Real>(
        &self,
        place: Place,
        dim: (usize, usize, usize, usize),
        input: Input<'a, E>,
        arena: &'a Arena<E>,
    ) -> ArrayView4<'a, E> {
        match place {
            Place::Images => input.images,
            Place::Targets => {
                let targets = input.targets.expect("a plan with a loss gets targets");
                targets.into_shape_with_order(dim).expect("targets were checked")
            }
            // SAFETY: the caller's promise.
            Place::Buffer(b) => ArrayView4::from_shape(dim, unsafe { arena.slice(self.buffers[b].range(dim.0)) })
                .expect("a buffer has its size"),
        }
    }
}

fn empty<'a, E>() -> ArrayView4<'a, E> {
    ArrayView4::from_shape((0, 0, 0, 0), &[]).expect("an empty view")
}

fn empty_mut<'a, E>() -> ArrayViewMut4<'a, E> {
    ArrayViewMut4::from_shape((0, 0, 0, 0), &mut []).expect("an empty view")
}
