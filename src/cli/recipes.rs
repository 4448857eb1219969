//! `handgrad recipes`

use super::out;
use crate::Result;
use crate::recipe::Recipe;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  handgrad recipes\n  handgrad recipes --json | jq -r '.[].name'")]
pub struct Args {
    /// Print a JSON array of {name, title}.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let recipes: Vec<Recipe> = Recipe::builtins().collect::<Result<_>>()?;
    if args.json {
        let rows = recipes.iter().map(|r| serde_json::json!({ "name": r.name, "title": r.title }));
        return out::json(&rows.collect::<Vec<_>>());
    }
    let width = recipes.iter().map(|r| r.name.len()).max().unwrap_or(0);
    recipes.iter().try_for_each(|r| out::line(format!("{:width$}  {}", r.name, r.title)))
}
