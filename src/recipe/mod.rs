//! Recipes: an experiment as a text file. docs/recipes.md lists every key.
//!
//! ```
//! use handgrad::recipe::Recipe;
//! let mut recipe = Recipe::builtin("cifar10-resnet")?;
//! recipe.set("optimizer.weight_decay=1e-4")?;
//! assert_eq!(recipe.optimizer.weight_decay, 1e-4);
//! let wrong = recipe.set("optimizer.weight_decya=1e-4").unwrap_err().to_string();
//! assert!(wrong.contains("did you mean `weight_decay`?"));
//! # Ok::<(), handgrad::Error>(())
//! ```

mod augment;
mod builtin;
mod data;
mod edit;
mod model;
mod optimizer;
mod phase;
mod reader;

mod suggest;
#[cfg(test)]
mod tests;
mod train;

use std::io::Read;
use std::path::Path;

use serde::Serialize;

pub use data::{DataRecipe, Normalise, NormaliseBy};
pub use model::ModelRecipe;
pub use optimizer::{AdamKeys, DecayKind, GroupRecipe, LookaheadKeys, Method, MuonKeys, OptimizerRecipe, RAdamKeys};
pub use phase::{Length, Phase};
pub use suggest::nearest;
pub use train::{TrainRecipe, Tta};

pub use crate::backend::Precision;

use crate::optim::Rates;
use crate::schedule::Position;
use crate::{Error, ErrorKind, Result};
use reader::{Section, Source};

/// No recipe is longer than this; a longer file is something else.
const MAX_BYTES: u64 = 1 << 20;

/// An experiment: model, data, optimizer, phases of training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// The built-in recipe's name, or the file's name without `.toml`. Not part of the text.
    #[serde(skip)]
    pub name: String,
    /// One line that says what it is.
    pub title: String,
    /// The network.
    pub model: ModelRecipe,
    /// The images.
    pub data: DataRecipe,
    /// How gradients become steps.
    pub optimizer: OptimizerRecipe,
    /// Seed, loss, checkpoints, evaluation.
    pub train: TrainRecipe,
    /// What is run, in order; at least one.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
}

impl Recipe {
    /// Reads a recipe's text; `file` names it in errors.
    ///
    /// # Errors
    /// `Usage` for a text that is no TOML, an unknown key (with the nearest known one), a missing key, or a value of
    /// the wrong type or outside its range; each with file, line and key.
    pub fn parse(text: &str, file: &str) -> Result<Recipe> {
        let name = Path::new(file).file_stem().map_or(file.into(), |s| s.to_string_lossy());
        Recipe::read(&Source { name: file, text, lines: true }, &name)
    }

    fn read(source: &Source<'_>, name: &str) -> Result<Recipe> {
        let table = source.parse()?;
        let mut root = Section::root(source, &table);
        // At once: a misspelt [data] would else be reported as what it lacks.
        root.refuse_unknown(&["title", "model", "data", "optimizer", "train", "phase"])?;
        let (model, data) = (ModelRecipe::read(&mut root)?, DataRecipe::read(&mut root)?);
        let (optimizer, train) = (OptimizerRecipe::read(&mut root)?, TrainRecipe::read(&mut root)?);
        let phase = |section| Phase::read(section, optimizer.has_momentum());
        let phases = root.sections("phase")?.into_iter().map(phase).collect::<Result<_>>()?;
        let title = root.optional_text("title")?.unwrap_or_else(|| name.to_string());
        let recipe = Recipe { name: name.to_string(), title, model, data, optimizer, train, phases };
        if recipe.phases.is_empty() {
            return Err(root.error("phase", "missing").hint("add a section: [[phase]] with `epochs = …` and `lr = …`"));
        }
        if recipe.phases.iter().try_fold(0u32, |sum, p| sum.checked_add(p.epochs())).is_none() {
            return Err(root.error("phase", "too many epochs together"));
        }
        Ok(recipe)
    }

    /// The built-in recipe of this name.
    ///
    /// # Errors
    /// `Usage` for an unknown name, with the nearest known one.
    pub fn builtin(name: &str) -> Result<Recipe> {
        match builtin::ALL.iter().find(|(n, _)| *n == name) {
            Some((name, text)) => Recipe::parse(text, name),
            None => {
                let hint = match nearest(name, builtin::ALL.iter().map(|(n, _)| *n)) {
                    Some(near) => format!("did you mean `{near}`? `handgrad recipes` lists them all"),
                    None => "`handgrad recipes` lists them all".into(),
                };
                let error = Error::new(ErrorKind::Usage, "recipe", format!("no built-in recipe \"{name}\""));
                Err(error.expected("a built-in name or the path of a .toml file").hint(hint))
            }
        }
    }

    /// Every built-in recipe, in the order of `handgrad recipes`.
    pub fn builtins() -> impl Iterator<Item = Result<Recipe>> {
        builtin::ALL.iter().map(|(name, text)| Recipe::parse(text, name))
    }

    /// A built-in recipe by name, else the file at that path.
    ///
    /// # Errors
    /// Those of [`Recipe::builtin`] and [`Recipe::parse`]; `Io` if a path that ends in `.toml` or exists is unreadable.
    pub fn load(name_or_path: &str) -> Result<Recipe> {
        let path = Path::new(name_or_path);
        let is_file = path.extension().is_some_and(|e| e == "toml") || path.components().count() > 1 || path.is_file();
        if builtin::ALL.iter().any(|(n, _)| *n == name_or_path) || !is_file {
            return Recipe::builtin(name_or_path);
        }
        Recipe::load_file(path)
    }

    /// The recipe in a file.
    ///
    /// # Errors
    /// Those of [`Recipe::parse`]; `Io` if it is unreadable.
    pub fn load_file(path: &Path) -> Result<Recipe> {
        let mut text = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|e| Error::io(path, &e))?;
        let wrong = |found| Err(Error::new(ErrorKind::Usage, path.display(), found).expected("a recipe in TOML"));
        if text.len() as u64 > MAX_BYTES {
            return wrong("longer than 1 MiB");
        }
        match String::from_utf8(text) {
            Ok(text) => Recipe::parse(&text, &path.to_string_lossy()),
            Err(_) => wrong("not UTF-8 text"),
        }
    }

    /// The whole recipe as a text, defaults included: [`Recipe::parse`] of it gives the same recipe.
    ///
    /// # Errors
    /// `Usage` if a field was set from outside to what TOML cannot say, such as a seed above 63 bits.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::new(ErrorKind::Usage, format!("recipe {}", self.name), e))
    }

    /// The rates over the whole run as `(epochs so far, rates)`, at most some thousands of points: for pictures.
    pub fn rates_curve(&self, steps_per_epoch: u64) -> Vec<(f64, Rates)> {
        let steps_per_epoch = steps_per_epoch.max(1);
        let of = |epochs: u32| steps_per_epoch.saturating_mul(epochs.into());
        let stride = (of(self.epochs()) / 4000).max(1);
        let (mut curve, mut before) = (Vec::new(), 0u32);
        for phase in &self.phases {
            let total_steps = of(phase.epochs());
            let last = total_steps.saturating_sub(1);
            let steps = (0..last).step_by(usize::try_from(stride).unwrap_or(usize::MAX)).chain([last]);
            curve.extend(steps.map(|step| {
                let epochs = f64::from(before) + step as f64 / steps_per_epoch as f64;
                (epochs, phase.schedule.rates(phase.lr, Position { step, steps_per_epoch, total_steps }))
            }));
            before = before.saturating_add(phase.epochs());
        }
        curve
    }

    /// The learning rates of [`Recipe::rates_curve`].
    pub fn lr_curve(&self, steps_per_epoch: u64) -> Vec<(f64, f64)> {
        self.rates_curve(steps_per_epoch).into_iter().map(|(epochs, rates)| (epochs, rates.lr)).collect()
    }

    /// Epochs of all phases together.
    pub fn epochs(&self) -> u32 {
        self.phases.iter().fold(0, |sum, p| sum.saturating_add(p.epochs()))
    }
}
