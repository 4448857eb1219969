//! The training loop of `handgrad train`: made of the same pieces that a program of your own would use.

mod board;
mod checkpoint;
mod datasets;
mod environment;
mod epoch;
pub mod estimate;
mod evaluate;
mod folder;
pub mod lr_find;
pub mod lsuv;
mod walk;
pub mod whiten;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::backend::{Backend, Real};
use crate::data::{self, Dataset, Loader, LoaderConfig};
use crate::engine::Engine;
use crate::graph::Graph;
use crate::infer::{self, EvalConfig, Model, Views};
use crate::io::metrics::{self, EpochMetrics};
use crate::io::{model_file, plot};
use crate::optim::{Ema, Optimizer, ParamTable};
use crate::plan::{Machine, require_memory};
use crate::recipe::{self, Recipe, Tta};
use crate::rng::Key;
use crate::{Error, ErrorKind, Params, Result};

use board::Board;
use checkpoint::Moments;
pub use checkpoint::Progress;
pub use datasets::{built_in, cache_dir, locate};
pub use environment::Environment;
pub use evaluate::{Feed, Totals, evaluate};
pub use folder::RunFolder;
pub(crate) use folder::quoted;
use lsuv::{Scaled, first_images, lsuv};

/// What a run is told besides its recipe.
#[derive(Clone, Debug)]
pub struct Job {
    /// The recipe.
    pub recipe: Recipe,
    /// The dataset.
    pub dataset: Arc<Dataset>,
    /// The run's folder.
    pub folder: RunFolder,
    /// Go on from the folder's checkpoint.
    pub resume: bool,
    /// Go on although the checkpoint was made at another SIMD level, which gives other bits.
    pub other_simd: bool,
    /// The weights and statistics that the run begins with, instead of random ones.
    pub from: Option<FirstWeights>,
}

/// Weights to begin with.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FirstWeights {
    /// A model file, or a state dict with the names of PyTorch's models.
    pub file: PathBuf,
    /// The last linear layer begins with random weights all the same.
    pub new_head: bool,
}

impl Job {
    /// Writes the exact recipe, and what else the run depends on, into its folder.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Io`] where the folder cannot be written.
    pub fn describe(&self, backend: &str) -> Result<()> {
        Environment::of(self, backend).write(&self.folder.environment())?;
        // Last: a folder with a recipe holds a run.
        write_text(&self.folder.recipe(), &self.recipe.to_toml()?)
    }
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    crate::io::atomic::write_atomically(path, |file| {
        std::io::Write::write_all(file, text.as_bytes()).map_err(|e| Error::io(path, &e))
    })
}

/// What a run reports while it works.
#[derive(Debug)]
pub enum Event<'a> {
    /// Everything is set up; nothing has run yet.
    Ready {
        /// Bytes that the engine, the optimizer and the loaders allocate: the peak, since a step allocates nothing.
        peak_bytes: usize,
        /// Trained parameters.
        params: usize,
        /// Training and validation images.
        images: (usize, usize),
        /// Epochs in all.
        epochs: u32,
        /// Epochs that were done before (a resumed run).
        done: u64,
    },
    /// An optimizer step is done.
    Step {
        /// The epoch, from 1.
        epoch: u64,
        /// Batches done and all of the epoch.
        batch: (usize, usize),
        /// Mean loss of the epoch so far.
        loss: f64,
        /// Images per second of the epoch so far.
        images_per_second: f64,
    },
    /// An epoch and its evaluation are done.
    Epoch(&'a EpochMetrics),
    /// Layers were scaled before a phase.
    Scaled(&'a [Scaled]),
    /// A checkpoint was written inside an epoch.
    Checkpoint(&'a Path),
}

/// What a finished run came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Of the last epoch.
    pub last: EpochMetrics,
    /// The highest accuracy of any epoch, and which one.
    pub best_accuracy: f64,
    /// The epoch of the highest accuracy.
    pub best_epoch: u64,
    /// Seconds of training and evaluation, those before a resume included.
    pub seconds: f64,
    /// Accuracy of the last model averaged over augmented passes, where the recipe asks for that.
    pub tta_accuracy: Option<f64>,
}

/// Runs a recipe. `stop` set from outside (a signal) makes it save its state and return an error of kind
/// [`ErrorKind::Interrupted`].
///
/// # Errors
/// What the recipe, the dataset, the folder or the numbers get wrong.
pub fn run<B: Backend>(job: &Job, stop: &AtomicBool, mut report: impl FnMut(Event<'_>)) -> Result<Report> {
    Trainer::<B>::new(job)?.run(stop, &mut report)
}

struct Trainer<'a, B: Backend> {
    job: &'a Job,
    graph: Graph,
    engine: Engine<B>,
    train: Loader,
    valid: Loader,
    feed: Feed<B>,
    /// The averaged weights, where the recipe asks for them: they are what is evaluated and saved as the model.
    ema: Option<Ema<B::Elem>>,
    /// Bytes that the run allocates in all.
    peak_bytes: usize,
    progress: Progress,
    saved_at: Instant,
    /// TensorBoard's files, where the recipe asks for them; not before the run begins.
    board: Option<Board>,
}

/// What a recipe needs to train on a dataset, all of it made and checked.
struct Setup<B: Backend> {
    graph: Graph,
    engine: Engine<B>,
    train: Loader,
    valid: Loader,
    ema: Option<Ema<B::Elem>>,
    peak_bytes: usize,
}

impl<B: Backend> Setup<B> {
    /// `bytes`: whether the loops give the engine bytes, where it takes them and they are all that is left to the loaders.
    fn new(recipe: &Recipe, dataset: &Arc<Dataset>, bytes: bool) -> Result<Self> {
        recipe.train.precision.check::<B>()?;
        let size = recipe.data.size as usize;
        let classes = dataset.classes().len();
        let outputs = recipe.model.outputs(classes);
        if outputs < classes {
            let e = Error::new(ErrorKind::Usage, "model.classes", format!("{outputs} for a dataset of {classes}"));
            return Err(e
                .expected(format!("{classes} or more"))
                .hint("leave it out: the dataset's classes are the default"));
        }
        let mut graph = recipe.model.build(classes, size)?;
        let mut config = train_config(recipe, dataset);
        let bytes = bytes && <B::Machine as Machine<B>>::TAKES_PIXELS;
        config.pixels = bytes && config.keeps_bytes();
        let batch = config.batch;
        let mut valid = LoaderConfig {
            size: (size, size),
            framing: recipe.data.framing,
            normalise: config.normalise,
            outputs,
            ..LoaderConfig::valid(dataset, batch)
        };
        valid.pixels = bytes && valid.keeps_bytes();
        let feed = Feed::<B>::bytes_for(batch, config.size, outputs);
        let loaders = config.bytes(dataset).saturating_add(valid.bytes(dataset)).saturating_add(feed);
        let (values, states) = Params::<B::Elem>::lens(&graph);
        let averages = if recipe.train.ema.is_some() { values.saturating_add(states) } else { 0 };
        let averages = averages.saturating_mul(size_of::<B::Elem>());
        let kept = recipe
            .optimizer
            .bytes::<B::Elem>(&ParamTable::of_graph(&graph, &recipe.optimizer.rules())?, states)
            .saturating_add(averages);
        let mut of_engine = 0;
        for epoch in recipe.optimizer.freezing_epochs() {
            graph.freeze(|name| recipe.optimizer.freezes(name, epoch));
            of_engine = of_engine.max(Engine::<B>::bytes_for(&graph, batch)?);
        }
        graph.freeze(|name| recipe.optimizer.freezes(name, 0));
        let bytes = of_engine.saturating_add(kept).saturating_add(loaders);
        let looked_at = if recipe.phases.iter().any(|phase| phase.lsuv) { lsuv::IMAGES } else { 0 };
        let looked_at =
            looked_at.saturating_mul(graph.shape(graph.images()).len()).saturating_mul(size_of::<B::Elem>());
        let bytes = bytes.saturating_add(looked_at);
        require_memory(bytes)?;
        let engine = Engine::<B>::new(&graph, batch, recipe.train.seed)?;
        let setup = Setup {
            ema: recipe.train.ema.map(|decay| Ema::new(decay, engine.params())).transpose()?,
            engine,
            train: Loader::new(dataset.clone(), config)?,
            valid: Loader::new(dataset.clone(), valid)?,
            peak_bytes: bytes,
            graph,
        };
        if setup.train.steps_per_epoch() == 0 {
            let found = "fewer training images than one batch, and drop_last leaves them out";
            return Err(Error::new(ErrorKind::Usage, "data.batch", found).expected("a smaller batch"));
        }
        let optimizer = optimizer(&recipe.optimizer, setup.engine.params())?;
        if optimizer.table().used_len() == 0 {
            let e = Error::new(ErrorKind::Usage, "optimizer.group", "a rate of 0 for every parameter");
            return Err(e.expected("something to train"));
        }
        Ok(setup)
    }
}

/// How a recipe's training images are read.
pub fn train_config(recipe: &Recipe, dataset: &Dataset) -> LoaderConfig {
    let size = recipe.data.size as usize;
    // No batch has more images than the dataset.
    let images = dataset.split(data::Split::Train).len().max(dataset.split(data::Split::Valid).len());
    let batch = (recipe.data.batch as usize).min(images).max(1);
    LoaderConfig {
        size: (size, size),
        normalise: normalise(&recipe.data.normalise, dataset),
        framing: recipe.data.framing,
        augment: recipe.data.augment,
        drop_last: recipe.data.drop_last,
        outputs: recipe.model.outputs(dataset.classes().len()),
        label_smoothing: recipe.train.label_smoothing as f32,
        key: Key::new(recipe.train.seed).with_name("data"),
        ..LoaderConfig::train(dataset, batch)
    }
}

/// The images of the optimizer step that starts with batch `first` of an epoch; none behind the last.
fn images_in_group(train: &Loader, first: usize, accumulate: usize) -> usize {
    let images = train.images_per_epoch();
    let batch = train.config().batch.min(images);
    images.saturating_sub(first * batch).min(accumulate * batch)
}

/// The optimizer of a recipe for a model's parameters.
///
/// # Errors
/// Kind [`ErrorKind::Usage`] for a group whose pattern matches no parameter.
pub fn optimizer<E: Real>(recipe: &recipe::OptimizerRecipe, params: &Params<E>) -> Result<Box<dyn Optimizer<E>>> {
    recipe.build(ParamTable::of(params, &recipe.rules())?, params.states().len())
}

impl<'a, B: Backend> Trainer<'a, B> {
    /// Everything that a run needs, checked: what is wrong with recipe, dataset or machine is an error here, before
    /// the run's folder holds anything.
    fn new(job: &'a Job) -> Result<Self> {
        let Setup { graph, mut engine, train, valid, mut ema, peak_bytes } =
            Setup::new(&job.recipe, &job.dataset, true)?;
        engine.keep_on_device(true);
        // A checkpoint has all of it, and the file that the run began with may be gone.
        let checkpoint = job.folder.checkpoint();
        let saved = checkpoint.try_exists().map_err(|e| Error::io(&checkpoint, &e))?;
        let begins = !(job.resume && saved);
        if let Some(FirstWeights { file, new_head }) = job.from.as_ref().filter(|_| begins) {
            model_file::load_weights(file)?.fill(&graph, engine.params_mut(), *new_head)?;
            ema = job.recipe.train.ema.map(|decay| Ema::new(decay, engine.params())).transpose()?;
        }
        if let Some(whiten) = job.recipe.train.whiten.filter(|_| begins && job.from.is_none()) {
            whiten::first_layer(&mut engine, &job.dataset, &train_config(&job.recipe, &job.dataset), whiten)?;
            ema = job.recipe.train.ema.map(|decay| Ema::new(decay, engine.params())).transpose()?;
        }
        let (feed, progress, saved_at) = (Feed::default(), Progress::default(), Instant::now());
        Ok(Trainer { job, graph, engine, train, valid, feed, ema, peak_bytes, progress, saved_at, board: None })
    }

    fn run(mut self, stop: &AtomicBool, report: &mut dyn FnMut(Event<'_>)) -> Result<Report> {
        let job = self.job;
        let mut moments = None;
        if job.resume {
            moments = self.resume()?;
        } else {
            job.describe(B::NAME)?;
        }
        let mut history = metrics::truncate_to_epoch(job.folder.metrics(), self.progress.epochs)?;
        if !history.iter().map(|m| m.epoch).eq(1..=self.progress.epochs) {
            let found = format!("{} epochs", history.len());
            let e = Error::new(ErrorKind::Format, job.folder.metrics().display(), found);
            return Err(e.expected(format!("one line for each of the checkpoint's {} epochs", self.progress.epochs)));
        }
        self.board = Board::begin(job, self.step() + 1)?;
        self.announce(&history, report);

        let mut first_epoch = 0;
        for phase in &job.recipe.phases {
            let after = first_epoch + u64::from(phase.epochs());
            if self.progress.epochs >= after {
                first_epoch = after;
                continue;
            }
            if phase.lsuv && !self.progress.in_phase(first_epoch) {
                self.scale_layers(report)?;
            }
            self.freeze()?;
            // Each phase starts a new optimizer on the same weights, as each published `fit` does.
            let mut optimizer = optimizer(&job.recipe.optimizer, self.engine.params())?;
            if let Some((steps, saved)) = moments.take().filter(|_| self.progress.in_phase(first_epoch)) {
                let saved: Vec<(&str, &[B::Elem])> = saved.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
                optimizer.restore(steps, &saved)?;
            }
            while self.progress.epochs < after {
                if self.freeze()? {
                    optimizer = self.with_the_past_of(&*optimizer)?;
                }
                let metrics = self.epoch(phase, first_epoch, &mut *optimizer, stop, report)?;
                history.push(metrics);
                self.finish_epoch(&history, &*optimizer, report)?;
                // An epoch of a single step has no other place to stop at.
                if stop.load(Ordering::Relaxed) && self.progress.epochs < u64::from(job.recipe.epochs()) {
                    return Err(self.interrupted());
                }
            }
            first_epoch = after;
        }
        self.finish(&history)
    }

    /// Freezes what the epoch to come leaves as it is; returns whether that is other than before.
    fn freeze(&mut self) -> Result<bool> {
        let (recipe, epoch) = (&self.job.recipe.optimizer, self.progress.epochs);
        self.engine.freeze(|name| recipe.freezes(name, epoch))
    }

    /// A new optimizer that goes on where `before` is, with the parameters that are trained now.
    fn with_the_past_of(&self, before: &dyn Optimizer<B::Elem>) -> Result<Box<dyn Optimizer<B::Elem>>> {
        let mut optimizer = optimizer(&self.job.recipe.optimizer, self.engine.params())?;
        optimizer.restore(before.steps(), &before.moments())?;
        Ok(optimizer)
    }

    /// Sets everything to where the run stopped; returns the optimizer's state. A run that was stopped before its first
    /// checkpoint starts again.
    fn resume(&mut self) -> Result<Option<Moments<B::Elem>>> {
        let job = self.job;
        let batches = self.train.steps_per_epoch();
        let saved = checkpoint::load(job, batches, self.engine.params_mut(), self.ema.as_mut())?;
        if let Some((progress, moments)) = saved {
            self.engine.set_step(progress.engine_step);
            self.progress = progress;
            return Ok(Some(moments));
        }
        if let Some(began_with) = Environment::read(&job.folder.environment())? {
            environment::check_dataset(job, &began_with.dataset_checksum)?;
        }
        job.describe(B::NAME)?;
        Ok(None)
    }

    /// Optimizer steps of the run so far.
    fn step(&self) -> u64 {
        let accumulate = self.job.recipe.optimizer.accumulate as usize;
        let per_epoch = self.train.steps_per_epoch().div_ceil(accumulate) as u64;
        self.progress.epochs * per_epoch + self.progress.batch.div_ceil(accumulate) as u64
    }

    /// Tells what the run will take before it takes it.
    fn announce(&self, history: &[EpochMetrics], report: &mut dyn FnMut(Event<'_>)) {
        let Job { recipe, dataset, .. } = self.job;
        let params = self.engine.params();
        report(Event::Ready {
            peak_bytes: self.peak_bytes,
            params: params.table().iter().filter(|info| info.used && !info.frozen).map(|info| info.len).sum(),
            images: (dataset.split(data::Split::Train).len(), dataset.split(data::Split::Valid).len()),
            epochs: recipe.epochs(),
            done: history.len() as u64,
        });
    }

    /// LSUV on the first validation images. Averaged weights begin anew: the old ones are of another scale.
    fn scale_layers(&mut self, report: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let images = first_images::<B>(&self.valid, lsuv::IMAGES)?;
        let scaled = lsuv(&mut self.engine, images.view())?;
        self.ema = self.job.recipe.train.ema.map(|decay| Ema::new(decay, self.engine.params())).transpose()?;
        report(Event::Scaled(&scaled));
        Ok(())
    }

    /// Brings to the host what a device has: before anything of it is read or changed.
    fn fetch(&mut self, optimizer: &mut dyn Optimizer<B::Elem>) -> Result<()> {
        self.engine.fetch()?;
        optimizer.fetch()?;
        self.ema.as_mut().map_or(Ok(()), Ema::fetch)
    }

    /// Exchanges the weights that are trained and their averages, where there are any.
    fn swap_averages(&mut self) -> Result<()> {
        self.ema.as_mut().map_or(Ok(()), |ema| ema.swap(self.engine.params_mut()))
    }

    fn interrupted(&self) -> Error {
        let at = format!("stopped in epoch {} after batch {}", self.progress.epochs + 1, self.progress.batch);
        let folder = self.job.folder.path();
        let quoted = quoted(folder);
        Error::new(ErrorKind::Interrupted, folder.display(), at)
            .hint(format!("the state is saved: `handgrad train --out {quoted} --resume` goes on"))
    }

    fn save(&mut self, optimizer: &dyn Optimizer<B::Elem>) -> Result<()> {
        checkpoint::check_finite(self.engine.params(), self.engine.step())?;
        self.board.as_mut().map_or(Ok(()), Board::sync)?;
        checkpoint::save(self.job, &self.graph, self.engine.params(), &self.progress, optimizer, self.ema.as_ref())?;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// Writes metrics, picture, models and checkpoint of a finished epoch.
    fn finish_epoch(
        &mut self,
        history: &[EpochMetrics],
        optimizer: &dyn Optimizer<B::Elem>,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let Job { recipe, folder, .. } = self.job;
        let (metrics, step) = (history.last().expect("an epoch is done"), self.step());
        if let Some(board) = &mut self.board {
            board.epoch(step, metrics, self.engine.params())?;
        }
        self.progress.next_epoch();
        metrics::append(folder.metrics(), metrics)?;
        let steps = self.train.steps_per_epoch().div_ceil(recipe.optimizer.accumulate as usize) as u64;
        plot::curves(folder.curves(), history, &recipe.lr_curve(steps))?;
        let notes = [("epoch", metrics.epoch.to_string()), ("accuracy", metrics.accuracy.to_string())];
        let best_before = history[..history.len() - 1].iter().map(|m| m.accuracy).fold(f64::NEG_INFINITY, f64::max);
        let info = checkpoint::model_info(self.job, &notes)?;
        self.swap_averages()?;
        if metrics.accuracy > best_before {
            model_file::save(folder.best(), &self.graph, self.engine.params(), &info, &Default::default())?;
        }
        model_file::save(folder.last(), &self.graph, self.engine.params(), &info, &Default::default())?;
        self.swap_averages()?;
        self.save(optimizer)?;
        report(Event::Epoch(metrics));
        Ok(())
    }

    /// The last model's accuracy over augmented passes, where the recipe asks for that.
    fn tta(job: &Job) -> Result<Option<f64>> {
        let recipe = &job.recipe;
        let (passes, views) = match recipe.train.tta {
            Tta::Passes(0) => return Ok(None),
            Tta::Passes(passes) => (passes, Views::One),
            Tta::Views(views) => (0, views),
        };
        let model = Model::load(job.folder.last())?;
        let config = EvalConfig {
            batch: recipe.data.batch as usize,
            tta: passes,
            views,
            augment: recipe.data.augment,
            seed: recipe.train.seed,
            device: B::predicts_on()?,
            ..EvalConfig::default()
        };
        Ok(Some(infer::evaluate(&model, &job.dataset, &config)?.accuracy))
    }

    fn finish(self, history: &[EpochMetrics]) -> Result<Report> {
        // The passes take the memory that training has had.
        let job = self.job;
        drop(self);
        let last = history.last().cloned().expect("a recipe has at least one epoch");
        let best = history.iter().fold(&last, |best, m| if m.accuracy > best.accuracy { m } else { best });
        let report = Report {
            best_accuracy: best.accuracy,
            best_epoch: best.epoch,
            seconds: history.iter().map(|m| m.seconds).sum(),
            tta_accuracy: Self::tta(job)?,
            last,
        };
        let text = serde_json::to_string_pretty(&report).expect("plain data has a JSON form");
        write_text(&job.folder.result(), &text)?;
        Ok(report)
    }
}

/// A recipe's normalisation for a dataset.
pub fn normalise(recipe: &recipe::Normalise, dataset: &Dataset) -> data::Normalise {
    match recipe {
        recipe::Normalise::Named(recipe::NormaliseBy::Dataset) => {
            data::Normalise { mean: dataset.mean(), std: dataset.std() }
        }
        recipe::Normalise::Named(recipe::NormaliseBy::Imagenet) => data::Normalise::IMAGENET,
        recipe::Normalise::Named(recipe::NormaliseBy::None) => data::Normalise::NONE,
        recipe::Normalise::Given { mean, std } => {
            data::Normalise { mean: mean.map(|v| v as f32), std: std.map(|v| v as f32) }
        }
    }
}

/// The file of a dataset that a job reads, opened.
///
/// # Errors
/// Those of [`locate`] and [`Dataset::open`].
pub fn open_dataset(name: &str, given: Option<&Path>, notice: impl FnOnce(&str)) -> Result<(PathBuf, Arc<Dataset>)> {
    let path = locate(name, given, notice)?;
    let dataset = Dataset::open(&path)?;
    Ok((path, Arc::new(dataset)))
}
