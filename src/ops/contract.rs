//! The contract between an op, the plan and the backends.

use std::fmt;

use arrayvec::ArrayVec;
use ndarray::{ArrayView4, ArrayViewMut4};

use crate::backend::{Host, Real};
use crate::graph::Shape;
use crate::rng::Key;

/// The most inputs that one node takes.
pub const MAX_INPUTS: usize = 8;
/// The most parameters, states or saved tensors of one node.
pub const MAX_PARAMS: usize = 8;

/// A read view of one activation for `n` images: `[n, h, w, c]`, contiguous.
pub type View<'a, E> = ArrayView4<'a, E>;
/// A mutable view of one activation for `n` images: `[n, h, w, c]`, contiguous.
pub type ViewMut<'a, E> = ArrayViewMut4<'a, E>;

/// What an op computes, independent of any device.
///
/// Implementors are plain structs (the "spec"): their fields are the op's settings and nothing else.
pub trait Op: fmt::Debug + Send + Sync {
    /// The op's name in summaries, plans and files, such as `conv2d`.
    fn kind(&self) -> &'static str;

    /// The shape rule: the output's shape, or why these inputs do not fit.
    ///
    /// # Errors
    /// A [`Mismatch`]; the graph adds the layer's path.
    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch>;

    /// Parameters for inputs that [`Op::output`] accepts.
    fn params(&self, _inputs: &[Shape]) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// State (running statistics): changed only by a training forward pass, saved in checkpoints and model files.
    fn states(&self, _inputs: &[Shape]) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// Floating-point operations of one image's forward pass (2 per multiply-add).
    fn flops(&self, _inputs: &[Shape], _output: Shape) -> u64 {
        0
    }

    /// Which activations its backward pass reads.
    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    /// Tensors that the forward pass leaves for the backward pass.
    fn saved(&self, _inputs: &[Shape], _output: Shape) -> Vec<Saved> {
        Vec::new()
    }

    /// Whether the output may take the place of input 0.
    fn in_place(&self) -> InPlace {
        InPlace::NEVER
    }

    /// Whether a training plan may give the output's memory to others until a backward step reads it, and have the output
    /// made again from inputs and saved tensors by then ([`Forward::again`]): where that takes a pass over memory.
    fn recomputes(&self) -> bool {
        false
    }

    /// Whether it has no backward pass: only plans that infer run it.
    fn only_infers(&self) -> bool {
        false
    }

    /// Its implementation in f64: the truth.
    fn reference(&self) -> &dyn Kernel<crate::backend::Reference>;

    /// Its implementation in f32 on CPU threads.
    fn cpu(&self) -> &dyn Kernel<crate::backend::Cpu>;

    /// Its implementation in f32 on a GPU, where it has one.
    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Option<&dyn crate::backend::cuda::Kernel> {
        None
    }
}

/// One backend's implementation of an op: forward and backward.
///
/// Shapes were checked when the graph was built, sizes when the plan was compiled: kernels do not fail.
pub trait Kernel<B: Host>: Sync {
    /// Elements of working memory that either pass needs for up to `n` images.
    fn scratch(&self, _inputs: &[Shape], _output: Shape, _n: usize) -> usize {
        0
    }

    /// Elements that [`Kernel::prepare`] writes: a function of the shapes, whatever the batch.
    fn prepared(&self, _inputs: &[Shape], _output: Shape) -> usize {
        0
    }

    /// What an inference plan makes of parameters and states once, before its first image.
    fn prepare(
        &self,
        _inputs: &[Shape],
        _output: Shape,
        _params: &[&[B::Elem]],
        _states: &[&[B::Elem]],
        _prepared: &mut [B::Elem],
    ) {
    }

    /// Writes `y`, `saved` where a backward pass follows, and `states` in training.
    fn forward(&self, io: Forward<'_, B::Elem>);

    /// Writes or adds the gradients of inputs and parameters.
    fn backward(&self, io: Backward<'_, B::Elem>);
}

/// Why inputs do not fit an op.
#[derive(Debug)]
pub struct Mismatch {
    /// What the op met.
    pub found: String,
    /// What would fit.
    pub expected: String,
}

impl Mismatch {
    /// `found` does not fit; `expected` would.
    pub fn new(found: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Mismatch { found: found.to_string(), expected: expected.to_string() }
    }
}

/// The inputs of an op that takes exactly one.
///
/// # Errors
/// A [`Mismatch`] for any other count.
pub fn one_input(inputs: &[Shape]) -> Result<Shape, Mismatch> {
    match inputs {
        [x] => Ok(*x),
        _ => Err(Mismatch::new(format!("{} inputs", inputs.len()), "one input")),
    }
}

/// A parameter or state of an op: its name behind the layer's, size, order in files, first values.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// The name behind the layer's path, such as `weight`.
    pub name: &'static str,
    /// How the engine's order and that of PyTorch's files relate.
    pub layout: Layout,
    /// First values.
    pub init: Init,
}

/// The order of a parameter's values: the engine's, and PyTorch's in files.
#[derive(Clone, Debug, PartialEq)]
pub enum Layout {
    /// The same in both; the shape in files.
    Plain(Vec<usize>),
    /// Convolution: `[kh][kw][cin / groups][cout]` here, `[cout][cin / groups][kh][kw]` in files.
    Conv {
        /// Kernel height and width.
        kernel: (usize, usize),
        /// Input channels per group.
        cin: usize,
        /// Output channels.
        cout: usize,
    },
    /// Fully connected: `[in][out]` here, `[out][in]` in files; behind a Flatten of an `(h, w, c)` map the inputs
    /// are ordered `[h][w][c]` here and `[c][h][w]` in files.
    Linear {
        /// The map behind the inputs: `(1, 1, inputs)` where there is none.
        map: (usize, usize, usize),
        /// Outputs.
        outputs: usize,
    },
}

impl Layout {
    /// The number of values, or `None` where it exceeds the largest tensor that a plan takes (2³¹ − 1).
    pub fn checked_len(&self) -> Option<usize> {
        self.torch_shape().iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= i32::MAX as usize)
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.torch_shape().iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape in PyTorch's files.
    pub fn torch_shape(&self) -> Vec<usize> {
        match self {
            Layout::Plain(shape) => shape.clone(),
            Layout::Conv { kernel, cin, cout } => vec![*cout, *cin, kernel.0, kernel.1],
            Layout::Linear { map: (h, w, c), outputs } => vec![*outputs, h.saturating_mul(*w).saturating_mul(*c)],
        }
    }

    /// Calls `pair(engine_index, torch_index)` for every value.
    pub fn for_each_pair(&self, mut pair: impl FnMut(usize, usize)) {
        match *self {
            Layout::Plain(_) => (0..self.len()).for_each(|i| pair(i, i)),
            Layout::Conv { kernel: (kh, kw), cin, cout } => {
                for tap in 0..kh * kw {
                    for i in 0..cin {
                        for o in 0..cout {
                            pair((tap * cin + i) * cout + o, (o * cin + i) * kh * kw + tap);
                        }
                    }
                }
            }
            Layout::Linear { map: (h, w, c), outputs } => {
                for pixel in 0..h * w {
                    for channel in 0..c {
                        for o in 0..outputs {
                            pair((pixel * c + channel) * outputs + o, o * h * w * c + channel * h * w + pixel);
                        }
                    }
                }
            }
        }
    }
}

/// First values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All equal.
    Constant(f64),
    /// Uniform in `±bound`.
    Uniform(f64),
    /// Uniform from the first number to the second.
    Between(f64, f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// A convolution that passes its input on: output channel o is input channel o, as far as there are both, by a 1 at the
    /// kernel's centre. Further output channels are uniform in `±bound`. Of ungrouped convolutions alone.
    Identity {
        /// Input channels.
        cin: usize,
        /// Kernel height and width.
        kernel: (usize, usize),
        /// The bound of further output channels.
        bound: f64,
    },
    /// A random direction: standard normals, divided by the root of the sum of their squares.
    Direction,
    /// The values that the layer's parameter `of` gets by `Uniform(bound)`, each 3×3 kernel turned by 90° clockwise.
    Turned {
        /// The other parameter's name behind the layer's path.
        of: &'static str,
        /// Its bound.
        bound: f64,
    },
}

impl Init {
    /// PyTorch's default for convolutions and linear layers: U(±1/√fan_in).
    pub fn torch_default(fan_in: usize) -> Self {
        Init::Uniform(1.0 / (fan_in.max(1) as f64).sqrt())
    }

    /// Normal with variance 2/fan, fan_in or fan_out (He et al. 2015).
    pub fn kaiming_normal(fan: usize) -> Self {
        Init::Normal((2.0 / fan.max(1) as f64).sqrt())
    }

    /// [`Init::Identity`] for the weight of an ungrouped convolution, PyTorch's default for what has no input channel of
    /// its own.
    ///
    /// ```
    /// use handgrad::ops::{Init, Layout};
    /// use handgrad::rng::Key;
    /// let init = Init::identity(&Layout::Conv { kernel: (3, 3), cin: 2, cout: 2 }).unwrap();
    /// let value = init.values(Key::new(1), 36);
    /// let ones: Vec<usize> = (0..36).filter(|&i| value(i) != 0.0).collect();
    /// assert_eq!(ones, [4, 31]); // [out][in][row][column]: the centres of 0 → 0 and of 1 → 1
    /// ```
    pub fn identity(layout: &Layout) -> Option<Self> {
        let &Layout::Conv { kernel, cin, .. } = layout else { return None };
        let bound = 1.0 / ((cin * kernel.0 * kernel.1).max(1) as f64).sqrt();
        Some(Init::Identity { cin, kernel, bound })
    }

    /// The values of a parameter of `len` values, drawn from `key`, which names it ([`Init::Turned`]: the other one), by index in the order of PyTorch's files.
    ///
    /// ```
    /// use handgrad::ops::Init;
    /// use handgrad::rng::Key;
    /// let value = Init::Direction.values(Key::new(1), 100);
    /// let squares: f64 = (0..100).map(|i| value(i).powi(2)).sum();
    /// assert!((squares - 1.0).abs() < 1e-12);
    /// ```
    pub fn values(self, key: Key, len: usize) -> impl Fn(usize) -> f64 {
        let draw = move |i: usize| {
            // What is turned comes from row 2 − column, column row.
            let from = if let Init::Turned { .. } = self { i - i % 9 + 3 * (2 - i % 3) + i % 9 / 3 } else { i };
            let mut stream = key.with(from as u64).stream();
            match self {
                Init::Constant(value) => value,
                Init::Uniform(bound) => stream.uniform(-bound, bound),
                Init::Between(low, high) => stream.uniform(low, high),
                Init::Normal(std) => std * stream.normal(),
                Init::Identity { cin, kernel: (h, w), bound } => {
                    let (out, rest) = (i / (cin * h * w), i % (cin * h * w));
                    match out < cin {
                        true if rest == out * h * w + h / 2 * w + w / 2 => 1.0,
                        true => 0.0,
                        false => stream.uniform(-bound, bound),
                    }
                }
                Init::Direction => stream.normal(),
                Init::Turned { bound, .. } => stream.uniform(-bound, bound),
            }
        };
        let norm = match self {
            Init::Direction => (0..len).map(|i| draw(i).powi(2)).sum::<f64>().sqrt(),
            _ => 1.0,
        };
        move |i| draw(i) / norm
    }
}

/// Which activations a backward pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// All inputs.
    pub inputs: bool,
    /// The output.
    pub output: bool,
}

impl Keeps {
    /// Neither.
    pub const NOTHING: Keeps = Keeps { inputs: false, output: false };
    /// The inputs.
    pub const INPUTS: Keeps = Keeps { inputs: true, output: false };
    /// The output.
    pub const OUTPUT: Keeps = Keeps { inputs: false, output: true };
}

/// The size of a tensor that forward saves for backward, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Per image.
    pub per_image: usize,
    /// Per batch, besides.
    pub fixed: usize,
}

/// Where an op can work in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InPlace {
    /// `y` over input 0.
    pub forward: bool,
    /// The gradient of input 0 over `dy`.
    pub backward: bool,
}

impl InPlace {
    /// Nowhere.
    pub const NEVER: InPlace = InPlace { forward: false, backward: false };
    /// In both passes.
    pub const BOTH: InPlace = InPlace { forward: true, backward: true };
}

/// What a forward pass reads and writes.
pub struct Forward<'a, E> {
    /// A training pass: updates state, drops out.
    pub training: bool,
    /// The output alone is made once more ([`Op::recomputes`]), to the bit, from what the pass before it saved: `saved` and
    /// `states` stay as they are.
    pub again: bool,
    /// Names the randomness of this node in this step.
    pub key: Key,
    /// Inputs. Where `in_place`, input 0 is empty and `y` holds its values.
    pub x: ArrayVec<View<'a, E>, MAX_INPUTS>,
    /// The output.
    pub y: ViewMut<'a, E>,
    /// `y` holds input 0 on entry.
    pub in_place: bool,
    /// Parameters, in the order of [`Op::params`].
    pub params: ArrayVec<&'a [E], MAX_PARAMS>,
    /// State, in the order of [`Op::states`].
    pub states: ArrayVec<&'a mut [E], MAX_PARAMS>,
    /// Tensors for backward, in the order of [`Op::saved`]; empty where no backward pass follows.
    pub saved: ArrayVec<&'a mut [E], MAX_PARAMS>,
    /// What [`Kernel::prepare`] wrote.
    pub prepared: &'a [E],
    /// Working memory of [`Kernel::scratch`] elements.
    pub scratch: &'a mut [E],
}

/// What a backward pass reads and writes.
pub struct Backward<'a, E> {
    /// Whether the forward pass was one of training. Else its statistics were constants, and nothing dropped out.
    pub training: bool,
    /// The key that the forward pass had.
    pub key: Key,
    /// Inputs, empty unless [`Op::keeps`] asks for them.
    pub x: ArrayVec<View<'a, E>, MAX_INPUTS>,
    /// The output, empty unless [`Op::keeps`] asks for it.
    pub y: View<'a, E>,
    /// The gradient of the output; empty where `dx[0]` is [`Grad::InPlace`]. Nobody reads it afterwards: a kernel may
    /// use it as working memory.
    pub dy: ViewMut<'a, E>,
    /// Gradients of the inputs.
    pub dx: ArrayVec<Grad<'a, E>, MAX_INPUTS>,
    /// Parameters.
    pub params: ArrayVec<&'a [E], MAX_PARAMS>,
    /// Gradients of the parameters.
    pub dparams: ArrayVec<ParamGrad<'a, E>, MAX_PARAMS>,
    /// What forward saved.
    pub saved: ArrayVec<&'a [E], MAX_PARAMS>,
    /// Working memory of [`Kernel::scratch`] elements.
    pub scratch: &'a mut [E],
}

/// Where the gradient of one input goes.
#[derive(Debug)]
pub enum Grad<'a, E> {
    /// Nobody needs it.
    Skip,
    /// Overwrite: the memory holds anything, NaN included.
    Write(ViewMut<'a, E>),
    /// Add to what another use of the input left.
    Add(ViewMut<'a, E>),
    /// The memory holds `dy`; turn it into the gradient.
    InPlace(ViewMut<'a, E>),
}

impl<'a, E: Real> Grad<'a, E> {
    /// The memory, and whether to add to it; `None` where nobody needs the gradient. For ops that never work in place.
    pub fn target(&mut self) -> Option<(&mut ViewMut<'a, E>, bool)> {
        match self {
            Grad::Skip => None,
            Grad::Write(dx) => Some((dx, false)),
            Grad::Add(dx) => Some((dx, true)),
            Grad::InPlace(_) => unreachable!("the op says that it never works in place"),
        }
    }

    /// The memory, ready for contributions to be added one by one: zeroed first where it is to be written. `None` and
    /// in place as in [`Grad::target`].
    pub fn sum(&mut self) -> Option<&mut ViewMut<'a, E>> {
        let (dx, add) = self.target()?;
        if !add {
            dx.fill(E::zero());
        }
        Some(dx)
    }
}

/// Where the gradient of one parameter goes.
#[derive(Debug)]
pub struct ParamGrad<'a, E> {
    /// The gradient, in the parameter's order.
    pub values: &'a mut [E],
    /// Add to it (another use of a shared weight, an accumulated micro-batch) instead of overwriting it.
    pub add: bool,
    /// Somebody reads it. Where nobody does, since the parameter is frozen or a layer is explained, a kernel may leave it, to save work.
    pub needed: bool,
}

impl<E: Copy + std::ops::AddAssign> ParamGrad<'_, E> {
    /// Writes or adds one value.
    pub fn put(&mut self, i: usize, value: E) {
        if self.add {
            self.values[i] += value;
        } else {
            self.values[i] = value;
        }
    }
}
