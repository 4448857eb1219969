//! `[data]`: the dataset and the way of an image into a batch.

use serde::Serialize;

use super::augment::read_augment;
use super::reader::Section;
use crate::Result;
use crate::data::Augment;
use crate::resample::Framing;

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
    /// How an image of any size comes to that size: in validation, and in training where no random crop is asked for.
    pub framing: Framing,
    /// What is subtracted from pixels and what they are divided by.
    pub normalise: Normalise,
    /// Random changes to training images.
    pub augment: Augment,
}

/// How pixels in 0..1 are normalised, per channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Normalise {
    /// By the statistics in the dataset's header, by ImageNet's, or not at all.
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
    /// [`IMAGENET`](crate::data::Normalise::IMAGENET).
    Imagenet,
    /// Pixels stay in 0..1.
    None,
}

impl DataRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        let mut s = root.section("data")?;
        let size = s.count("size", 32, 1..=4096)?;
        let data = DataRecipe {
            dataset: s.required_text("dataset")?,
            size,
            batch: s.count("batch", 256, 1..=65_536)?,
            drop_last: s.flag("drop_last", false)?,
            framing: read_framing(&mut s, size)?,
            normalise: Normalise::read(&mut s)?,
            augment: read_augment(&mut s)?,
        };
        if data.augment.pad > size as usize {
            let pad = data.augment.pad;
            return Err(s.error("augment", format!("pad {pad}")).expected(format!("at most the size, {size}")));
        }
        if data.augment.translate >= size as usize {
            let found = format!("translate {}", data.augment.translate);
            return Err(s.error("augment", found).expected(format!("less than the size, {size}")));
        }
        s.finish()?;
        Ok(data)
    }
}

/// A framing's name, or a section with more; what is cut to `size` can be no smaller than it.
fn read_framing(data: &mut Section<'_>, size: u32) -> Result<Framing> {
    #[derive(Clone, Copy)]
    enum By {
        Exact,
        Fill,
        Squash,
        Shorter,
    }
    let names = [("exact", By::Exact), ("fill", By::Fill), ("squash", By::Squash), ("shorter", By::Shorter)];
    let of = |by: By, to: u32| match by {
        By::Exact => Framing::Exact,
        By::Fill => Framing::Fill,
        By::Squash => Framing::Squash { to: (to as usize, to as usize) },
        By::Shorter => Framing::Shorter { to: to as usize },
    };
    if !data.is_table("framing") {
        return Ok(of(data.choice("framing", By::Exact, &names)?, size));
    }
    let mut s = data.section("framing")?;
    s.require("by");
    let by = s.choice("by", By::Exact, &names)?;
    let to = match by {
        By::Exact | By::Fill if s.has("by") => size,
        _ => s.count("to", size, size..=65_535)?,
    };
    s.finish()?;
    Ok(of(by, to))
}

impl Normalise {
    fn read(data: &mut Section<'_>) -> Result<Self> {
        if !data.is_table("normalise") {
            let (dataset, imagenet) = (("dataset", NormaliseBy::Dataset), ("imagenet", NormaliseBy::Imagenet));
            let names = [dataset, imagenet, ("none", NormaliseBy::None)];
            return data.choice("normalise", NormaliseBy::Dataset, &names).map(Normalise::Named);
        }
        let mut s = data.section("normalise")?;
        let mean = s.required_triple("mean", 0.0..=1.0)?;
        let std = s.required_triple("std", 1e-3..=1e3)?;
        s.finish()?;
        Ok(Normalise::Given { mean, std })
    }
}
