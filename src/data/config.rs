//! How a loader reads its dataset, and what of that makes no sense.

use super::augment::{Augment, Normalise};
use super::dataset::Dataset;
use super::format::{MAX_SIDE, Split};
use super::order::Shuffle;
use super::prepare::Desk;
use crate::resample::Framing;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// The most outputs of a target, as of a model.
const MAX_OUTPUTS: usize = 65_536;

/// How a [`super::Loader`] reads its dataset.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// The part of the dataset to read.
    pub split: Split,
    /// Images per batch. More than the split holds means the whole split.
    pub batch: usize,
    /// Height and width of the batches' images.
    pub size: (usize, usize),
    /// How a stored image comes to that size, where no random crop ([`Augment::crop`]) does.
    pub framing: Framing,
    /// The order of an epoch.
    pub shuffle: Shuffle,
    /// Random changes.
    pub augment: Augment,
    /// How bytes become floats.
    pub normalise: Normalise,
    /// Leave the images as bytes, which a device moves, mirrors and normalises ([`super::Batch::pixels`]): where
    /// [`LoaderConfig::keeps_bytes`].
    pub pixels: bool,
    /// Leave out the last batch of an epoch if it is not full.
    pub drop_last: bool,
    /// The length of a target: the dataset's classes, or more where a model has outputs that no image is of.
    pub outputs: usize,
    /// Label smoothing ε: targets are `(1−ε)·onehot + ε/outputs`.
    pub label_smoothing: f32,
    /// The seed of everything random.
    pub key: Key,
    /// Which of several runs of one seed this is.
    pub run: u64,
    /// Threads that prepare batches.
    pub threads: usize,
    /// Batches prepared ahead of the one in use; each costs the memory of a batch.
    pub prefetch: usize,
}

impl LoaderConfig {
    /// For training: shuffled, the last batch kept, normalised by the dataset's statistics, images of exactly the size,
    /// no augmentation, seed 0. `size` is the dataset's if fixed (else 0, to be set).
    pub fn train(dataset: &Dataset, batch: usize) -> Self {
        // One thread prepares hundreds of thousands of CIFAR images a second: most cores belong to the training.
        let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 4).clamp(1, 8));
        LoaderConfig {
            split: Split::Train,
            batch,
            size: dataset.fixed_size().unwrap_or((0, 0)),
            framing: Framing::Exact,
            shuffle: Shuffle::Full,
            augment: Augment::NONE,
            normalise: Normalise { mean: dataset.mean(), std: dataset.std() },
            pixels: false,
            drop_last: false,
            outputs: dataset.classes().len(),
            label_smoothing: 0.0,
            key: Key::new(0),
            run: 0,
            threads,
            prefetch: threads + 2,
        }
    }

    /// For evaluation: the validation split in the file's order.
    pub fn valid(dataset: &Dataset, batch: usize) -> Self {
        LoaderConfig { split: Split::Valid, shuffle: Shuffle::No, ..LoaderConfig::train(dataset, batch) }
    }

    /// The bytes that a loader of `dataset` keeps: its batches, the list of its samples and an epoch's order, and what
    /// its threads work with.
    pub fn bytes(&self, dataset: &Dataset) -> usize {
        let samples = dataset.split(self.split).len();
        let batch = self.batch.min(samples);
        let image = self.size.0.saturating_mul(self.size.1).saturating_mul(super::format::CHANNELS);
        // Labels and numbers of samples, and placements.
        let of_image = size_of::<u32>() * if self.pixels { 6 } else { 2 };
        let pixel = if self.pixels { size_of::<u8>() } else { size_of::<f32>() };
        let of_image =
            of_image.saturating_add(image.saturating_mul(pixel)).saturating_add(size_of::<f32>() * self.outputs);
        let one = batch.saturating_mul(of_image);
        let batches = self.prefetch.saturating_add(1).saturating_mul(one);
        let threads = self.threads.min(samples.div_ceil(batch.max(1)));
        let desk = Desk::bytes_for(self, self.largest_sides(dataset), batch, self.outputs);
        let desks = threads.saturating_mul(desk);
        batches.saturating_add(2 * size_of::<u32>() * samples).saturating_add(desks)
    }

    /// Whether training images are stored bytes that are moved, mirrored and normalised, and nothing else: a device can do
    /// that. Images that are resampled, mapped, recoloured, erased or mixed are made by the host.
    pub fn keeps_bytes(&self) -> bool {
        let augment = &self.augment;
        !self.resamples() && !augment.changes_pixels() && !augment.mixes() && augment.erase.is_none()
    }

    /// Whether images are resampled, rather than taken pixel by pixel.
    pub(super) fn resamples(&self) -> bool {
        self.augment.crop.is_some() || self.framing != Framing::Exact
    }

    /// The largest height and the largest width of any image of the split.
    pub(super) fn largest_sides(&self, dataset: &Dataset) -> (usize, usize) {
        if let Some(size) = dataset.fixed_size() {
            return size;
        }
        let sides = dataset.split(self.split).iter().filter_map(|&i| dataset.size_and_label(i as usize).ok());
        sides.fold((0, 0), |most, (h, w, _)| (most.0.max(h), most.1.max(w)))
    }

    pub(super) fn check(&self, dataset: &Dataset) -> Result<()> {
        let usage = |subject: &str, found: String, expected: &str| {
            Err(Error::new(ErrorKind::Usage, subject, found).expected(expected))
        };
        if self.batch == 0 || self.threads == 0 || self.prefetch == 0 {
            let found = format!("batch {}, {} threads, prefetch {}", self.batch, self.threads, self.prefetch);
            return usage("loader", found, "positive numbers");
        }
        if self.threads > 1024 || self.prefetch > 4096 {
            let found = format!("{} threads, prefetch {}", self.threads, self.prefetch);
            return usage("loader", found, "at most 1024 threads and 4096 batches ahead");
        }
        let classes = dataset.classes().len();
        if !(classes..=MAX_OUTPUTS).contains(&self.outputs) {
            let found = format!("targets of {} outputs for {classes} classes", self.outputs);
            return usage("loader", found, &format!("{classes} to {MAX_OUTPUTS}"));
        }
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return usage("label smoothing", self.label_smoothing.to_string(), "0 to 1");
        }
        let Normalise { mean, std } = self.normalise;
        if mean.iter().any(|v| !v.is_finite()) || std.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            let found = format!("mean {mean:?}, std {std:?}");
            let e = Error::new(ErrorKind::Usage, "normalisation", found).expected("finite means, positive deviations");
            return Err(e.hint("images of one colour have no deviation: give a mean and a std, or normalise by none"));
        }
        if dataset.split(self.split).is_empty() {
            let found = format!("no image in the split {}", self.split);
            return Err(Error::new(ErrorKind::Usage, dataset.path().display(), found).expected("at least one"));
        }
        self.augment.check()?;
        if self.pixels && !self.keeps_bytes() {
            return usage(
                "loader",
                "images left as bytes".into(),
                "images that are not resampled, recoloured or mixed",
            );
        }
        if self.resamples() {
            self.check_resampling()?;
        } else {
            check_sizes(dataset, self.split, self.size)?;
        }
        if self.augment.pad > self.size.0.min(self.size.1) {
            return usage("augmentation", format!("pad {}", self.augment.pad), "at most the image's shorter side");
        }
        if self.augment.translate > 0 && self.augment.translate >= self.size.0.min(self.size.1) {
            let found = format!("translate {}", self.augment.translate);
            return usage("augmentation", found, "less than the image's shorter side");
        }
        Ok(())
    }

    fn check_resampling(&self) -> Result<()> {
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&self.size.0) || !sides.contains(&self.size.1) {
            let e = Error::new(ErrorKind::Usage, "image size", format!("{}×{}", self.size.0, self.size.1));
            return Err(e.expected(format!("the height and width of the batches' images, 1 to {MAX_SIDE}")));
        }
        if self.augment.crop.is_some() { Ok(()) } else { self.framing.check(self.size) }
    }
}

/// Every image of the split has the size of the batches. A size of 0 is one that nobody chose, because the dataset
/// has no single one.
fn check_sizes(dataset: &Dataset, split: Split, size: (usize, usize)) -> Result<()> {
    if dataset.fixed_size() == Some(size) {
        return Ok(());
    }
    let samples = dataset.split(split);
    let (first_height, first_width, _) = dataset.size_and_label(samples[0] as usize)?;
    let chosen = size.0 > 0 && size.1 > 0;
    let (height, width) = if chosen { size } else { (first_height, first_width) };
    for &i in samples {
        let (h, w, _) = dataset.size_and_label(i as usize)?;
        if (h, w) != (height, width) {
            let asked = if chosen { "as asked".to_owned() } else { format!("as sample {}", samples[0]) };
            let example = if chosen { format!("{height}x{width}") } else { "128x128".to_owned() };
            return Err(Error::new(
                ErrorKind::Shape,
                dataset.path().display(),
                format!("sample {i} has {h}×{w} pixels"),
            )
            .expected(format!("{height}×{width} for every sample, {asked}"))
            .hint(format!(
                "say how they come to one size (data.framing, data.augment.crop), or convert them: \
                 data-tools convert SRC OUT.hgd --size {example}"
            )));
        }
    }
    if chosen {
        return Ok(());
    }
    // The whole file varies, but not this split: the batches still need the size to be said.
    Err(Error::new(ErrorKind::Usage, "image size", format!("{}×{}", size.0, size.1))
        .expected(format!("{height}×{width}, which every sample of the split {split} has")))
}
