//! `[train]`: the rest of a run.

use std::fmt;
use std::ops::Bound::Excluded;

use serde::Serialize;

use super::reader::{ABOVE_ZERO, Section};
use crate::Result;
use crate::backend::Precision;
use crate::infer::Views;
use crate::train::whiten::Whiten;

/// `[train]`: the rest of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainRecipe {
    /// What every random number of the run follows from.
    pub seed: u64,
    /// ε in `[0, 1)`: targets are `(1 − ε)` of the class and `ε` spread over all.
    pub label_smoothing: f64,
    /// Minutes between checkpoints inside an epoch; 0 writes them at epoch ends alone.
    pub checkpoint_minutes: f64,
    /// What the last evaluation averages, besides the plain evaluation of each epoch.
    pub tta: Tta,
    /// Evaluate, and save as the model, a moving average of the weights that keeps this share of itself in each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// The arithmetic.
    pub precision: Precision,
    /// Write TensorBoard's event files into the run's folder.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,
    /// Make the first convolution whiten the patches under its window before training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whiten: Option<Whiten>,
}

/// What the last evaluation averages: `tta = 4` or `tta = "flip"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Tta {
    /// The probabilities of the plain pass and of so many augmented ones; 0 evaluates plainly.
    Passes(u32),
    /// The scores of these views of each image.
    Views(Views),
}

impl fmt::Display for Tta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tta::Passes(passes) => write!(f, "{passes} augmented passes"),
            Tta::Views(views) => write!(f, "the views {views}"),
        }
    }
}

impl Tta {
    fn read(s: &mut Section<'_>) -> Result<Self> {
        if s.is_text("tta") {
            return s.choice("tta", Views::One, &Views::NAMES).map(Tta::Views);
        }
        s.count("tta", 0, 0..=1000).map(Tta::Passes)
    }
}

/// `train.whiten`: `true` for the defaults, or a section.
fn read_whiten(train: &mut Section<'_>) -> Result<Option<Whiten>> {
    let default = Whiten::default();
    if !train.has("whiten") || !train.is_table("whiten") {
        return Ok(train.flag("whiten", false)?.then_some(default));
    }
    let mut s = train.section("whiten")?;
    let whiten = Whiten {
        images: s.count("images", default.images, 1..=1_000_000)?,
        eps: s.number("eps", default.eps, ABOVE_ZERO)?,
    };
    s.finish()?;
    Ok(Some(whiten))
}

impl TrainRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        let mut s = root.section("train")?;
        let train = TrainRecipe {
            // TOML's integers have a sign: 63 bits.
            seed: s.optional_count("seed", 0..=i64::MAX as u64)?.unwrap_or(0),
            label_smoothing: s.number("label_smoothing", 0.0, 0.0..1.0)?,
            checkpoint_minutes: s.number("checkpoint_minutes", 5.0, 0.0..=1e6)?,
            tta: Tta::read(&mut s)?,
            ema: s.optional_number("ema", (Excluded(0.0), Excluded(1.0)))?,
            precision: s.choice("precision", Precision::F32, &Precision::ALL)?,
            tensorboard: s.flag("tensorboard", false)?,
            whiten: read_whiten(&mut s)?,
        };
        s.finish()?;
        Ok(train)
    }
}
