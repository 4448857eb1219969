//! `handgrad train`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::builder::NonEmptyStringValueParser;
use indicatif::{ProgressBar, ProgressStyle};

use super::backend::{Backend, in_pool, on_backend, threads};
use super::out;
use super::several;
use crate::graph::grouped;
use crate::recipe::Recipe;
use crate::train::{self, Environment, Event, FirstWeights, Job, Report, RunFolder, quoted};
use crate::{Error, ErrorKind, Result};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  handgrad train                                            the quick-start net on the built-in images
  handgrad train cifar10-convnet2 --data cifar10.hgd        a published experiment
  handgrad train cifar10-resnet --seed 1 --out runs/a       another seed, a folder of your choice
  handgrad train --out runs/a --resume                      go on where runs/a stopped
  handgrad train cifar10-resnet --runs 5                    mean and spread over five seeds
  handgrad train my.toml --from resnet18.safetensors --new-head   another's weights, classes of your own
  handgrad train --out runs/b --tensorboard                 curves for `tensorboard --logdir runs`
  handgrad train my.toml --set optimizer.weight_decay=1e-4  your own recipe, one key changed")]
pub struct Args {
    /// A built-in recipe (see `handgrad recipes`) or the path of a .toml file.
    pub(super) recipe: Option<String>,
    /// The dataset, an .hgd file; by default what the recipe names, or what the run to resume began with.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The run's folder; runs/RECIPE by default.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Epochs in all: the recipe's phases are cut, or the last one is stretched.
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Images per batch.
    #[arg(long, value_name = "N", value_parser = NonEmptyStringValueParser::new())]
    batch: Option<String>,
    /// What every random number of the run follows from.
    #[arg(long, value_name = "N", value_parser = NonEmptyStringValueParser::new())]
    seed: Option<String>,
    /// reference (f64, slow, the truth), cpu (the default) or cuda[:N].
    #[arg(long)]
    backend: Option<Backend>,
    /// f32, or tf32 with --backend cuda; no backend has bf16, fp16 or int8 yet.
    #[arg(long, value_name = "P", value_parser = NonEmptyStringValueParser::new())]
    precision: Option<String>,
    /// Minutes between checkpoints inside an epoch; 0 writes them at epoch ends alone.
    #[arg(long, value_name = "M", value_parser = NonEmptyStringValueParser::new())]
    checkpoint_minutes: Option<String>,
    /// Threads; all cores by default. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Begin with the weights of a model file, or of a state dict with PyTorch's names, instead of random ones.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// With --from: let the last linear layer begin with random weights all the same, for other classes.
    #[arg(long, requires = "from")]
    new_head: bool,
    /// Train so many models, with seeds one apart, each in a folder of its own, and report mean and spread.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: Option<u32>,
    /// Let each of the runs go on with the model of the one before.
    #[arg(long, requires = "runs")]
    pub(super) runs_reuse: bool,
    /// Go on from the checkpoint in the run's folder.
    #[arg(long)]
    pub(super) resume: bool,
    /// Resume although this machine has another SIMD level than the checkpoint's, which gives other bits.
    #[arg(long, requires = "resume")]
    other_simd: bool,
    /// Change one key of the recipe, such as optimizer.momentum=0.95; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write curves, pictures and histograms for TensorBoard into the folder `tensorboard` of the run's folder.
    #[arg(long)]
    tensorboard: bool,
    /// Print the result as one JSON object, and progress to standard error.
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// What the flags say to begin with.
    pub(super) fn first_weights(&self) -> Option<FirstWeights> {
        self.from.clone().map(|file| FirstWeights { file, new_head: self.new_head })
    }

    /// The recipe with every flag applied.
    pub(super) fn recipe(&self, name: &str) -> Result<Recipe> {
        let mut recipe = Recipe::load(name)?;
        for assignment in &self.set {
            recipe.set(assignment)?;
        }
        let flags = [
            ("--batch", "data.batch", &self.batch),
            ("--seed", "train.seed", &self.seed),
            ("--precision", "train.precision", &self.precision),
            ("--checkpoint-minutes", "train.checkpoint_minutes", &self.checkpoint_minutes),
        ];
        for (flag, key, value) in flags {
            if let Some(value) = value {
                recipe.set_by(flag, key, value)?;
            }
        }
        if self.tensorboard {
            recipe.set_by("--tensorboard", "train.tensorboard", "true")?;
        }
        if let Some(epochs) = self.epochs {
            recipe.set_epochs(epochs)?;
        }
        Ok(recipe)
    }

    /// Backend, dataset and first weights: what the flags say, else what the run to resume began with.
    fn surroundings(&self, run: &Run) -> Result<(Backend, Option<PathBuf>, Option<FirstWeights>)> {
        let folder = &run.folder;
        let before = if run.resume { Environment::read(&folder.environment())? } else { None };
        let Some(before) = before else {
            return Ok((self.backend.unwrap_or(Backend::Cpu), self.data.clone(), run.from.clone()));
        };
        let began_with: Backend = before.backend.parse().map_err(|e| {
            let file = folder.environment();
            Error::new(ErrorKind::Format, file.display(), format!("backend \"{}\"", before.backend)).expected(e)
        })?;
        let backend = self.backend.unwrap_or(began_with);
        // What is computed in f32 goes on in f32, wherever that is.
        if backend != began_with && [backend, began_with].contains(&Backend::Reference) {
            let e = Error::new(ErrorKind::Usage, "--backend", backend.name());
            let e = e.expected(format!("{}, which the run began with", began_with.name()));
            return Err(e.hint("with --resume leave the flag out"));
        }
        Ok((backend, self.data.clone().or_else(|| before.dataset_file()), before.from))
    }

    /// The recipe and folder of a new run, or those of the run to resume.
    fn folder(&self) -> Result<(Recipe, RunFolder)> {
        let name = self.recipe.as_deref().unwrap_or("quickstart");
        if !self.resume {
            let recipe = self.recipe(name)?;
            let folder = RunFolder::create(self.out.as_deref(), &recipe.name)?;
            return Ok((recipe, folder));
        }
        let folder = RunFolder::open(self.out.as_deref(), &Recipe::load(name)?.name)?;
        let saved = self.saved_recipe(&folder.recipe())?;
        Ok((saved, folder))
    }

    /// The recipe that a folder keeps, which the flags must not contradict.
    pub(super) fn saved_recipe(&self, file: &Path) -> Result<Recipe> {
        let saved = Recipe::load_file(file)?;
        let name = self.recipe.as_deref().unwrap_or("quickstart");
        let changes = self.recipe.is_some()
            || !self.set.is_empty()
            || self.epochs.is_some()
            || self.tensorboard
            || [&self.batch, &self.seed, &self.precision, &self.checkpoint_minutes].iter().any(|flag| flag.is_some());
        if changes && self.recipe(name)?.to_toml()? != saved.to_toml()? {
            let folder = file.parent().unwrap_or(file).display();
            let e = Error::new(ErrorKind::Usage, folder, "the flags say another recipe");
            return Err(e.expected("the recipe in the folder").hint("with --resume give only --out (and --data)"));
        }
        Ok(saved)
    }
}

/// One run that the flags ask for.
pub(super) struct Run {
    pub recipe: Recipe,
    pub folder: RunFolder,
    /// Go on from the folder's checkpoint.
    pub resume: bool,
    /// The weights to begin with.
    pub from: Option<FirstWeights>,
}

pub fn run(args: Args) -> Result<()> {
    let stop = stop_on_signals()?;
    if let Some(runs) = args.runs {
        return several::run(&args, runs, &stop);
    }
    let (recipe, folder) = args.folder()?;
    let (job, report) = train(&args, Run { recipe, folder, resume: args.resume, from: args.first_weights() }, &stop)?;
    if args.json {
        return out::json(&report);
    }
    summarise(&job, &report)
}

/// Prints to where progress goes.
pub(super) fn say(json: bool, text: String) -> Result<()> {
    if json {
        out::note(text);
        return Ok(());
    }
    out::line(text)
}

/// Trains; a new folder goes again if nothing came of it.
pub(super) fn train(args: &Args, run: Run, stop: &AtomicBool) -> Result<(Job, Report)> {
    let (folder, new) = (run.folder.clone(), !run.resume);
    let done = train_in_folder(args, run, stop);
    if done.is_err() && new {
        folder.remove_if_empty();
    }
    done
}

fn train_in_folder(args: &Args, run: Run, stop: &AtomicBool) -> Result<(Job, Report)> {
    let (backend, data, from) = args.surroundings(&run)?;
    let Run { recipe, folder, resume, .. } = run;
    let (data, dataset) =
        in_pool(args.threads, || train::open_dataset(&recipe.data.dataset, data.as_deref(), |text| out::note(text)))?;
    let (path, data) = (folder.path().display(), data.display());
    let what = format!("{}: {}\ndata:  {data}\nrun:   {path}", recipe.name, recipe.title);
    let job = Job { recipe, dataset, folder, resume, other_simd: args.other_simd, from };
    let say = |text| say(args.json, text);
    let (mut view, precision) = (View::new(what, &say), job.recipe.train.precision);
    let report = in_pool(
        args.threads,
        || on_backend!((backend, precision), B => train::run::<B>(&job, stop, |event| view.show(&event))),
    );
    view.bar.finish_and_clear();
    report.map(|report| (job, report))
}

fn summarise(job: &Job, report: &Report) -> Result<()> {
    let folder = &job.folder;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    out::line("")?;
    out::line(format!("accuracy:  {} after the last epoch", percent(report.last.accuracy)))?;
    if report.best_epoch != report.last.epoch {
        out::line(format!("           {} at best, in epoch {}", percent(report.best_accuracy), report.best_epoch))?;
    }
    if let Some(tta) = report.tta_accuracy {
        out::line(format!("           {} with {}", percent(tta), job.recipe.train.tta))?;
    }
    out::line(format!("time:      {:.1} s", report.seconds))?;
    out::line(format!("model:     {}", folder.last().display()))?;
    out::line(format!("curves:    {}", folder.curves().display()))?;
    let program = std::env::args_os().next().map_or_else(|| "handgrad".into(), PathBuf::from);
    let [program, model, data] =
        [program.as_path(), &folder.last(), job.dataset.path()].map(|path: &Path| quoted(path));
    out::line(format!("next:      {program} eval {model} --data {data}"))
}

/// A flag that SIGINT and SIGTERM set; a second signal ends the program at once.
pub(super) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()));
        registered.map_err(|e| Error::io("signal handler", &e))?;
    }
    Ok(stop)
}

/// Shows progress: a bar on a terminal, and a line per epoch.
struct View<'a> {
    /// What is trained on what and where.
    what: String,
    bar: ProgressBar,
    say: &'a (dyn Fn(String) -> Result<()> + Sync),
}

impl<'a> View<'a> {
    fn new(what: String, say: &'a (dyn Fn(String) -> Result<()> + Sync)) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg} (epoch: {eta} left)");
        bar.set_style(style.expect("the template is valid").progress_chars("━╸─"));
        View { what, bar, say }
    }

    fn line(&self, text: String) {
        // A closed output is no reason to stop training; the files hold everything.
        self.bar.suspend(|| drop((self.say)(text)));
    }

    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Ready { peak_bytes, params, images, epochs, done } => {
                let mib = *peak_bytes as f64 / f64::from(1 << 20);
                self.line(self.what.clone());
                self.line(format!(
                    "model: {} trained parameters; {} training and {} validation images; {mib:.1} MiB at most",
                    grouped(*params),
                    grouped(images.0),
                    grouped(images.1)
                ));
                if *done > 0 {
                    self.line(format!("resumed after {done} of {epochs} epochs"));
                }
                self.line("epoch  train loss  valid loss  accuracy    top-5         lr   seconds   images/s".into());
            }
            Event::Step { epoch, batch: (done, all), loss, images_per_second } => {
                self.bar.set_length(*all as u64);
                self.bar.set_position(*done as u64);
                self.bar.set_prefix(format!("epoch {epoch}"));
                self.bar.set_message(format!("loss {loss:.4}, {images_per_second:.0} images/s"));
            }
            Event::Scaled(layers) => {
                let (low, high) = layers
                    .iter()
                    .fold((f64::INFINITY, 0.0_f64), |(low, high), layer| (low.min(layer.std), high.max(layer.std)));
                let count = layers.len();
                self.line(format!(
                    "lsuv: {count} layers scaled; deviations of their outputs were {low:.3} to {high:.3}"
                ));
            }
            Event::Checkpoint(path) => self.line(format!("checkpoint: {}", path.display())),
            Event::Epoch(m) => self.line(format!(
                "{:5}  {:10.4}  {:10.4}  {:7.2} %  {:5.2} %  {:9.2e}  {:8.1}  {:9.0}",
                m.epoch,
                m.train_loss,
                m.valid_loss,
                100.0 * m.accuracy,
                100.0 * m.top5,
                m.lr,
                m.seconds,
                m.images_per_second
            )),
        }
    }
}
