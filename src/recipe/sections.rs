//! The sections of a recipe: their keys, defaults and ranges.

use std::fmt;
use std::ops::Bound::Excluded;

use serde::Serialize;

use super::reader::Section;
use crate::{Error, ErrorKind, Result};

/// `[data]`: the dataset and the way of an image into a batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataRecipe {
    /// `synth` (the built-in dataset), a dataset's name such as `cifar10`, or the path of an `.hgd` file.
    pub dataset: String,
    /// Height and width that the network sees, in pixels.
    pub size: u32,
    /// Images per batch.
    pub batch: u32,
    /// Leave out the last batch of an epoch if it is smaller than the others.
    pub drop_last: bool,
    /// What is subtracted from pixels and what they are divided by.
    pub normalise: Normalise,
    /// Random changes to training images.
    pub augment: Augment,
}

/// How pixels in 0..1 are normalised, per channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Normalise {
    /// By the statistics in the dataset's header, or not at all.
    Named(NormaliseBy),
    /// By these.
    Given {
        /// Red, green, blue.
        mean: [f64; 3],
        /// Red, green, blue; above 0.
        std: [f64; 3],
    },
}

/// The normalisations that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NormaliseBy {
    /// The dataset's own mean and standard deviation.
    Dataset,
    /// Pixels stay in 0..1.
    None,
}

/// Random changes to a training image: `"none"`, `"cifar"`, or a section of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Augment {
    /// Pad each side by this many pixels, reflected with the edge repeated, and cut a random window.
    pub pad: u32,
    /// Mirror left to right with probability ½.
    pub flip: bool,
}

impl Augment {
    /// No change.
    pub const NONE: Augment = Augment { pad: 0, flip: false };
    /// Pad 4 and flip: what E1's runs all trained with.
    pub const CIFAR: Augment = Augment { pad: 4, flip: true };
}

impl DataRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        let mut s = root.section("data")?;
        let data = DataRecipe {
            dataset: s.required_text("dataset")?,
            size: s.count("size", 32, 1..=4096)?,
            batch: s.count("batch", 256, 1..=65_536)?,
            drop_last: s.flag("drop_last", false)?,
            normalise: Normalise::read(&mut s)?,
            augment: Augment::read(&mut s)?,
        };
        if data.augment.pad > data.size {
            let (pad, size) = (data.augment.pad, data.size);
            return Err(s.error("augment", format!("pad {pad}")).expected(format!("at most the size, {size}")));
        }
        s.finish()?;
        Ok(data)
    }
}

impl Normalise {
    fn read(data: &mut Section<'_>) -> Result<Self> {
        if !data.is_table("normalise") {
            let names = [("dataset", NormaliseBy::Dataset), ("none", NormaliseBy::None)];
            return data.choice("normalise", NormaliseBy::Dataset, &names).map(Normalise::Named);
        }
        let mut s = data.section("normalise")?;
        let mean = s.required_triple("mean", 0.0..=1.0)?;
        let std = s.required_triple("std", 1e-3..=1e3)?;
        s.finish()?;
        Ok(Normalise::Given { mean, std })
    }
}

impl Augment {
    fn read(data: &mut Section<'_>) -> Result<Self> {
        if !data.is_table("augment") {
            return data.choice("augment", Augment::NONE, &[("none", Augment::NONE), ("cifar", Augment::CIFAR)]);
        }
        let mut s = data.section("augment")?;
        let augment = Augment { pad: s.count("pad", 0, 0..=4096)?, flip: s.flag("flip", false)? };
        s.finish()?;
        Ok(augment)
    }
}

/// `[train]`: the rest of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainRecipe {
    /// What every random number of the run follows from.
    pub seed: u64,
    /// ε in `[0, 1)`: targets are `(1 − ε)` of the class and `ε` spread over all.
    pub label_smoothing: f64,
    /// Minutes between checkpoints inside an epoch; 0 writes them at epoch ends alone.
    pub checkpoint_minutes: f64,
    /// Augmented passes that the last evaluation averages with the plain one; 0 evaluates plainly.
    pub tta: u32,
    /// Evaluate, and save as the model, a moving average of the weights that keeps this share of itself in each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// The arithmetic.
    pub precision: Precision,
}

/// The arithmetic of a run; what a backend lacks it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the name of a number format")]
pub enum Precision {
    F32,
    Bf16,
    Tf32,
    Fp16,
    Int8,
}

impl Precision {
    /// Each precision under its name.
    pub const ALL: [(&'static str, Precision); 5] = [
        ("f32", Precision::F32),
        ("bf16", Precision::Bf16),
        ("tf32", Precision::Tf32),
        ("fp16", Precision::Fp16),
        ("int8", Precision::Int8),
    ];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Precision::ALL.iter().find(|(_, p)| p == self).map_or("", |(name, _)| name))
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Precision::ALL.iter().find(|(n, _)| *n == name).map(|(_, p)| *p).ok_or_else(|| {
            let names = Precision::ALL.map(|(n, _)| n).join(", ");
            Error::new(ErrorKind::Usage, "precision", format!("\"{name}\"")).expected(format!("one of {names}"))
        })
    }
}

impl TrainRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        let mut s = root.section("train")?;
        let train = TrainRecipe {
            // TOML's integers have a sign: 63 bits.
            seed: s.optional_count("seed", 0..=i64::MAX as u64)?.unwrap_or(0),
            label_smoothing: s.number("label_smoothing", 0.0, 0.0..1.0)?,
            checkpoint_minutes: s.number("checkpoint_minutes", 5.0, 0.0..=1e6)?,
            tta: s.count("tta", 0, 0..=1000)?,
            ema: s.optional_number("ema", (Excluded(0.0), Excluded(1.0)))?,
            precision: s.choice("precision", Precision::F32, &Precision::ALL)?,
        };
        s.finish()?;
        Ok(train)
    }
}
