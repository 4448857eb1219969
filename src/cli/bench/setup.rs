//! What is measured, and how its time is taken.

use std::time::Instant;

use ndarray::{Array2, Array4, ArrayView2, ArrayView4, s};

use super::{Args, Measured};
use crate::Result;
use crate::backend::{Backend, Cpu, Real, Reference, simd_level};
use crate::engine::Engine;
use crate::graph::Graph;
use crate::infer::Model;
use crate::io::model_file::{self, Extra, ModelInfo, Preprocessing};
use crate::optim::{Optimizer, ParamTable, Rates, Update};
use crate::params::Params;
use crate::plan::{Profile, require_memory};
use crate::rng::Key;
use crate::train;

/// A rate that leaves the weights where they are: the work is the same, and random images cannot drive them to infinity.
pub const TINY_RATE: f64 = 1e-9;
/// Calls of a measurement, unless they take several times as long as it should.
const CALLS: usize = 5;
const PATIENCE: f64 = 4.0;

/// Runs a model forward on a batch, as prediction does.
type Predict<E> = Box<dyn FnMut(ArrayView4<'_, E>, ArrayView2<'_, E>) -> Result<()>>;

/// A backend with the way in which a user of it would predict.
pub trait Contestant: Backend {
    /// For batches of up to `max_batch` images.
    fn predictor(setup: &Setup<Self>, max_batch: usize) -> Result<Predict<Self::Elem>>;
}

impl Contestant for Cpu {
    fn predictor(setup: &Setup<Self>, max_batch: usize) -> Result<Predict<f32>> {
        session(setup, max_batch)
    }
}

impl Contestant for Reference {
    fn predictor(setup: &Setup<Self>, max_batch: usize) -> Result<Predict<f64>> {
        evaluator(setup, max_batch)
    }
}

#[cfg(feature = "cuda")]
impl Contestant for crate::backend::Cuda {
    fn predictor(setup: &Setup<Self>, max_batch: usize) -> Result<Predict<f32>> {
        session(setup, max_batch)
    }
}

#[cfg(feature = "cuda")]
impl Contestant for crate::backend::CudaTf32 {
    fn predictor(setup: &Setup<Self>, max_batch: usize) -> Result<Predict<f32>> {
        evaluator(setup, max_batch)
    }
}

/// Where no session computes like that, nothing is faster than evaluation.
fn evaluator<B: Backend>(setup: &Setup<B>, max_batch: usize) -> Result<Predict<B::Elem>> {
    let mut engine = Engine::<B>::new(&setup.graph, max_batch, 0)?;
    copy(setup.engine.params(), engine.params_mut());
    Ok(Box::new(move |images, targets| engine.evaluate(images, targets).map(drop)))
}

fn session<B: Contestant<Elem = f32>>(setup: &Setup<B>, max_batch: usize) -> Result<Predict<f32>> {
    let model = Model::from_parts(&setup.graph, setup.engine.params(), setup.info())?;
    let mut session = model.session_on(B::predicts_on()?, max_batch)?;
    Ok(Box::new(move |images, _| session.scores(images).map(drop)))
}

fn copy<E: Real>(from: &Params<E>, to: &mut Params<E>) {
    to.values_mut().copy_from_slice(from.values());
    to.states_mut().copy_from_slice(from.states());
}

/// A recipe's model and optimizer, and a batch of noise: the same for every backend, numbers that f32 has.
pub struct Setup<B: Backend> {
    pub engine: Engine<B>,
    graph: Graph,
    optimizer: Box<dyn Optimizer<B::Elem>>,
    pub images: Array4<B::Elem>,
    pub targets: Array2<B::Elem>,
    /// Bytes of the engine and of what the optimizer keeps.
    peak_bytes: usize,
    /// Anonymous memory of the process before all this.
    anonymous_before: Option<u64>,
}

impl<B: Contestant> Setup<B> {
    pub fn new(args: &Args) -> Result<Self> {
        let anonymous_before = anonymous_bytes();
        let recipe = args.recipe()?;
        let batch = args.batch.unwrap_or(recipe.data.batch as usize);
        let size = args.size.unwrap_or(recipe.data.size as usize);
        let mut graph = recipe.model.build(10, size)?;
        graph.freeze(|name| recipe.optimizer.freezes(name, 0));
        let classes = graph.shape(graph.output()).c;
        // What the optimizer keeps and random inputs beside what the engine takes.
        let table = ParamTable::of_graph(&graph, &recipe.optimizer.rules())?;
        let kept = recipe.optimizer.bytes::<B::Elem>(&table, Params::<B::Elem>::lens(&graph).1);
        let inputs = size.saturating_mul(size).saturating_mul(3).saturating_add(classes).saturating_mul(batch);
        let inputs = inputs.saturating_mul(size_of::<B::Elem>());
        require_memory(Engine::<B>::bytes_for(&graph, batch)?.saturating_add(kept).saturating_add(inputs))?;
        let mut engine = Engine::<B>::new(&graph, batch, 0)?;
        if let Some(file) = &args.from {
            model_file::load_weights(file)?.fill(&graph, engine.params_mut(), false)?;
        }
        let params = engine.params_mut();
        params.values_mut().iter_mut().for_each(|value| *value = narrow(value.wide()));
        params.states_mut().iter_mut().for_each(|value| *value = narrow(value.wide()));
        let mut noise = Key::new(1).stream();
        let setup = Setup {
            optimizer: train::optimizer(&recipe.optimizer, engine.params())?,
            peak_bytes: engine.bytes() + kept,
            engine,
            graph,
            images: Array4::from_shape_simple_fn((batch, size, size, 3), || narrow(noise.normal())),
            targets: Array2::from_shape_fn((batch, classes), |(i, j)| B::Elem::of(f64::from(i % classes == j))),
            anonymous_before,
        };
        if let Some(path) = &args.export {
            setup.export(path)?;
        }
        Ok(setup)
    }

    /// Classes are their numbers; the images need no preprocessing.
    fn info(&self) -> ModelInfo {
        let (_, h, w, _) = self.images.dim();
        ModelInfo::new(
            (0..self.targets.dim().1).map(|class| class.to_string()),
            Preprocessing::new((h, w), [0.0; 3], [1.0; 3]),
        )
    }

    /// A model file with `extra/images` `[n, h, w, c]` and `extra/targets` `[n, classes]`, flat as all extras are.
    fn export(&self, path: &std::path::Path) -> Result<()> {
        let mut extra = Extra::default();
        let flat = |values| Option::expect(values, "made in standard layout");
        extra.values.insert("images".into(), flat(self.images.as_slice()));
        extra.values.insert("targets".into(), flat(self.targets.as_slice()));
        model_file::save(path, &self.graph, self.engine.params(), &self.info(), &extra)
    }

    /// As many steps as fill the seconds, three at least.
    pub fn profile(mut self, seconds: f64) -> Result<Profile> {
        let (images, targets) = (self.images.view(), self.targets.view());
        let once = self.engine.profile(images, targets, 1)?.seconds();
        self.engine.profile(images, targets, ((seconds / once.max(1e-9)) as usize).clamp(3, 10_000))
    }

    /// A training step of the recipe's optimizer; the loss before it.
    fn step(&mut self, lr: f64) -> Result<f64> {
        let outcome = self.engine.train_step(self.images.view(), self.targets.view())?;
        let (optimizer, rates) = (&mut *self.optimizer, Rates::of(lr));
        self.engine.update(Update { optimizer, rates, clip_norm: None, ema: None, last: false })?;
        Ok(outcome.loss)
    }

    pub fn measure(mut self, args: &Args) -> Result<Measured> {
        self.engine.keep_on_device(true);
        let first_loss = self.step(args.lr)?;
        (1..args.warm_up).try_for_each(|_| self.step(args.lr).map(drop))?;
        // That of exactly these steps: how many timed ones follow depends on the machine, and small weights do move by them.
        let loss = self.step(TINY_RATE)?;
        let train = median_seconds(args.seconds, || self.step(TINY_RATE).map(drop))?;
        let anonymous = self.anonymous_before.zip(anonymous_bytes()).map(|(before, now)| now.saturating_sub(before));
        self.engine.fetch()?;
        let infer = self.infer_seconds(args.seconds, self.images.dim().0)?;
        let latency = self.infer_seconds(args.seconds, 1)?;
        let (batch, size, ..) = self.images.dim();
        Ok(Measured {
            recipe: args.recipe.clone(),
            backend: B::NAME,
            precision: B::PRECISION,
            batch,
            size,
            threads: rayon::current_num_threads(),
            simd: simd_level().name(),
            train_images_per_second: batch as f64 / train,
            infer_images_per_second: batch as f64 / infer,
            latency_ms: 1e3 * latency,
            peak_bytes: self.peak_bytes,
            train_anonymous_bytes: anonymous,
            warm_up: args.warm_up,
            lr: args.lr,
            first_loss,
            loss,
        })
    }

    /// Seconds of prediction on the first images.
    fn infer_seconds(&self, seconds: f64, batch: usize) -> Result<f64> {
        let mut predict = B::predictor(self, batch)?;
        let (images, targets) = (self.images.slice(s![..batch, .., .., ..]), self.targets.slice(s![..batch, ..]));
        predict(images, targets)?;
        median_seconds(seconds, || predict(images, targets))
    }
}

/// The nearest number that f32 has.
fn narrow<E: Real>(value: f64) -> E {
    E::of(f64::from(value as f32))
}

/// The median seconds of a call, over calls for `seconds` after one that warms up.
fn median_seconds(seconds: f64, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    let started = Instant::now();
    let mut times = Vec::new();
    loop {
        let before = Instant::now();
        call()?;
        times.push(before.elapsed().as_secs_f64());
        let passed = started.elapsed().as_secs_f64();
        if passed >= seconds && (times.len() >= CALLS || passed >= PATIENCE * seconds) {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Anonymous resident memory of this process, where the system tells.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
