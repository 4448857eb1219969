//! `handgrad plan`

use super::backend::Backend;
use super::out;
use crate::backend::{Cpu, Reference};
use crate::plan::{Mode, Plan, Speed};
use crate::recipe::{Precision, Recipe};
use crate::{Error, Result};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  handgrad plan cifar10-resnet\n  handgrad plan quickstart --mode infer --batch 1\n  \
handgrad plan cifar10-resnet2 --roofline h100\n  handgrad plan cifar10-resnet2 --roofline 1.6e11,2e10"
)]
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
    /// reference, cpu or cuda.
    #[arg(long, default_value = "cpu")]
    backend: Backend,
    /// f32, or tf32 with --backend cuda; the recipe's by default.
    #[arg(long, value_name = "P")]
    precision: Option<Precision>,
    /// What the steps take at least, by op, on a machine of so many operations and bytes per second: h100, a100, t4, or two
    /// numbers.
    #[arg(long, value_name = "FLOPS,BYTES", value_parser = speed)]
    roofline: Option<Speed>,
    /// With --roofline: print one JSON object.
    #[arg(long, requires = "roofline")]
    json: bool,
}

fn speed(text: &str) -> Result<Speed, String> {
    text.parse().map_err(|e: Error| e.to_string())
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
    let precision = args.precision.unwrap_or(recipe.train.precision);
    args.backend.check(precision)?;
    // A plan needs no GPU.
    let plan = match (args.backend, precision) {
        (Backend::Cpu, _) => Plan::compile::<Cpu>(&graph, batch, mode),
        (Backend::Reference, _) => Plan::compile::<Reference>(&graph, batch, mode),
        #[cfg(feature = "cuda")]
        (Backend::Cuda(_), Precision::Tf32) => Plan::compile::<crate::backend::CudaTf32>(&graph, batch, mode),
        #[cfg(feature = "cuda")]
        (Backend::Cuda(_), _) => Plan::compile::<crate::backend::Cuda>(&graph, batch, mode),
    }?;
    match args.roofline.map(|speed| plan.roofline(speed)) {
        Some(roofline) if args.json => out::json(&roofline),
        Some(roofline) => out::line(roofline),
        None => out::line(plan),
    }
}
