//! `handgrad bench`

use std::time::Instant;

use ndarray::{Array2, Array4, s};
use serde::Serialize;

use super::backend::{Backend, in_pool, threads};
use super::out;
use crate::backend::{Cpu, Host, Real, Reference};
use crate::engine::Engine;
use crate::optim::{Optimizer, ParamTable, Rates};
use crate::plan::{Profile, require_memory};
use crate::recipe::{Precision, Recipe};
use crate::rng::Key;
use crate::train;
use crate::{Error, ErrorKind, Result};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  handgrad bench cifar10-resnet2 --batch 256 --threads 2\n  \
handgrad bench quickstart --seconds 5 --json\n  handgrad bench woof-xse_resnext18 --layers")]
pub struct Args {
    /// A built-in recipe or the path of a .toml file.
    recipe: String,
    /// Images per batch; the recipe's by default.
    #[arg(long)]
    batch: Option<usize>,
    /// Height and width of the images, in pixels; the recipe's by default.
    #[arg(long)]
    size: Option<usize>,
    /// reference or cpu.
    #[arg(long, default_value = "cpu")]
    backend: Backend,
    /// f32.
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Threads; all cores by default.
    #[arg(long, value_parser = threads)]
    threads: Option<usize>,
    /// Seconds that each of the three measurements takes.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Time each layer of a training step instead, forward and backward.
    #[arg(long)]
    layers: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Measured {
    recipe: String,
    batch: usize,
    size: usize,
    threads: usize,
    train_images_per_second: f64,
    infer_images_per_second: f64,
    latency_ms: f64,
    peak_bytes: usize,
}

pub fn run(args: Args) -> Result<()> {
    if args.precision != Precision::F32 {
        return Err(Error::new(ErrorKind::Usage, "--precision", args.precision).expected("f32 on this backend"));
    }
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Error::new(ErrorKind::Usage, "--seconds", args.seconds).expected("above 0, at most 3600"));
    }
    if args.layers {
        let profile = in_pool(args.threads, || match args.backend {
            Backend::Cpu => Setup::<Cpu>::new(&args)?.profile(args.seconds),
            Backend::Reference => Setup::<Reference>::new(&args)?.profile(args.seconds),
        })?;
        return if args.json { out::json(&profile) } else { out::line(profile) };
    }
    let measured = in_pool(args.threads, || match args.backend {
        Backend::Cpu => Setup::<Cpu>::new(&args)?.measure(&args),
        Backend::Reference => Setup::<Reference>::new(&args)?.measure(&args),
    })?;
    if args.json {
        return out::json(&measured);
    }
    let Measured { recipe, batch, size, threads, .. } = &measured;
    out::line(format!("{recipe}: batch {batch}, {size} px, {threads} threads"))?;
    out::line(format!("training   {:>12.0} images/s", measured.train_images_per_second))?;
    out::line(format!("inference  {:>12.0} images/s", measured.infer_images_per_second))?;
    out::line(format!("latency    {:>12.3} ms (batch 1, median)", measured.latency_ms))?;
    out::line(format!("memory     {:>12.1} MiB", measured.peak_bytes as f64 / f64::from(1 << 20)))
}

/// What is measured: a recipe's model and optimizer, and a batch of noise.
struct Setup<B: Host> {
    engine: Engine<B>,
    optimizer: Box<dyn Optimizer<B::Elem>>,
    images: Array4<B::Elem>,
    targets: Array2<B::Elem>,
    /// Bytes of the engine and of what the optimizer keeps.
    peak_bytes: usize,
}

impl<B: Host> Setup<B> {
    fn new(args: &Args) -> Result<Self> {
        let recipe = Recipe::load(&args.recipe)?;
        let batch = args.batch.unwrap_or(recipe.data.batch as usize);
        let size = args.size.unwrap_or(recipe.data.size as usize);
        let mut graph = recipe.model.build(10, size)?;
        graph.freeze(|name| recipe.optimizer.freezes(name));
        let classes = graph.shape(graph.output()).c;
        // What the optimizer keeps and random inputs beside what the engine takes.
        let kept = recipe.optimizer.bytes::<B::Elem>(&ParamTable::of_graph(&graph, &recipe.optimizer.rules())?);
        let inputs = size.saturating_mul(size).saturating_mul(3).saturating_add(classes).saturating_mul(batch);
        let inputs = inputs.saturating_mul(size_of::<B::Elem>());
        require_memory(Engine::<B>::bytes_for(&graph, batch)?.saturating_add(kept).saturating_add(inputs))?;
        let engine = Engine::<B>::new(&graph, batch, 0)?;
        let mut noise = Key::new(1).stream();
        Ok(Setup {
            optimizer: train::optimizer(&recipe.optimizer, engine.params())?,
            peak_bytes: engine.bytes() + kept,
            engine,
            images: Array4::from_shape_simple_fn((batch, size, size, 3), || B::Elem::of(noise.normal())),
            targets: Array2::from_shape_fn((batch, classes), |(i, j)| B::Elem::of(f64::from(i % classes == j))),
        })
    }

    /// As many steps as fill the seconds, three at least.
    fn profile(mut self, seconds: f64) -> Result<Profile> {
        let (images, targets) = (self.images.view(), self.targets.view());
        let once = self.engine.profile(images, targets, 1)?.seconds();
        self.engine.profile(images, targets, ((seconds / once.max(1e-9)) as usize).clamp(3, 10_000))
    }

    fn measure(mut self, args: &Args) -> Result<Measured> {
        let Setup { engine, optimizer, images, targets, peak_bytes } = &mut self;
        // A tiny rate: the work is the same, and random images cannot drive the weights to infinity.
        let train = rate(args.seconds, || {
            engine.train_step(images.view(), targets.view())?;
            let (values, grads, _) = engine.params_mut().split_mut();
            optimizer.step(values, grads, Rates::of(1e-9))
        })?;
        let infer = rate(args.seconds, || engine.evaluate(images.view(), targets.view()).map(drop))?;
        let one = (images.slice(s![..1, .., .., ..]), targets.slice(s![..1, ..]));
        let latency = rate(args.seconds, || engine.evaluate(one.0, one.1).map(drop))?;
        let (batch, size, ..) = images.dim();
        Ok(Measured {
            recipe: args.recipe.clone(),
            batch,
            size,
            threads: rayon::current_num_threads(),
            train_images_per_second: batch as f64 / train,
            infer_images_per_second: batch as f64 / infer,
            latency_ms: 1e3 * latency,
            peak_bytes: *peak_bytes,
        })
    }
}

/// The median seconds of one call, over calls for `seconds` after two that warm up.
fn rate(seconds: f64, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    call()?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || started.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        call()?;
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
