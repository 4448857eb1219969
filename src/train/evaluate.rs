//! Loss and accuracy over a dataset.

use ndarray::{ArrayView2, ArrayView4};

use crate::Result;
use crate::backend::Backend;
use crate::data::{Batch, Loader};
use crate::engine::{Engine, Outcome};

/// Sums of [`Outcome`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Images seen.
    pub images: u64,
    /// The sum of their losses.
    pub loss: f64,
    /// Right at first guess.
    pub correct: u64,
    /// Right among five.
    pub correct5: u64,
}

impl Totals {
    /// Adds a batch.
    pub fn add(&mut self, outcome: &Outcome) {
        self.images += outcome.images as u64;
        self.loss += outcome.loss * outcome.images as f64;
        self.correct += outcome.correct as u64;
        self.correct5 += outcome.correct5 as u64;
    }

    fn share(&self, count: f64) -> f64 {
        if self.images == 0 { 0.0 } else { count / self.images as f64 }
    }

    /// The mean loss per image.
    pub fn mean_loss(&self) -> f64 {
        self.share(self.loss)
    }

    /// The share of images that are right at first guess.
    pub fn accuracy(&self) -> f64 {
        self.share(self.correct as f64)
    }

    /// The share of images that are right among five guesses.
    pub fn top5(&self) -> f64 {
        self.share(self.correct5 as f64)
    }
}

/// A batch as the elements of a backend; keeps the buffers that the reference needs for that.
pub struct Feed<B: Backend> {
    images: Vec<B::Elem>,
    targets: Vec<B::Elem>,
}

impl<B: Backend> Default for Feed<B> {
    fn default() -> Self {
        Feed { images: Vec::new(), targets: Vec::new() }
    }
}

impl<B: Backend> Feed<B> {
    /// The bytes that it comes to keep for batches of `batch` images: none where the backend takes f32 as they are.
    pub(super) fn bytes_for(batch: usize, (height, width): (usize, usize), outputs: usize) -> usize {
        if size_of::<B::Elem>() == size_of::<f32>() {
            return 0;
        }
        let image = height.saturating_mul(width).saturating_mul(3).saturating_add(outputs);
        image.saturating_mul(batch).saturating_mul(size_of::<B::Elem>())
    }

    /// Images `[n, h, w, 3]` and targets `[n, outputs]` of a batch.
    pub fn views<'a>(&'a mut self, batch: &'a Batch) -> (ArrayView4<'a, B::Elem>, ArrayView2<'a, B::Elem>) {
        let images = B::from_f32(batch.images_slice(), &mut self.images);
        let targets = B::from_f32(batch.targets_slice(), &mut self.targets);
        (
            ArrayView4::from_shape(batch.images().dim(), images).expect("a batch is contiguous"),
            ArrayView2::from_shape(batch.targets().dim(), targets).expect("a batch is contiguous"),
        )
    }

    /// The targets alone, where a device makes the images ([`Batch::pixels`]).
    pub fn targets<'a>(&'a mut self, batch: &'a Batch) -> ArrayView2<'a, B::Elem> {
        let targets = B::from_f32(batch.targets_slice(), &mut self.targets);
        ArrayView2::from_shape(batch.targets().dim(), targets).expect("a batch is contiguous")
    }
}

/// Evaluates all of a loader's images.
///
/// # Errors
/// What reading the dataset or running the model meets.
pub fn evaluate<B: Backend>(engine: &mut Engine<B>, loader: &Loader, feed: &mut Feed<B>) -> Result<Totals> {
    let mut totals = Totals::default();
    for batch in loader.epoch(0, 0)? {
        let batch = batch?;
        totals.add(&match batch.pixels() {
            Some(pixels) => engine.evaluate_pixels(pixels, feed.targets(&batch))?,
            None => {
                let (images, targets) = feed.views(&batch);
                engine.evaluate(images, targets)?
            }
        });
    }
    Ok(totals)
}
