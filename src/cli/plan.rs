//! `handgrad plan`

use super::backend::{Backend, on_backend};
use super::out;
use crate::Result;
use crate::plan::{Mode, Plan};
use crate::recipe::Recipe;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  handgrad plan cifar10-resnet\n  handgrad plan quickstart --mode infer --batch 1")]
pub struct Args {
    /// A built-in recipe or the path of a .toml file.
    recipe: String,
    /// Images per batch; the recipe's by default.
    #[arg(long)]
    batch: Option<usize>,
    /// Height and width of the images, in pixels; the recipe's by default.
    #[arg(long)]
    size: Option<usize>,
    /// What the plan is for.
    #[arg(long, value_enum, default_value = "train")]
    mode: PlanMode,
    /// reference or cpu.
    #[arg(long, default_value = "cpu")]
    backend: Backend,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum PlanMode {
    Train,
    Eval,
    Infer,
}

pub fn run(args: Args) -> Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    let mut graph = recipe.model.build(10, args.size.unwrap_or(recipe.data.size as usize))?;
    graph.freeze(|name| recipe.optimizer.freezes(name, 0));
    let batch = args.batch.unwrap_or(recipe.data.batch as usize);
    let mode = match args.mode {
        PlanMode::Train => Mode::Train,
        PlanMode::Eval => Mode::Eval,
        PlanMode::Infer => Mode::Infer,
    };
    let plan = on_backend!(args.backend, B => Plan::compile::<B>(&graph, batch, mode));
    out::line(plan?)
}
