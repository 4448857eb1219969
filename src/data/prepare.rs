//! From stored bytes to a batch: what one thread does.

use std::sync::Arc;

use super::LoaderConfig;
use super::augment::{Mixer, Normalise, PixelTable, Placement, Rows, place};
use super::batch::{Buffers, Pool};
use super::dataset::{Dataset, Sample};
use super::order::Sampler;
use crate::resample::{Frame, Resampler, Tone};
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// What all epochs of a loader share.
pub(super) struct Source {
    pub dataset: Arc<Dataset>,
    pub config: LoaderConfig,
    pub sampler: Sampler,
    pub pool: Arc<Pool>,
    /// Of (seed, run).
    pub key: Key,
    table: PixelTable,
    tone: Tone,
    /// What `table` and `tone` leave to be done, as factor and summand of each channel.
    finish: Option<[[f32; 2]; 3]>,
    /// Of any image of the split.
    largest: (usize, usize),
}

/// What a thread works with: allocated once, used for every image.
pub(super) struct Desk {
    columns: Vec<usize>,
    resampler: Resampler,
    /// An image between two passes, where one is not enough.
    image: Vec<f32>,
    mixer: Mixer,
}

impl Desk {
    /// Whether an image is resampled first and placed afterwards.
    fn places_later(config: &LoaderConfig) -> bool {
        config.resamples() && config.augment.moves()
    }

    fn image_len(config: &LoaderConfig) -> usize {
        let augment = &config.augment;
        let needed = Desk::places_later(config) || augment.affine.is_some() || augment.mixes();
        if needed { 3 * config.size.0 * config.size.1 } else { 0 }
    }

    /// The bytes of a desk for images of up to the size `largest`, `batch` of them with targets of `outputs` numbers.
    pub fn bytes_for(config: &LoaderConfig, largest: (usize, usize), batch: usize, outputs: usize) -> usize {
        let resampler = if config.resamples() { Resampler::bytes_for(largest, config.size) } else { 0 };
        let mixer = if config.augment.mixes() { Mixer::bytes_for(batch, outputs) } else { 0 };
        let image = size_of::<f32>() * Desk::image_len(config) + size_of::<usize>() * config.size.1;
        resampler.saturating_add(image).saturating_add(mixer)
    }
}

impl Source {
    pub fn new(dataset: Arc<Dataset>, config: LoaderConfig, sampler: Sampler, pool: Arc<Pool>) -> Result<Self> {
        // Machines that cannot resample are told now, not by a thread.
        Resampler::new()?;
        // Colours are changed before normalisation.
        let later = config.augment.changes_pixels();
        let normalise = if later { &Normalise::NONE } else { &config.normalise };
        let finish = (later && config.normalise != Normalise::NONE).then(|| config.normalise.as_line());
        let table = PixelTable::new(normalise);
        let tone = Tone::normalised(normalise.mean.map(f64::from), normalise.std.map(f64::from));
        let key = config.key.with_name("data").with(config.run);
        let largest = config.largest_sides(&dataset);
        Ok(Source { dataset, config, sampler, pool, key, table, tone, finish, largest })
    }

    /// A desk for one thread.
    pub fn desk(&self) -> Result<Desk> {
        let mut resampler = Resampler::new()?;
        if self.config.resamples() {
            resampler.reserve(self.largest, self.config.size);
        }
        let mut image = Vec::new();
        let len = Desk::image_len(&self.config);
        if image.try_reserve_exact(len).is_err() {
            let e = Error::new(ErrorKind::Unsupported, "loader", format!("no memory for an image of {len} numbers"));
            return Err(e.hint("use smaller images"));
        }
        image.resize(len, 0.0);
        let mut mixer = Mixer::default();
        if self.config.augment.mixes() {
            mixer.reserve(self.pool.shape.batch, self.pool.shape.outputs);
        }
        Ok(Desk { columns: Vec::with_capacity(self.config.size.1), resampler, image, mixer })
    }

    pub fn steps(&self) -> usize {
        let (n, batch) = (self.sampler.len(), self.pool.shape.batch);
        if self.config.drop_last { n / batch } else { n.div_ceil(batch) }
    }

    /// Prepares the batch of these samples, which has this number in the epoch.
    pub fn fill(&self, epoch: u64, number: usize, samples: &[u32], desk: &mut Desk) -> Result<Buffers> {
        let mut buffers = self.pool.take()?;
        let key = self.key.with(epoch);
        let shape = &self.pool.shape;
        buffers.labels.clear();
        buffers.samples.clear();
        buffers.samples.extend_from_slice(samples);
        buffers.placements.clear();
        let smoothing = self.config.label_smoothing;
        let off = smoothing / shape.outputs as f32;
        let mut images = buffers.images.chunks_exact_mut(shape.image_len());
        let mut pixels = buffers.pixels.chunks_exact_mut(shape.image_len());
        let targets = buffers.targets.chunks_exact_mut(shape.outputs);
        for (&i, target) in samples.iter().zip(targets) {
            let sample = self.dataset.sample(i as usize)?;
            let i = u64::from(i);
            let placement = self.config.augment.draw(key.with(i), self.key.with_name("sample").with(i), epoch);
            // A batch has memory for one or the other.
            if let Some(pixels) = pixels.next() {
                pixels.copy_from_slice(sample.pixels);
                buffers.placements.push(placement.as_ints());
            } else if let Some(image) = images.next() {
                self.image(&sample, key.with(i), placement, desk, image);
            }
            target.fill(off);
            target[sample.label as usize] = 1.0 - smoothing + off;
            buffers.labels.push(sample.label);
        }
        if !self.config.pixels {
            self.change_batch(key.with_name("batch").with(number as u64), &mut buffers, desk);
        }
        Ok(buffers)
    }

    /// What happens to the images of a batch together.
    fn change_batch(&self, key: Key, buffers: &mut Buffers, desk: &mut Desk) {
        let shape = &self.pool.shape;
        let n = buffers.labels.len();
        let images = &mut buffers.images[..n * shape.image_len()];
        let rows = Rows { n, images, targets: &mut buffers.targets[..n * shape.outputs] };
        self.config.augment.change_batch(key, shape, rows, &mut desk.image, &mut desk.mixer);
    }

    /// Writes the image that `key` makes of a sample.
    fn image(&self, sample: &Sample<'_>, key: Key, placement: Placement, desk: &mut Desk, out: &mut [f32]) {
        self.framed(sample, key, placement, desk, out);
        let LoaderConfig { augment, size, .. } = &self.config;
        if let Some(affine) = &augment.affine
            && let Some(map) = affine.draw(key, *size)
        {
            desk.image.copy_from_slice(out);
            map.apply(&desk.image, *size, affine.outside, out);
        }
        if let Some(jitter) = &augment.jitter {
            jitter.apply(key, out);
        }
        if let Some(line) = &self.finish {
            let finish = |pixel: &mut [f32; 3]| {
                pixel.iter_mut().zip(line).for_each(|(value, [factor, summand])| *value = *value * factor + summand);
            };
            out.as_chunks_mut().0.iter_mut().for_each(finish);
        }
    }

    /// Writes a sample at the batch's size, cut, moved and mirrored.
    fn framed(&self, sample: &Sample<'_>, key: Key, placement: Placement, desk: &mut Desk, out: &mut [f32]) {
        let LoaderConfig { augment, size, framing, .. } = &self.config;
        if !self.config.resamples() {
            self.table.convert(sample, placement, &mut desk.columns, out);
            return;
        }
        let stored = (sample.height, sample.width);
        let frame = match &augment.crop {
            Some(crop) => Frame::of(crop.draw(key, stored), *size),
            None => framing.frame_of(stored, *size),
        };
        if Desk::places_later(&self.config) {
            desk.resampler.fill(sample.pixels, sample.width, &frame, &self.tone, &mut desk.image);
            place(&desk.image, *size, placement, &mut desk.columns, out, |to, pixel| *to = *pixel);
        } else {
            let frame = Frame { flip: placement.flip, ..frame };
            desk.resampler.fill(sample.pixels, sample.width, &frame, &self.tone, out);
        }
    }
}
