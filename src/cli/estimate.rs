//! `handgrad estimate`

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::ProgressBar;

use super::backend::{Backend, in_pool, on_backend, threads};
use super::out;
use super::train::stop_on_signals;
use crate::Result;
use crate::recipe::{Precision, Recipe};
use crate::train::estimate::{Estimate, estimate};
use crate::train::open_dataset;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  handgrad estimate cifar10-resnet2 --data cifar10.hgd
  handgrad estimate woof-xresnet50 --data imagewoof2-320.hgd --steps 50 --json")]
pub struct Args {
    /// A built-in recipe (see `handgrad recipes`) or the path of a .toml file.
    #[arg(default_value = "quickstart")]
    recipe: String,
    /// The dataset, an .hgd file; by default what the recipe names.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Steps to measure.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// reference, cpu or cuda[:N].
    #[arg(long, default_value = "cpu")]
    backend: Backend,
    /// f32, or tf32 with --backend cuda; the recipe's by default.
    #[arg(long, value_name = "P")]
    precision: Option<Precision>,
    /// Threads; all cores by default.
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Change one key of the recipe, such as data.batch=128; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let stop = stop_on_signals()?;
    let mut recipe = Recipe::load(&args.recipe)?;
    args.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
    recipe.train.precision = args.precision.unwrap_or(recipe.train.precision);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(args.steps.into()) } else { ProgressBar::hidden() };
    let measured = in_pool(args.threads, || {
        let (_, dataset) = open_dataset(&recipe.data.dataset, args.data.as_deref(), |text| out::note(text))?;
        let show = |done: usize| bar.set_position(done as u64);
        on_backend!((args.backend, recipe.train.precision), B => estimate::<B>(&recipe, &dataset, args.steps as usize, &stop, show))
    });
    bar.finish_and_clear();
    let measured = measured?;
    if args.json { out::json(&measured) } else { print(&recipe, &measured) }
}

fn print(recipe: &Recipe, measured: &Estimate) -> Result<()> {
    let Estimate { steps, images_per_second, evaluated_per_second, first_loss, last_loss, peak_bytes, epochs, hours } =
        measured;
    out::line(format!("{}: {}", recipe.name, recipe.title))?;
    out::line(format!("training:    {images_per_second:.1} images/s, the median of {steps} steps"))?;
    out::line(format!("evaluation:  {evaluated_per_second:.1} images/s"))?;
    out::line(format!("loss:        {first_loss:.4} at first, {last_loss:.4} at the end"))?;
    out::line(format!("memory:      {:.1} MiB at most", *peak_bytes as f64 / f64::from(1 << 20)))?;
    out::line(format!("all of it:   {hours:.2} hours for {epochs} epochs"))
}
