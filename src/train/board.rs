//! What a run tells TensorBoard.

use image::ImageEncoder;
use image::codecs::png::PngEncoder;

use super::Job;
use crate::backend::Real;
use crate::data::{Batch, Normalise};
use crate::io::metrics::EpochMetrics;
use crate::io::tensorboard::{EventFile, Histogram};
use crate::{Error, ErrorKind, Params, Result};

/// Pictures in a row of the grid, and the most rows.
const GRID: (usize, usize) = (8, 4);
/// Pixels between them.
const GAP: usize = 2;
/// Small pictures are drawn with larger pixels, up to about this side.
const SIDE: usize = 96;

/// The event files of a run. Steps count the optimizer's, from 1, over all phases.
pub(super) struct Board {
    events: EventFile,
    histogram: Histogram,
}

/// What one optimizer step has to tell.
pub(super) struct Step {
    /// Mean over the step's images.
    pub loss: f64,
    pub lr: f64,
    pub momentum: f64,
    pub images_per_second: f64,
}

impl Board {
    /// Begins a file for the steps from `first` on, if the recipe asks for one.
    pub fn begin(job: &Job, first: u64) -> Result<Option<Self>> {
        if !job.recipe.train.tensorboard {
            return Ok(None);
        }
        let events = EventFile::create(job.folder.tensorboard(), first)?;
        Ok(Some(Board { events, histogram: Histogram::new() }))
    }

    /// The curves of training.
    pub fn step(&mut self, step: u64, told: Step) -> Result<()> {
        self.events.write(step, |summary| {
            summary.scalar("train/loss", told.loss);
            summary.scalar("train/lr", told.lr);
            summary.scalar("train/momentum", told.momentum);
            summary.scalar("train/images_per_second", told.images_per_second);
        })
    }

    /// A batch as the network sees it.
    pub fn images(&mut self, step: u64, batch: &Batch, normalise: Normalise) -> Result<()> {
        let grid = Grid::of(batch, normalise);
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(&grid.pixels, grid.width as u32, grid.height as u32, image::ExtendedColorType::Rgb8)
            .map_err(|e| Error::new(ErrorKind::Io, "the picture of a batch", e))?;
        self.events.write(step, |summary| summary.png("train/batch", (grid.height, grid.width), &png))
    }

    /// An epoch's metrics, and how large its last weights and gradients are.
    pub fn epoch<E: Real>(&mut self, step: u64, metrics: &EpochMetrics, params: &Params<E>) -> Result<()> {
        self.events.write(step, |summary| {
            summary.scalar("epoch/train_loss", metrics.train_loss);
            summary.scalar("valid/loss", metrics.valid_loss);
            summary.scalar("valid/accuracy", metrics.accuracy);
            summary.scalar("valid/top5", metrics.top5);
        })?;
        for info in params.table().iter().filter(|info| info.used) {
            let gradients = (!info.frozen).then(|| ("gradients", params.grads()));
            for (kind, values) in std::iter::once(("weights", params.values())).chain(gradients) {
                self.histogram.count(&values[info.range()]);
                let tag = format!("{kind}/{}", info.name);
                self.events.write(step, |summary| summary.histogram(&tag, &self.histogram))?;
            }
        }
        Ok(())
    }

    /// Waits until all of it is on disk: before a checkpoint says that the steps so far are done.
    pub fn sync(&mut self) -> Result<()> {
        self.events.sync()
    }
}

/// Pictures beside and below each other, on white.
struct Grid {
    height: usize,
    width: usize,
    /// RGB.
    pixels: Vec<u8>,
}

impl Grid {
    /// The first images of a batch, their normalisation undone.
    fn of(batch: &Batch, normalise: Normalise) -> Self {
        let (n, height, width, channels) = batch.images().dim();
        let zoom = (SIDE / height.max(width)).max(1);
        let (columns, rows) = (n.min(GRID.0), n.div_ceil(GRID.0).min(GRID.1));
        let (cell_height, cell_width) = (height * zoom + GAP, width * zoom + GAP);
        let (full_height, full_width) = (rows * cell_height + GAP, columns * cell_width + GAP);
        let mut pixels = vec![255; full_height * full_width * channels];
        for (i, image) in batch.images().outer_iter().take(columns * rows).enumerate() {
            let (top, left) = (GAP + i / columns * cell_height, GAP + i % columns * cell_width);
            for (y, x) in (0..height * zoom).flat_map(|y| (0..width * zoom).map(move |x| (y, x))) {
                let at = ((top + y) * full_width + left + x) * channels;
                for (c, pixel) in pixels[at..at + channels].iter_mut().enumerate() {
                    let value = image[[y / zoom, x / zoom, c]] * normalise.std[c] + normalise.mean[c];
                    *pixel = (value * 255.0).round() as u8;
                }
            }
        }
        Grid { height: full_height, width: full_width, pixels }
    }
}
