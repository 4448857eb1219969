//! `handgrad bench`

mod compare;
mod setup;

use std::path::PathBuf;

use serde::Serialize;

use super::backend::{Backend, in_pool, on_backend, threads};
use super::out;
use crate::recipe::{Precision, Recipe};
use crate::{Error, ErrorKind, Result};
use setup::Setup;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  handgrad bench cifar10-resnet2 --batch 256 --threads 2\n  \
handgrad bench quickstart --seconds 5 --json\n  handgrad bench woof-xse_resnext18 --layers\n  \
handgrad bench --compare reference,cpu cifar10-convnet2 --batch 16\n  \
handgrad bench cifar10-resnet2 --warm-up 20 --lr 0.01 --export same.safetensors")]
pub struct Args {
    /// A built-in recipe or the path of a .toml file.
    recipe: String,
    /// Change one key of the recipe, such as model.act=mish; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Images per batch; the recipe's by default.
    #[arg(long)]
    batch: Option<usize>,
    /// Height and width of the images, in pixels; the recipe's by default.
    #[arg(long)]
    size: Option<usize>,
    /// reference, cpu or cuda[:N].
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
    /// Begin with the weights of a model file or a state dict instead of random ones.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Training steps before the timed ones.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    warm_up: u32,
    /// The learning rate of these steps; the timed ones leave the weights where they are.
    #[arg(long, value_name = "RATE", default_value_t = setup::TINY_RATE)]
    lr: f64,
    /// Write the first weights, the images and their targets, so that another program can measure the same.
    #[arg(long, value_name = "FILE.safetensors")]
    export: Option<PathBuf>,
    /// Measure these backends on the same weights and images, and compare their losses and gradients.
    #[arg(long, value_name = "BACKEND,BACKEND…", value_delimiter = ',', conflicts_with_all = ["backend", "layers", "export"])]
    compare: Vec<Backend>,
    /// Time each layer of a training step instead, forward and backward.
    #[arg(long)]
    layers: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The recipe with `--set` applied.
    fn recipe(&self) -> Result<Recipe> {
        let mut recipe = Recipe::load(&self.recipe)?;
        self.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
        Ok(recipe)
    }
}

/// What one backend makes of a recipe.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    recipe: String,
    backend: &'static str,
    batch: usize,
    size: usize,
    threads: usize,
    simd: &'static str,
    train_images_per_second: f64,
    infer_images_per_second: f64,
    latency_ms: f64,
    peak_bytes: usize,
    /// By how much the process' anonymous memory grew until training was measured; none where the system does not say.
    train_anonymous_bytes: Option<u64>,
    warm_up: u32,
    lr: f64,
    first_loss: f64,
    loss: f64,
}

pub fn run(args: Args) -> Result<()> {
    if args.precision != Precision::F32 {
        return Err(Error::new(ErrorKind::Usage, "--precision", args.precision).expected("f32 on this backend"));
    }
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Error::new(ErrorKind::Usage, "--seconds", args.seconds).expected("above 0, at most 3600"));
    }
    if !(0.0..=1e6).contains(&args.lr) {
        return Err(Error::new(ErrorKind::Usage, "--lr", args.lr).expected("from 0 to 1e6"));
    }
    if !args.compare.is_empty() {
        return compare::run(&args);
    }
    if args.layers {
        let profile = |args: &Args| on_backend!(args.backend, B => Setup::<B>::new(args)?.profile(args.seconds));
        let profile = in_pool(args.threads, || profile(&args))?;
        return if args.json { out::json(&profile) } else { out::line(profile) };
    }
    let measure = |args: &Args| on_backend!(args.backend, B => Setup::<B>::new(args)?.measure(args));
    let measured = in_pool(args.threads, || measure(&args))?;
    if args.json { out::json(&measured) } else { print(&measured) }
}

fn print(measured: &Measured) -> Result<()> {
    let Measured { recipe, batch, size, threads, .. } = measured;
    out::line(format!("{recipe}: batch {batch}, {size} px, {threads} threads"))?;
    out::line(format!("training   {:>12.0} images/s", measured.train_images_per_second))?;
    out::line(format!("inference  {:>12.0} images/s", measured.infer_images_per_second))?;
    out::line(format!("latency    {:>12.3} ms (batch 1, median)", measured.latency_ms))?;
    out::line(format!("memory     {:>12.1} MiB", measured.peak_bytes as f64 / f64::from(1 << 20)))?;
    let (steps, first, last) = (measured.warm_up, measured.first_loss, measured.loss);
    out::line(format!("loss       {first:>12.6} at first, {last:.6} after {steps} steps"))
}
