//! How a graph runs: an ordered list of steps over buffers in one arena, fixed before the first image.

mod arena;
mod compile;
#[cfg(feature = "cuda")]
mod device;
mod fuse;
mod machine;
mod pixels;
mod print;
mod profile;
mod roofline;
mod run;

use std::ops::Range;

use crate::graph::{Graph, NodeId, Shape};

pub use arena::Arena;
pub(crate) use arena::require_memory;
#[cfg(feature = "cuda")]
pub(crate) use device::Bases;
pub use machine::{Look, Machine};
pub use pixels::Pixels;
pub use profile::{Profile, StepProfile};
pub use roofline::{Roofline, RooflineRow, Speed};
pub use run::Input;

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward, loss, backward.
    Train,
    /// Forward and loss, with evaluation statistics.
    Eval,
    /// Forward, with evaluation statistics, where layers that can run as one do on backends that have such
    /// ([`Backend::FUSES`](crate::backend::Backend::FUSES)), and weights are prepared once.
    Infer,
    /// Forward, with evaluation statistics, then backward from the class scores to one layer: its output and its
    /// gradient stay.
    Explain(NodeId),
}

impl Mode {
    /// Whether it ends in a loss.
    fn has_loss(self) -> bool {
        matches!(self, Mode::Train | Mode::Eval)
    }
}

/// A compiled graph: for up to `max_batch` images it runs without allocating.
///
/// ```
/// use handgrad::backend::Cpu;
/// use handgrad::models;
/// use handgrad::plan::{Mode, Plan};
/// let graph = models::build("simplenet", &Default::default())?;
/// let plan = Plan::compile::<Cpu>(&graph, 64, Mode::Train)?;
/// println!("{plan}"); // every step with its buffers
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    graph: Graph,
    mode: Mode,
    max_batch: usize,
    element_bytes: usize,
    buffers: Vec<Buffer>,
    steps: Vec<Step>,
    /// Where the class scores lie.
    logits: Place,
    /// Where the loss of each image lies.
    loss: Option<usize>,
    /// The gradient of the last node, where backward begins: of each image's loss, or of the class scores.
    dlast: Option<usize>,
    /// The layer that is explained.
    explained: Option<Explained>,
    arena_len: usize,
    /// Elements of what the kernels prepare.
    prepared_len: usize,
}

/// A part of the arena, and the steps between which its content matters. Sizes are in elements.
#[derive(Clone, Debug)]
struct Buffer {
    name: String,
    per_image: usize,
    fixed: usize,
    first: usize,
    last: usize,
    offset: usize,
}

impl Buffer {
    /// The elements in use for `n` images.
    fn range(&self, n: usize) -> Range<usize> {
        self.offset..self.offset + self.per_image * n + self.fixed
    }
}

/// The layer that a plan explains: its shape, the buffers of its output and of that output's gradient.
#[derive(Clone, Copy, Debug)]
struct Explained {
    shape: Shape,
    output: usize,
    /// `None` where no class score depends on it.
    gradient: Option<usize>,
}

/// Where an activation lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The caller's images.
    Images,
    /// The caller's targets.
    Targets,
    /// A buffer of the arena.
    Buffer(usize),
}

/// Where the gradient of an input goes; indices of buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DxPlace {
    Skip,
    Write(usize),
    Add(usize),
    InPlace(usize),
}

/// What becomes of the gradient of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DparamPlace {
    /// The parameter is trained.
    needed: bool,
    /// An earlier step of this pass wrote it (a shared weight).
    add: bool,
}

#[derive(Clone, Debug)]
struct Step {
    node: usize,
    saved: Vec<usize>,
    scratch: Option<usize>,
    /// Its part of what was prepared.
    prepared: Range<usize>,
    pass: Pass,
}

#[derive(Clone, Debug)]
enum Pass {
    Forward {
        x: Vec<Place>,
        y: usize,
        in_place: bool,
    },
    /// In the backward pass: an output once more, whose memory others had meanwhile.
    Again {
        x: Vec<Place>,
        y: usize,
    },
    Backward {
        /// Inputs, where the op keeps them.
        x: Vec<Place>,
        /// The output, where the op keeps it.
        y: Option<Place>,
        dy: usize,
        dx: Vec<DxPlace>,
        /// Per parameter.
        dparams: Vec<DparamPlace>,
    },
}

impl Step {
    /// How often it does the op's forward work: backward once for the inputs' gradients and once for the parameters',
    /// where they are needed.
    fn passes(&self) -> u64 {
        match &self.pass {
            Pass::Forward { .. } | Pass::Again { .. } => 1,
            Pass::Backward { dx, dparams, .. } => {
                let inputs = dx.iter().any(|dx| *dx != DxPlace::Skip);
                let weights = dparams.is_empty() || dparams.iter().any(|dparam| dparam.needed);
                u64::from(inputs) + u64::from(weights)
            }
        }
    }
}

impl Plan {
    /// The graph that it runs, with the loss where the mode has one.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The most images that one run takes.
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Class scores per image.
    pub fn classes(&self) -> usize {
        match self.logits {
            Place::Buffer(b) => self.buffers[b].per_image,
            Place::Images | Place::Targets => 0,
        }
    }

    /// What it is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How many steps a run has.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Elements of arena that it needs.
    pub fn arena_len(&self) -> usize {
        self.arena_len
    }

    /// Elements that its kernels prepare before the first image: weights in the order in which they are read.
    pub fn prepared_len(&self) -> usize {
        self.prepared_len
    }

    /// Floating-point operations of a step for one image, 2 per multiply-add.
    fn flops(&self, step: &Step) -> u64 {
        let node = &self.graph.nodes()[step.node];
        let shapes: Vec<Shape> = node.inputs.iter().map(|&id| self.graph.shape(id)).collect();
        node.op().map_or(0, |op| op.flops(&shapes, node.shape)).saturating_mul(step.passes())
    }

    /// Bytes of arena that it needs.
    pub fn arena_bytes(&self) -> usize {
        self.arena_len * self.element_bytes
    }
}
