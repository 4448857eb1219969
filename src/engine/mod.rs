//! A compiled model with its parameters: what a training loop drives.

mod inputs;
mod outcome;

use std::collections::VecDeque;
use std::ops::ControlFlow;

use ndarray::{ArrayView2, ArrayView4};

use self::inputs::{check, check_images, of_pixels};
pub use self::outcome::Outcome;
use self::outcome::{outcome, received, wanted};
use crate::backend::{Backend, Real};
use crate::graph::{Graph, NodeId};
use crate::params::Params;
use crate::plan::{Input, Look, Machine, Mode, Pixels, Plan, Profile, require_memory};
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// A model on one backend: parameters, plans for training and evaluation, one memory for both.
///
/// ```
/// use handgrad::{backend::Cpu, engine::Engine, models};
/// use ndarray::{Array2, Array4};
/// let graph = models::build("simplenet", &Default::default())?;
/// let mut engine = Engine::<Cpu>::new(&graph, 8, 42)?;
/// let images = Array4::<f32>::zeros((8, 32, 32, 3));
/// let mut targets = Array2::<f32>::zeros((8, 10));
/// targets.column_mut(3).fill(1.0);
/// let before = engine.train_step(images.view(), targets.view())?.loss;
/// let (values, grads, _) = engine.params_mut().split_mut();
/// values.iter_mut().zip(grads).for_each(|(value, grad)| *value -= 0.1 * *grad);
/// assert!(engine.evaluate(images.view(), targets.view())?.loss < before);
/// # Ok::<(), handgrad::Error>(())
/// ```
pub struct Engine<B: Backend> {
    graph: Graph,
    train: Plan,
    eval: Plan,
    machine: B::Machine,
    params: Params<B::Elem>,
    key: Key,
    step: u64,
    /// See [`Engine::keep_on_device`].
    keep: bool,
    /// Steps whose losses are on their way.
    queued: VecDeque<Queued>,
    /// What queued steps gave, until somebody takes it.
    outcomes: VecDeque<Outcome>,
    /// Memory of queued steps that are over.
    spare: Vec<Vec<u32>>,
}

/// A training step whose loss is on its way.
struct Queued {
    step: u64,
    /// The class of each image's highest target.
    wanted: Vec<u32>,
}

/// How a step's gradients join those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulate {
    /// The images of all micro-batches of the optimizer step: each image's gradient is divided by it.
    pub total: usize,
    /// Add to the gradients of earlier micro-batches instead of overwriting them.
    pub add: bool,
}

impl<B: Backend> Engine<B> {
    /// Compiles `graph` for batches of up to `max_batch` images and draws first weights from `seed`.
    ///
    /// # Errors
    /// Where the graph's output is no vector of scores, or memory is too small.
    pub fn new(graph: &Graph, max_batch: usize, seed: u64) -> Result<Self> {
        B::check()?;
        let train = Plan::compile::<B>(graph, max_batch, Mode::Train)?;
        let eval = Plan::compile::<B>(graph, max_batch, Mode::Eval)?;
        let arena_len = train.arena_len().max(eval.arena_len());
        require_memory(Self::bytes_of(graph, arena_len))?;
        let key = Key::new(seed);
        let params = Params::new(graph, key.with_name("init"))?;
        Ok(Engine {
            graph: graph.clone(),
            machine: B::Machine::new(arena_len, &params)?,
            params,
            train,
            eval,
            key: key.with_name("step"),
            step: 0,
            keep: false,
            queued: VecDeque::new(),
            outcomes: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// Keeps the parameters that `which` names from being trained from now on, and these alone, as [`Graph::freeze`] does
    /// before an engine is made. Returns whether anything changed: an optimizer made before then has another table.
    ///
    /// ```
    /// use handgrad::{backend::Cpu, engine::Engine, models};
    /// let mut engine = Engine::<Cpu>::new(&models::build("convnet2", &Default::default())?, 8, 42)?;
    /// assert!(engine.freeze(|name| name.starts_with("layers.0."))?);
    /// assert!(engine.params().table()[0].frozen && !engine.params().table()[2].frozen);
    /// assert!(!engine.freeze(|name| name.starts_with("layers.0."))?);
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where memory is too small for a step that trains more than before; nothing is changed then.
    pub fn freeze(&mut self, which: impl Fn(&str) -> bool) -> Result<bool> {
        if self.params.table().iter().all(|info| info.frozen == which(&info.name)) {
            return Ok(false);
        }
        let mut graph = self.graph.clone();
        graph.freeze(&which);
        let train = Plan::compile::<B>(&graph, self.train.max_batch(), Mode::Train)?;
        self.receive(0)?;
        if train.arena_len() > self.machine.plan_len() {
            self.machine = B::Machine::new(train.arena_len(), &self.params)?;
            self.machine.keep(self.keep);
        }
        self.params.freeze(which);
        (self.graph, self.train) = (graph, train);
        Ok(true)
    }

    /// The bytes that [`Engine::new`] would allocate.
    ///
    /// # Errors
    /// Where the graph's output is no vector of scores, or the batch is out of range.
    pub fn bytes_for(graph: &Graph, max_batch: usize) -> Result<usize> {
        let train = Plan::compile::<B>(graph, max_batch, Mode::Train)?;
        let eval = Plan::compile::<B>(graph, max_batch, Mode::Eval)?;
        Ok(Self::bytes_of(graph, train.arena_len().max(eval.arena_len())))
    }

    fn bytes_of(graph: &Graph, arena_len: usize) -> usize {
        let (values, states) = Params::<B::Elem>::lens(graph);
        let elements = values.saturating_mul(2).saturating_add(states).saturating_add(arena_len);
        elements.saturating_mul(size_of::<B::Elem>())
    }

    /// Forward, loss and backward on up to `max_batch` images `[n, h, w, c]` with dense targets `[n, classes]`; the
    /// gradients of the mean loss are in [`Engine::params`] afterwards.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where images or targets do not fit, kind [`ErrorKind::NonFinite`] where the loss is
    /// no finite number: the error names the layer where that began.
    pub fn train_step(&mut self, images: ArrayView4<'_, B::Elem>, targets: ArrayView2<'_, B::Elem>) -> Result<Outcome> {
        let total = images.dim().0;
        self.train_micro_step(images, targets, Accumulate { total, add: false })
    }

    /// [`Engine::train_step`] on one of several micro-batches whose gradients add up.
    ///
    /// # Errors
    /// As [`Engine::train_step`].
    pub fn train_micro_step(
        &mut self,
        images: ArrayView4<'_, B::Elem>,
        targets: ArrayView2<'_, B::Elem>,
        accumulate: Accumulate,
    ) -> Result<Outcome> {
        let input = check::<B>(&self.train, images, targets, self.key.with(self.step))?;
        self.receive(0)?;
        self.machine.forward(&self.train, input, &mut self.params, None)?;
        let outcome = outcome::<B>(&self.train, targets.dim().0, wanted(targets), &mut self.machine)?;
        if !outcome.loss.is_finite() {
            return Err(self.find_non_finite(images, targets));
        }
        let scale = 1.0 / accumulate.total.max(1) as f64;
        self.machine.backward(&self.train, input, &mut self.params, scale, accumulate.add)?;
        self.step += 1;
        Ok(outcome)
    }

    /// [`Engine::train_micro_step`] that does not wait for a device: [`Engine::outcome`] gives what it came to, in the order of
    /// the steps. On the host it is over when this returns. On a device the next one may be queued before; with parameters
    /// that stay there ([`Engine::keep_on_device`]) the device always has something to do.
    ///
    /// ```
    /// use handgrad::{backend::Cpu, engine::{Accumulate, Engine}, models};
    /// use ndarray::{Array2, Array4};
    /// let mut engine = Engine::<Cpu>::new(&models::build("simplenet", &Default::default())?, 8, 42)?;
    /// let (images, targets) = (Array4::zeros((8, 32, 32, 3)), Array2::from_elem((8, 10), 0.1));
    /// let mut losses = Vec::new();
    /// for _ in 0..3 {
    ///     engine.queue_micro_step(images.view(), targets.view(), Accumulate { total: 8, add: false })?;
    ///     // Here the parameters are updated.
    ///     losses.extend(engine.outcome(false)?.map(|outcome| outcome.loss));
    /// }
    /// while let Some(outcome) = engine.outcome(true)? {
    ///     losses.push(outcome.loss);
    /// }
    /// assert_eq!(losses.len(), 3);
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Engine::train_step`]. Where the loss of a step comes late, the error does so, too: it names the step, and no
    /// layer.
    pub fn queue_micro_step(
        &mut self,
        images: ArrayView4<'_, B::Elem>,
        targets: ArrayView2<'_, B::Elem>,
        accumulate: Accumulate,
    ) -> Result<()> {
        if <B::Machine as Machine<B>>::LATE == 0 {
            let outcome = self.train_micro_step(images, targets, accumulate)?;
            self.outcomes.push_back(outcome);
            return Ok(());
        }
        let input = check::<B>(&self.train, images, targets, self.key.with(self.step))?;
        self.queue(input, targets, accumulate)
    }

    /// [`Engine::queue_micro_step`] on images as bytes, of which the device makes the numbers that a
    /// [`Loader`](crate::data::Loader) would, to the bit: only where the backend's machine says so ([`Machine::TAKES_PIXELS`]).
    ///
    /// # Errors
    /// As [`Engine::queue_micro_step`], kind [`ErrorKind::Unsupported`] with a backend that takes none.
    pub fn queue_pixels(
        &mut self,
        pixels: Pixels<'_>,
        targets: ArrayView2<'_, B::Elem>,
        accumulate: Accumulate,
    ) -> Result<()> {
        let zero = B::Elem::of(0.0);
        let input = of_pixels::<B>(&self.train, pixels, targets, &zero, self.key.with(self.step))?;
        self.queue(input, targets, accumulate)
    }

    fn queue(
        &mut self,
        input: Input<'_, B::Elem>,
        targets: ArrayView2<'_, B::Elem>,
        accumulate: Accumulate,
    ) -> Result<()> {
        self.receive(<B::Machine as Machine<B>>::LATE)?;
        self.machine.forward(&self.train, input, &mut self.params, None)?;
        self.machine.send(&self.train, targets.dim().0)?;
        let mut classes = self.spare.pop().unwrap_or_default();
        classes.extend(wanted(targets).map(|class| class as u32));
        self.queued.push_back(Queued { step: self.step, wanted: classes });
        let scale = 1.0 / accumulate.total.max(1) as f64;
        self.machine.backward(&self.train, input, &mut self.params, scale, accumulate.add)?;
        self.step += 1;
        Ok(())
    }

    /// What the first queued step came to that was not asked for before. `None` where there is none, and, unless this is to
    /// `wait` for it, where it is the last one and a device may still be at it.
    ///
    /// # Errors
    /// Kind [`ErrorKind::NonFinite`] where the loss of a step is no finite number, [`ErrorKind::Device`] where a device fails.
    pub fn outcome(&mut self, wait: bool) -> Result<Option<Outcome>> {
        if self.outcomes.is_empty() {
            let late = if wait { 0 } else { <B::Machine as Machine<B>>::LATE };
            self.receive(late)?;
        }
        Ok(self.outcomes.pop_front())
    }

    /// Waits for the losses of queued steps, until so many are left.
    fn receive(&mut self, left: usize) -> Result<()> {
        while self.queued.len() > left {
            let Some(Queued { step, mut wanted }) = self.queued.pop_front() else { break };
            let classes = wanted.iter().map(|&class| class as usize);
            let outcome = received::<B>(&self.train, wanted.len(), classes, &mut self.machine)?;
            wanted.clear();
            self.spare.push(wanted);
            if !outcome.loss.is_finite() {
                let e = non_finite(step, "the loss");
                return Err(e.hint(
                    "take a lower learning rate, clip gradients, or check the data; --backend cpu names the layer",
                ));
            }
            self.outcomes.push_back(outcome);
        }
        Ok(())
    }

    /// Updates the parameters from their gradients: on the device, where that has them and the optimizer can.
    ///
    /// ```
    /// use handgrad::{backend::Cpu, engine::Engine, models};
    /// use handgrad::optim::{Decay, ParamTable, Rates, Sgd, SgdConfig, Update};
    /// use ndarray::{Array2, Array4};
    /// let mut engine = Engine::<Cpu>::new(&models::build("simplenet", &Default::default())?, 8, 42)?;
    /// let config = SgdConfig { momentum: 0.9, nesterov: true, decay: Decay::Coupled(1e-4) };
    /// let mut sgd = Sgd::new(config, ParamTable::of(engine.params(), &[])?)?;
    /// let (images, targets) = (Array4::zeros((8, 32, 32, 3)), Array2::from_elem((8, 10), 0.1));
    /// engine.train_step(images.view(), targets.view())?;
    /// engine.update(Update { optimizer: &mut sgd, rates: Rates::of(0.1), clip_norm: Some(1.0), ema: None, last: false })?;
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the parts of an [`Update`](crate::optim::Update), kind [`ErrorKind::Device`] where a device fails.
    #[cfg(feature = "train")]
    pub fn update(&mut self, update: crate::optim::Update<'_, B::Elem>) -> Result<()> {
        self.machine.update(&mut self.params, update)
    }

    /// Whether parameters, gradients and states may stay where the backend has them, until [`Engine::fetch`]: a training
    /// loop that reads them once an epoch has nothing copied in between. [`Engine::params`] are up to date, and may be
    /// changed, only behind a fetch then. Without meaning where the backend is the host.
    pub fn keep_on_device(&mut self, keep: bool) {
        self.keep = keep;
        self.machine.keep(keep);
    }

    /// Brings parameters, gradients and states to the host ([`Engine::keep_on_device`]).
    ///
    /// # Errors
    /// Kind [`ErrorKind::Device`] where a device fails.
    pub fn fetch(&mut self) -> Result<()> {
        self.machine.fetch(&mut self.params)
    }

    /// Forward and loss with evaluation statistics.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where images or targets do not fit.
    pub fn evaluate(&mut self, images: ArrayView4<'_, B::Elem>, targets: ArrayView2<'_, B::Elem>) -> Result<Outcome> {
        let input = check::<B>(&self.eval, images, targets, self.key)?;
        self.evaluate_input(input, targets)
    }

    /// [`Engine::evaluate`] on images as bytes, where [`Engine::queue_pixels`] takes them.
    ///
    /// # Errors
    /// As [`Engine::evaluate`], kind [`ErrorKind::Unsupported`] with a backend that takes none.
    pub fn evaluate_pixels(&mut self, pixels: Pixels<'_>, targets: ArrayView2<'_, B::Elem>) -> Result<Outcome> {
        let zero = B::Elem::of(0.0);
        let input = of_pixels::<B>(&self.eval, pixels, targets, &zero, self.key)?;
        self.evaluate_input(input, targets)
    }

    fn evaluate_input(&mut self, input: Input<'_, B::Elem>, targets: ArrayView2<'_, B::Elem>) -> Result<Outcome> {
        self.receive(0)?;
        self.machine.forward(&self.eval, input, &mut self.params, None)?;
        outcome::<B>(&self.eval, targets.dim().0, wanted(targets), &mut self.machine)
    }

    /// Forward with evaluation statistics as far as one node, whose output `[n, h, w, c]` is handed to `look`: of a node
    /// from which no way leads to the scores there is none.
    ///
    /// ```
    /// use handgrad::{backend::Cpu, engine::Engine, models};
    /// use ndarray::Array4;
    /// let graph = models::build("convnet2", &Default::default())?;
    /// let mut engine = Engine::<Cpu>::new(&graph, 2, 42)?;
    /// let mut seen = 0;
    /// engine.look(Array4::zeros((2, 32, 32, 3)).view(), graph.find("out")?, |scores| seen = scores.len())?;
    /// assert_eq!(seen, 2 * 10);
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where the images do not fit, [`ErrorKind::Usage`] for a node that is no layer of the model.
    pub fn look(
        &mut self,
        images: ArrayView4<'_, B::Elem>,
        node: NodeId,
        mut look: impl FnMut(&[B::Elem]),
    ) -> Result<()> {
        check_images(&self.eval, images)?;
        // The last two are targets and loss.
        let nodes = self.eval.graph().nodes();
        if node.0 + 2 >= nodes.len() || nodes[node.0].op().is_none() {
            let e = Error::new(ErrorKind::Usage, "look", format!("node {}", node.0));
            return Err(e.expected("a node of the model, as Graph::find gives it"));
        }
        let targets = ArrayView2::from_shape((0, 0), &[]).expect("an empty view");
        let input = Input { images, pixels: None, targets: Some(targets), key: self.key };
        let look: Look<'_, B::Elem> = &mut |at, output| {
            if at == node {
                look(output);
            }
            if at >= node { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.machine.forward(&self.eval, input, &mut self.params, Some(look))
    }

    /// Times each step of `rounds` training steps on one batch, after one that warms up. Gradients and statistics
    /// change as in training, the step's number does not.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where images or targets do not fit.
    pub fn profile(
        &mut self,
        images: ArrayView4<'_, B::Elem>,
        targets: ArrayView2<'_, B::Elem>,
        rounds: usize,
    ) -> Result<Profile> {
        let n = images.dim().0;
        let mut seconds = vec![0.0; self.train.steps()];
        for round in 0..=rounds {
            if round == 1 {
                seconds.fill(0.0);
            }
            let input = check::<B>(&self.train, images, targets, self.key.with(self.step))?;
            self.machine.time_steps(&self.train, input, &mut self.params, 1.0 / n as f64, &mut seconds)?;
        }
        Ok(Profile::new(&self.train, &seconds, rounds, n))
    }

    /// The class scores `[n, classes]` of the last [`Engine::evaluate`] on `n` images.
    pub fn eval_scores(&self, n: usize) -> ArrayView2<'_, B::Elem> {
        self.machine.logits(&self.eval, n.min(self.eval.max_batch()))
    }

    /// The class scores `[n, classes]` of the last training step on `n` images.
    pub fn train_scores(&self, n: usize) -> ArrayView2<'_, B::Elem> {
        self.machine.logits(&self.train, n.min(self.train.max_batch()))
    }

    /// Parameters, gradients, state.
    pub fn params(&self) -> &Params<B::Elem> {
        &self.params
    }

    /// Parameters, gradients, state, to change.
    pub fn params_mut(&mut self) -> &mut Params<B::Elem> {
        self.machine.params_changed();
        &mut self.params
    }

    /// The plan of a training step.
    pub fn plan(&self) -> &Plan {
        &self.train
    }

    /// Training steps so far: what names a step's randomness, and part of a checkpoint.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Continues at a step, as a resumed run does.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// Bytes of parameters, gradients, state and arena: all that the engine allocates.
    pub fn bytes(&self) -> usize {
        let elements = 2 * self.params.values().len() + self.params.states().len() + self.machine.plan_len();
        elements * size_of::<B::Elem>()
    }

    /// Runs forward once more, looking for the first layer whose output is not finite.
    fn find_non_finite(&mut self, images: ArrayView4<'_, B::Elem>, targets: ArrayView2<'_, B::Elem>) -> Error {
        let step = self.step;
        let report = |what: &str, name: &str| {
            let e = non_finite(step, &format!("{what} {name}"));
            e.hint("take a lower learning rate, clip gradients, or check the data")
        };
        let broken = |values: &[B::Elem]| values.iter().any(|v| !v.wide().is_finite());
        if images.iter().any(|v| !v.wide().is_finite()) {
            return report("the input of layer", "images");
        }
        let info = self.params.table().iter().find(|info| broken(&self.params.values()[info.range()]));
        if let Some(info) = info {
            return report("parameter", &info.name);
        }
        let mut first = None;
        if let Ok(input) = check::<B>(&self.train, images, targets, self.key.with(step)) {
            let look: Look<'_, B::Elem> = &mut |node, values| {
                if broken(values) {
                    first = Some(node);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            };
            if let Err(e) = self.machine.forward(&self.train, input, &mut self.params, Some(look)) {
                return e;
            }
        }
        report("the output of layer", first.map_or("loss", |node| &self.train.graph().nodes()[node.0].name))
    }
}

fn non_finite(step: u64, what: &str) -> Error {
    let e = Error::new(ErrorKind::NonFinite, format!("step {step}"), format!("{what} is not finite"));
    e.expected("finite numbers")
}
