//! What a plan asks of an op on the device: the contract of [`crate::ops`] with addresses in the place of views.

use arrayvec::ArrayVec;

use super::{Gpu, Ptr};
use crate::Result;
use crate::backend::Precision;
use crate::graph::Shape;
use crate::ops::{MAX_INPUTS, MAX_PARAMS};
use crate::rng::Key;

/// An op's implementation on the device: forward and backward, each a few launches.
///
/// Shapes were checked when the graph was built, sizes when the plan was compiled: every tensor has fewer than 2³¹ elements
/// and begins at a multiple of 64 bytes.
pub trait Kernel: Sync {
    /// Elements of working memory that either pass needs for up to `n` images.
    fn scratch(&self, _inputs: &[Shape], _output: Shape, _n: usize, _precision: Precision) -> usize {
        0
    }

    /// Writes `y`, `saved` where a backward pass follows, and `states` in training.
    ///
    /// # Errors
    /// What the driver reports.
    fn forward(&self, io: &Forward<'_>) -> Result<()>;

    /// Writes or adds the gradients of inputs and parameters.
    ///
    /// # Errors
    /// What the driver reports.
    fn backward(&self, io: &Backward<'_>) -> Result<()>;
}

/// What a forward pass reads and writes, as [`crate::ops::Forward`].
pub struct Forward<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The arithmetic of convolutions and linear layers.
    pub precision: Precision,
    /// A training pass: updates state, drops out.
    pub training: bool,
    /// Names the randomness of this node in this step.
    pub key: Key,
    /// Images.
    pub n: usize,
    /// Shapes of the inputs.
    pub inputs: ArrayVec<Shape, MAX_INPUTS>,
    /// Inputs `[n, h, w, c]`. In place, the first is `y`.
    pub x: ArrayVec<Ptr, MAX_INPUTS>,
    /// Shape of the output.
    pub output: Shape,
    /// The output.
    pub y: Ptr,
    /// Parameters, in the order of [`crate::ops::Op::params`].
    pub params: ArrayVec<Ptr, MAX_PARAMS>,
    /// State, in the order of [`crate::ops::Op::states`].
    pub states: ArrayVec<Ptr, MAX_PARAMS>,
    /// Tensors for backward, in the order of [`crate::ops::Op::saved`]; empty where no backward pass follows.
    pub saved: ArrayVec<Ptr, MAX_PARAMS>,
    /// Working memory of [`Kernel::scratch`] elements.
    pub scratch: Ptr,
}

/// What a backward pass reads and writes, as [`crate::ops::Backward`].
pub struct Backward<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The arithmetic of convolutions and linear layers.
    pub precision: Precision,
    /// Whether the forward pass was one of training.
    pub training: bool,
    /// The key that the forward pass had.
    pub key: Key,
    /// Images.
    pub n: usize,
    /// Shapes of the inputs.
    pub inputs: ArrayVec<Shape, MAX_INPUTS>,
    /// Inputs, empty unless [`crate::ops::Op::keeps`] asks for them.
    pub x: ArrayVec<Ptr, MAX_INPUTS>,
    /// Shape of the output.
    pub output: Shape,
    /// The output; null unless [`crate::ops::Op::keeps`] asks for it.
    pub y: Ptr,
    /// The gradient of the output. In place, `dx[0]` is the same memory.
    pub dy: Ptr,
    /// Gradients of the inputs.
    pub dx: ArrayVec<Grad, MAX_INPUTS>,
    /// Parameters.
    pub params: ArrayVec<Ptr, MAX_PARAMS>,
    /// Gradients of the parameters.
    pub dparams: ArrayVec<ParamGrad, MAX_PARAMS>,
    /// What forward saved.
    pub saved: ArrayVec<Ptr, MAX_PARAMS>,
    /// Working memory of [`Kernel::scratch`] elements.
    pub scratch: Ptr,
}

/// Where the gradient of one input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grad {
    /// Nobody needs it.
    Skip,
    /// Overwrite: the memory holds anything, NaN included.
    Write(Ptr),
    /// Add to what another use of the input left.
    Add(Ptr),
    /// The memory holds `dy`; turn it into the gradient.
    InPlace(Ptr),
}

impl Grad {
    /// The memory, and whether to add to it; `None` where nobody needs the gradient.
    pub fn target(self) -> Option<(Ptr, bool)> {
        match self {
            Grad::Skip => None,
            Grad::Write(dx) | Grad::InPlace(dx) => Some((dx, false)),
            Grad::Add(dx) => Some((dx, true)),
        }
    }
}

/// Where the gradient of one parameter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamGrad {
    /// The gradient, in the parameter's order.
    pub at: Ptr,
    /// Add to it instead of overwriting it.
    pub add: bool,
    /// Somebody reads it.
    pub needed: bool,
}

impl ParamGrad {
    /// Its address, null where nobody reads it.
    pub fn wanted(self) -> Ptr {
        if self.needed { self.at } else { Ptr::NULL }
    }
}

/// Working memory, dealt out part by part, each at a multiple of 64 bytes.
pub(crate) struct Parts {
    start: Ptr,
    len: usize,
}

impl Parts {
    /// Of the memory that begins there; at null, to find out how long it has to be.
    pub fn of(start: Ptr) -> Self {
        Parts { start, len: 0 }
    }

    /// The next `len` elements.
    pub fn take(&mut self, len: usize) -> Ptr {
        let part = self.rest();
        self.len += len.next_multiple_of(16);
        part
    }

    /// What lies behind the parts.
    pub fn rest(&self) -> Ptr {
        self.start.at(self.len)
    }

    /// Elements of the parts so far.
    pub fn len(&self) -> usize {
        self.len
    }
}
