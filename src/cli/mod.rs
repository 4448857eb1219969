//! The `handgrad` program: one file per subcommand, thin over the library.

mod augment;
mod backend;
mod bench;
mod cam;
mod doctor;
mod estimate;
mod eval;
mod features;
mod lr_find;
mod masks;
mod out;
mod plan;
mod predict;
mod recipes;
mod schedule;
mod several;
mod summary;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{ErrorKind, Result};

const EXAMPLES: &str = "\
Examples:
  handgrad train                                  train the quick-start net on the built-in images
  handgrad recipes                                list the built-in experiments
  handgrad train cifar10-resnet --data cifar10.hgd --seed 1
  handgrad eval runs/photos/model.safetensors --data photos.hgd
  handgrad predict runs/quickstart/model.safetensors photos/";

/// Trains and runs image classifiers: hand-derived gradients, no framework, one binary.
#[derive(Parser)]
#[command(name = "handgrad", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a recipe.
    Train(train::Args),
    /// Try growing learning rates for a moment, and say which ones look good.
    LrFind(lr_find::Args),
    /// Measure some steps of a recipe, and say how long all of it would take.
    Estimate(estimate::Args),
    /// Draw training images as a recipe changes them.
    Augment(augment::Args),
    /// Show how a recipe's learning rate and momentum move.
    Schedule(schedule::Args),
    /// Evaluate a model on a dataset.
    Eval(eval::Args),
    /// Classify images.
    Predict(predict::Args),
    /// Draw what a layer makes of an image.
    Features(features::Args),
    /// Draw where in an image something speaks for a class (Grad-CAM).
    Cam(cam::Args),
    /// List the layers of a recipe's or a file's model.
    Summary(summary::Args),
    /// List the built-in recipes.
    Recipes(recipes::Args),
    /// Print how a model runs: steps, memory, FLOPs.
    Plan(plan::Args),
    /// Measure training, inference and latency of a recipe's model on random images.
    Bench(bench::Args),
    /// Say what this machine has: threads, SIMD levels, GPUs, their driver.
    Doctor(doctor::Args),
}

/// Parses the command line, runs it, and turns errors into messages and exit codes: 0 done, 2 wrong usage, 1 anything
/// else.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Train(args) => train::run(args),
        Command::LrFind(args) => lr_find::run(args),
        Command::Estimate(args) => estimate::run(args),
        Command::Augment(args) => augment::run(args),
        Command::Schedule(args) => schedule::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Features(args) => features::run(args),
        Command::Cam(args) => cam::run(args),
        Command::Summary(args) => summary::run(args),
        Command::Recipes(args) => recipes::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(args),
    };
    exit_code(result)
}

fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::note(format_args!("error: {error}"));
            ExitCode::from(if error.kind() == ErrorKind::Usage { 2 } else { 1 })
        }
    }
}
