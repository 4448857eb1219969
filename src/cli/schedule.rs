//! `handgrad schedule`

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::out;
use crate::Result;
use crate::data::{Dataset, Split};
use crate::io::plot::{Colour, Panel, Series, panels};
use crate::recipe::Recipe;
use crate::schedule::Position;
use crate::train::locate;

/// Rows of the table at most, the last one aside.
const ROWS: u32 = 20;
/// Steps per epoch where nothing says how many images there are.
const STEPS: u64 = 100;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  handgrad schedule quickstart
  handgrad schedule my.toml --steps-per-epoch 141 --out lr.svg")]
pub struct Args {
    /// A built-in recipe or the path of a .toml file.
    recipe: String,
    /// Optimizer steps per epoch; by default those of the recipe's dataset, 100 where that is not there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    steps_per_epoch: Option<u64>,
    /// Draw rate and momentum over the epochs.
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
    /// Change one key of the recipe, such as phase.0.schedule=one_cycle; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object: steps_per_epoch and points, of which there are some thousands at most.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Curve {
    steps_per_epoch: u64,
    points: Vec<Point>,
}

/// The rates of one step.
#[derive(Clone, Copy, Serialize)]
struct Point {
    /// Epochs before it.
    epoch: f64,
    lr: f64,
    /// The optimizer's own where the schedule does not move it.
    momentum: f64,
}

pub fn run(args: Args) -> Result<()> {
    let mut recipe = Recipe::load(&args.recipe)?;
    args.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
    let steps_per_epoch = args.steps_per_epoch.unwrap_or_else(|| steps_of(&recipe).unwrap_or(STEPS));
    let own = recipe.optimizer.momentum();
    let points: Vec<Point> = recipe
        .rates_curve(steps_per_epoch)
        .into_iter()
        .map(|(epoch, rates)| Point { epoch, lr: rates.lr, momentum: rates.momentum.unwrap_or(own) })
        .collect();
    if let Some(path) = &args.out {
        draw(path, &points)?;
    }
    if args.json {
        return out::json(&Curve { steps_per_epoch, points });
    }
    out::line(format!("{}: {} epochs of {steps_per_epoch} steps", recipe.name, recipe.epochs()))?;
    out::line("epoch     step         lr  momentum")?;
    rows(&recipe, steps_per_epoch)
        .iter()
        .try_for_each(|(step, p)| out::line(format!("{:5.2} {step:8}  {:9.3e}  {:8.4}", p.epoch, p.lr, p.momentum)))?;
    args.out.iter().try_for_each(|path| out::line(format!("curves: {}", path.display())))
}

/// Steps of the run, counted from 0, with their rates: the first of each phase, those of some epochs, the last.
fn rows(recipe: &Recipe, steps_per_epoch: u64) -> Vec<(u64, Point)> {
    let every = recipe.epochs().div_ceil(ROWS).max(1);
    let mut rows = Vec::new();
    let mut before = 0u64;
    for (i, phase) in recipe.phases.iter().enumerate() {
        let total_steps = steps_per_epoch * u64::from(phase.epochs());
        let epochs = (0..phase.epochs()).step_by(every as usize).map(|epoch| u64::from(epoch) * steps_per_epoch);
        let last = (i + 1 == recipe.phases.len() && total_steps > 1).then(|| total_steps - 1);
        rows.extend(epochs.chain(last).map(|step| {
            let rates = phase.schedule.rates(phase.lr, Position { step, steps_per_epoch, total_steps });
            let momentum = rates.momentum.unwrap_or(recipe.optimizer.momentum());
            let epoch = (before + step) as f64 / steps_per_epoch as f64;
            (before + step, Point { epoch, lr: rates.lr, momentum })
        }));
        before += total_steps;
    }
    rows.dedup_by_key(|(step, _)| *step);
    rows
}

/// The optimizer steps of an epoch, where the recipe's dataset lies on this machine.
fn steps_of(recipe: &Recipe) -> Option<u64> {
    let name = &recipe.data.dataset;
    let images = if name == "synth" {
        crate::data::synth::SynthConfig::default().train
    } else {
        let path = locate(name, None, |_| ()).ok()?;
        Dataset::open(&path).ok()?.split(Split::Train).len()
    };
    let batch = (recipe.data.batch as usize).min(images).max(1);
    let batches = if recipe.data.drop_last { images / batch } else { images.div_ceil(batch) };
    Some(batches.div_ceil(recipe.optimizer.accumulate as usize) as u64).filter(|&steps| steps > 0)
}

fn draw(path: &Path, points: &[Point]) -> Result<()> {
    let series = |name, value: fn(&Point) -> f64, colour| Series {
        name,
        points: points.iter().map(|p| (p.epoch, value(p))).collect(),
        colour,
    };
    let lr = vec![series("learning rate", |p| p.lr, Colour::Purple)];
    let momentum = vec![series("momentum", |p| p.momentum, Colour::Green)];
    let panel = |title, series| Panel { title, series };
    panels(path, "epoch", &[panel("Learning rate", lr), panel("Momentum", momentum)])
}
