//! `handgrad train --runs N`: the same recipe with one seed after the other.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::out;
use super::train::{Args, Run, say, train};
use crate::io::atomic::write_atomically;
use crate::recipe::Recipe;
use crate::train::{Environment, FirstWeights, Report, RunFolder};
use crate::{Error, ErrorKind, Result};

/// The recipe of the runs, beside their folders; its seed is that of the first.
const RECIPE: &str = "runs.toml";
/// What they came to.
const SUMMARY: &str = "summary.json";

/// What several runs came to.
#[derive(Serialize)]
struct Summary {
    runs: Vec<Outcome>,
    /// Whether each run went on with the model of the one before.
    reuse: bool,
    /// After the last epoch.
    accuracy: Spread,
    /// Of the best epoch.
    best_accuracy: Spread,
    /// Over augmented passes, where the recipe asks for that.
    tta_accuracy: Option<Spread>,
}

#[derive(Serialize)]
struct Outcome {
    seed: u64,
    accuracy: f64,
    best_accuracy: f64,
    tta_accuracy: Option<f64>,
}

/// Mean, standard deviation (with n − 1; 0 for one run) and range.
#[derive(Serialize)]
struct Spread {
    mean: f64,
    std: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Spread {
            mean,
            std: (squares / (values.len() - 1).max(1) as f64).sqrt(),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

pub(super) fn run(args: &Args, runs: u32, stop: &AtomicBool) -> Result<()> {
    let (folder, recipe) = prepare(args, runs)?;
    let path_of = |seed: u64| folder.join(format!("seed-{seed}"));
    let first = path_of(recipe.train.seed);
    let begun = if args.resume { Environment::read(&first.join("run.json"))? } else { None };
    let from = args.first_weights().or_else(|| begun.and_then(|environment| environment.from));
    let mut outcomes = Vec::new();
    let mut before: Option<PathBuf> = None;
    for i in 0..runs {
        let mut recipe = recipe.clone();
        recipe.train.seed += u64::from(i);
        let seed = recipe.train.seed;
        let reused = before.take().filter(|_| args.runs_reuse).map(|file| FirstWeights { file, new_head: false });
        let from = reused.or_else(|| from.clone());
        let (model, report) = one(args, recipe, &path_of(seed), from, stop).map_err(|e| {
            if !args.resume && !first.exists() {
                // Nothing came of it; it fails where there is more in the folder, and that is right.
                let _ = std::fs::remove_file(folder.join(RECIPE)).and_then(|()| std::fs::remove_dir(&folder));
            }
            if e.kind() != ErrorKind::Interrupted {
                return e;
            }
            let (folder, reuse) = (folder.display(), if args.runs_reuse { " --runs-reuse" } else { "" });
            e.hint(format!("the state is saved: `handgrad train --out {folder} --runs {runs}{reuse} --resume` goes on"))
        })?;
        before = Some(model);
        say(args.json, String::new())?;
        outcomes.push(Outcome {
            seed,
            accuracy: report.last.accuracy,
            best_accuracy: report.best_accuracy,
            tta_accuracy: report.tta_accuracy,
        });
    }
    let all = |value: fn(&Outcome) -> f64| Spread::of(&outcomes.iter().map(value).collect::<Vec<_>>());
    let tta: Option<Vec<f64>> = outcomes.iter().map(|outcome| outcome.tta_accuracy).collect();
    let summary = Summary {
        reuse: args.runs_reuse,
        accuracy: all(|outcome| outcome.accuracy),
        best_accuracy: all(|outcome| outcome.best_accuracy),
        tta_accuracy: tta.map(|values| Spread::of(&values)),
        runs: outcomes,
    };
    let file = folder.join(SUMMARY);
    write(&file, &serde_json::to_string_pretty(&summary).expect("plain data has a JSON form"))?;
    if args.json {
        return out::json(&summary);
    }
    let line = |name: &str, s: &Spread, what: &str| {
        let [mean, std, min, max] = [s.mean, s.std, s.min, s.max].map(|share| 100.0 * share);
        out::line(format!("{name:10} {mean:.2} % ± {std:.2} ({min:.2} to {max:.2}) {what}"))
    };
    line("accuracy:", &summary.accuracy, &format!("after the last epoch, {} runs", summary.runs.len()))?;
    line("", &summary.best_accuracy, "in the best epoch")?;
    if let Some(tta) = &summary.tta_accuracy {
        line("", tta, "over augmented passes")?;
    }
    out::line(format!("summary:   {}", file.display()))
}

/// The folder of the runs and their recipe: new ones, or those to go on with.
fn prepare(args: &Args, runs: u32) -> Result<(PathBuf, Recipe)> {
    if args.resume {
        let folder = args.out.clone().ok_or_else(|| {
            let e = Error::new(ErrorKind::Usage, "--resume", "without --out");
            e.expected("the folder of the runs").hint("--runs N --resume needs --out DIR")
        })?;
        let recipe = args.saved_recipe(&folder.join(RECIPE))?;
        check_seeds(&recipe, runs)?;
        return Ok((folder, recipe));
    }
    let recipe = args.recipe(args.recipe.as_deref().unwrap_or("quickstart"))?;
    check_seeds(&recipe, runs)?;
    let folder = RunFolder::for_several(args.out.as_deref(), &recipe.name);
    if folder.join(RECIPE).exists() || folder.join("recipe.toml").exists() {
        let e = Error::new(ErrorKind::Usage, folder.display(), "the folder already holds runs");
        return Err(e.expected("a new folder").hint("--resume continues them; another --out starts new ones"));
    }
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, &e))?;
    write(&folder.join(RECIPE), &recipe.to_toml()?)?;
    Ok((folder, recipe))
}

/// A recipe's file holds no seed from 2⁶³ on.
fn check_seeds(recipe: &Recipe, runs: u32) -> Result<()> {
    let seed = recipe.train.seed;
    match seed.checked_add(runs.into()) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(Error::new(ErrorKind::Usage, "--seed", seed).expected(format!("{runs} seeds below 2^63"))),
    }
}

/// One of the runs, unless it is done: its model's file and what it came to.
fn one(
    args: &Args,
    recipe: Recipe,
    path: &Path,
    from: Option<FirstWeights>,
    stop: &AtomicBool,
) -> Result<(PathBuf, Report)> {
    let begun = args.resume && path.join("recipe.toml").exists();
    let folder = if begun { RunFolder::open(Some(path), "") } else { RunFolder::create(Some(path), "") }?;
    if begun && folder.result().exists() {
        let file = folder.result();
        let text = std::fs::read_to_string(&file).map_err(|e| Error::io(&file, &e))?;
        let wrong = |e| Error::new(ErrorKind::Format, file.display(), e).expected("what `handgrad train` wrote");
        return Ok((folder.last(), serde_json::from_str(&text).map_err(wrong)?));
    }
    let (job, report) = train(args, Run { recipe, folder, resume: begun, from }, stop)?;
    Ok((job.folder.last(), report))
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |file| std::io::Write::write_all(file, text.as_bytes()).map_err(|e| Error::io(path, &e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_a_sample() {
        let Spread { mean, std, min, max } = Spread::of(&[0.5, 0.75, 1.0]);
        assert_eq!((mean, std, min, max), (0.75, 0.25, 0.5, 1.0));
        assert_eq!(Spread::of(&[0.5]).std, 0.0);
    }
}
