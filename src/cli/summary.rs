//! `handgrad summary`: a model's layers, parameters and FLOPs.

use std::path::Path;

use super::out::Out;
use crate::data::{Dataset, synth};
use crate::graph::{Graph, Shape};
use crate::io::model_file;
use crate::recipe::Recipe;
use crate::{Error, ErrorKind, Result};

/// Show a model's layers with output shapes, parameters and FLOPs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recipe (a built-in name or a .toml file), or a model file (.safetensors)
    #[arg(value_name = "RECIPE|MODEL")]
    what: String,
    /// Height and width of the images [default: the recipe's, the model's]
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    size: Option<u32>,
    /// Classes of a recipe's model [default: its own or those of its dataset; 10 where that is not there]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    classes: Option<u32>,
    /// Change one key of a recipe, such as model.act=mish; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object: total_params, layers and more
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What the recipe or the file gets wrong.
pub fn run(args: Args) -> Result<()> {
    let summary = graph(&args)?.summary();
    let mut out = Out::stdout();
    if args.json {
        let text = serde_json::to_string_pretty(&summary);
        out.line(text.map_err(|e| Error::new(ErrorKind::Format, "summary", e))?)?;
    } else {
        out.line(summary)?;
    }
    out.flush()
}

fn graph(args: &Args) -> Result<Graph> {
    if Path::new(&args.what).extension().is_none_or(|extension| extension != "safetensors") {
        let mut recipe = Recipe::load(&args.what)?;
        args.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
        let classes = match args.classes.or(recipe.model.classes.take()) {
            Some(classes) => classes as usize,
            None => classes_of(&recipe.data.dataset)?,
        };
        return recipe.model.build(classes, args.size.unwrap_or(recipe.data.size) as usize);
    }
    for (flag, given) in [("--classes", args.classes.is_some()), ("--set", !args.set.is_empty())] {
        if given {
            let e = Error::new(ErrorKind::Usage, flag, "a model file is what it is");
            return Err(e.expected(format!("a recipe with {flag}")));
        }
    }
    let file = model_file::load(&args.what)?;
    match args.size {
        Some(size) => file.graph().with_images(Shape::new(size as usize, size as usize, 3)),
        None => Ok(file.graph().clone()),
    }
}

/// The classes of a recipe's dataset.
pub(super) fn classes_of(dataset: &str) -> Result<usize> {
    let path = Path::new(dataset);
    match dataset {
        "synth" => Ok(synth::CLASSES.len()),
        "cifar100" => Ok(100),
        _ if path.is_file() => Ok(Dataset::open(path)?.classes().len()),
        _ => Ok(10),
    }
}
