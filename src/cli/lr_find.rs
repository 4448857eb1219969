//! `handgrad lr-find`

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use indicatif::ProgressBar;

use super::backend::{Backend, in_pool, on_backend, threads};
use super::out;
use super::train::stop_on_signals;
use crate::Result;
use crate::io::plot::{Colour, Panel, Series, panels};
use crate::recipe::{Precision, Recipe};
use crate::train::lr_find::{self, LrCurve, LrRule};
use crate::train::open_dataset;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  handgrad lr-find                                             for the quick-start net
  handgrad lr-find cifar10-resnet --data cifar10.hgd --out lr.svg
  handgrad lr-find my.toml --rule torch --set optimizer.name=adamw")]
pub struct Args {
    /// A built-in recipe (see `handgrad recipes`) or the path of a .toml file.
    #[arg(default_value = "quickstart")]
    recipe: String,
    /// fastai (100 steps, 1e-7 to 10), e1 (one epoch, 1e-5 to 10) or torch (50 steps, 1e-8 to 10).
    #[arg(long, default_value = "fastai")]
    rule: LrRule,
    /// Draw the curve with the suggestions.
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
    /// The dataset, an .hgd file; by default what the recipe names.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Images per batch.
    #[arg(long, value_name = "N", value_parser = NonEmptyStringValueParser::new())]
    batch: Option<String>,
    /// What every random number follows from.
    #[arg(long, value_name = "N", value_parser = NonEmptyStringValueParser::new())]
    seed: Option<String>,
    /// reference (f64, slow, the truth), cpu or cuda[:N].
    #[arg(long, default_value = "cpu")]
    backend: Backend,
    /// f32, or tf32 with --backend cuda; the recipe's by default.
    #[arg(long, value_name = "P")]
    precision: Option<Precision>,
    /// Threads; all cores by default. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Change one key of the recipe, such as optimizer.momentum=0.95; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object: points and suggestions.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let stop = stop_on_signals()?;
    let mut recipe = Recipe::load(&args.recipe)?;
    args.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
    for (flag, key, value) in [("--batch", "data.batch", &args.batch), ("--seed", "train.seed", &args.seed)] {
        if let Some(value) = value {
            recipe.set_by(flag, key, value)?;
        }
    }
    recipe.train.precision = args.precision.unwrap_or(recipe.train.precision);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let show = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let curve = in_pool(args.threads, || {
        let (_, dataset) = open_dataset(&recipe.data.dataset, args.data.as_deref(), |text| out::note(text))?;
        on_backend!((args.backend, recipe.train.precision), B => lr_find::run::<B>(&recipe, &dataset, args.rule, &stop, show))
    });
    bar.finish_and_clear();
    let curve = curve?;
    if let Some(path) = &args.out {
        draw(path, &curve)?;
    }
    if args.json {
        return out::json(&curve);
    }
    summarise(&curve)?;
    args.out.iter().try_for_each(|path| out::line(format!("curve:    {}", path.display())))
}

fn summarise(curve: &LrCurve) -> Result<()> {
    let lost = |why: &str| out::line(format!("steps:    {}{why}", curve.points.len()));
    let Some(found) = curve.suggestions else {
        return lost(", too few to suggest a rate: the loss grew, or was no number, almost at once");
    };
    lost("")?;
    out::line(format!("valley:   {:.2e}  two thirds along the longest fall of the loss", found.valley))?;
    out::line(format!("steep:    {:.2e}  where the loss falls fastest", found.steep))?;
    out::line(format!("minimum:  {:.2e}  a tenth of the rate with the least loss", found.minimum))
}

/// The curve over the rate's logarithm, with the suggestions on it.
fn draw(path: &std::path::Path, curve: &LrCurve) -> Result<()> {
    let place = |lr: f64| {
        let nearest = curve.points.iter().min_by(|a, b| (a.lr / lr).ln().abs().total_cmp(&(b.lr / lr).ln().abs()));
        vec![(lr.log10(), nearest.map_or(f64::NAN, |point| point.loss))]
    };
    let line = curve.points.iter().map(|point| (point.lr.log10(), point.loss)).collect();
    let found = curve.suggestions.into_iter().flat_map(|s| {
        [
            (format!("valley {:.1e}", s.valley), s.valley, Colour::Vermilion),
            (format!("steep {:.1e}", s.steep), s.steep, Colour::Green),
            (format!("minimum / 10: {:.1e}", s.minimum), s.minimum, Colour::Purple),
        ]
    });
    let found: Vec<_> = found.collect();
    let marks = found.iter().map(|(name, lr, colour)| Series { name, points: place(*lr), colour: *colour });
    let series = std::iter::once(Series { name: "loss", points: line, colour: Colour::Blue }).chain(marks).collect();
    panels(path, "learning rate, its power of ten", &[Panel { title: "Loss", series }])
}
