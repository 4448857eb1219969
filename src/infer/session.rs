//! Memory and a plan for batches: predicts without allocating.

use std::fmt;

use ndarray::{ArrayView2, ArrayView4, ArrayViewMut2};

use super::memory::{Device, Memory};
use super::model::Inner;
use super::{Model, Views};
use crate::backend::parallel;
use crate::plan::{Arena, Pixels, Plan};
use crate::{Error, ErrorKind, Result};

/// Predicts batches of up to a fixed number of images; its calls on the CPU allocate nothing (inside a rayon pool: entering
/// the global one from outside may).
///
/// ```
/// # use handgrad::io::model_file::{ModelInfo, Preprocessing};
/// # use handgrad::{Params, infer::Model, models, rng::Key};
/// # let graph = models::build("convnet2", &Default::default())?;
/// # let preprocessing = Preprocessing::new((32, 32), [0.5; 3], [0.25; 3]);
/// # let info = ModelInfo::new((0..10).map(|i| i.to_string()), preprocessing);
/// # let model = Model::from_parts(&graph, &Params::<f32>::new(&graph, Key::new(1))?, info)?;
/// use ndarray::{Array2, Array4};
/// let mut session = model.session(8)?;
/// let images = Array4::<u8>::zeros((3, 32, 32, 3)); // RGB
/// let mut probabilities = Array2::zeros((3, 10));
/// session.predict_into(images.view(), probabilities.view_mut())?;
/// assert!((probabilities.row(0).sum() - 1.0).abs() < 1e-6);
/// # Ok::<(), handgrad::Error>(())
/// ```
pub struct Session {
    pub(super) model: Model,
    pub(super) runner: Runner,
}

impl Session {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The most images of one call.
    pub fn max_batch(&self) -> usize {
        self.runner.plan.max_batch()
    }

    /// The same, looking at several views of each image and averaging the scores, at the price of a run for each.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Unsupported`] where memory is too small.
    pub fn with_views(mut self, views: Views) -> Result<Self> {
        self.runner.several = match views {
            Views::One => None,
            _ => Some(Several {
                views,
                view: Arena::new(self.runner.input.len())?,
                scores: Arena::new(self.runner.plan.classes() * self.runner.plan.max_batch())?,
            }),
        };
        Ok(self)
    }

    /// Bytes of memory that it holds, the shared weights apart, the GPU's included where it runs there.
    pub fn bytes(&self) -> usize {
        let Runner { memory, input, several, .. } = &self.runner;
        let several = several.as_ref().map_or(0, |several| several.view.len() + several.scores.len());
        (memory.len() + input.len() + several) * size_of::<f32>()
    }

    /// Writes the class probabilities `[n, classes]` of `n` RGB images `[n, height, width, 3]` of the model's size.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where `images` or `out` do not fit, [`ErrorKind::NonFinite`] where a score is not
    /// finite, [`ErrorKind::Device`] where a GPU fails.
    pub fn predict_into(&mut self, images: ArrayView4<'_, u8>, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.check_out(images.dim().0, &out)?;
        let inner = self.model.inner();
        self.runner.run_bytes(inner, images)?;
        self.write(images.dim().0, out)
    }

    /// [`Session::predict_into`] on images that are normalised already, as a training loop's batches are.
    ///
    /// # Errors
    /// As [`Session::predict_into`].
    pub fn predict_normalised_into(&mut self, images: ArrayView4<'_, f32>, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.check_out(images.dim().0, &out)?;
        self.scores(images)?;
        self.write(images.dim().0, out)
    }

    /// The scores `[n, outputs]` before softmax, also of outputs without a name, of normalised images
    /// `[n, height, width, 3]`.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where `images` do not fit, [`ErrorKind::Device`] where a GPU fails.
    pub fn scores(&mut self, images: ArrayView4<'_, f32>) -> Result<ArrayView2<'_, f32>> {
        let (inner, n) = (self.model.inner(), images.dim().0);
        self.runner.check_images(images.dim())?;
        if images.is_standard_layout() {
            self.runner.run_on(inner, images)?;
        } else {
            let input = self.runner.input.all_mut();
            input.iter_mut().zip(images).for_each(|(to, &from)| *to = from);
            self.runner.run(inner, n)?;
        }
        Ok(self.runner.scores(n))
    }

    /// The scores of images as bytes, on a device alone ([`Session::takes_pixels`]).
    #[cfg(feature = "train")]
    pub(super) fn scores_of_pixels(&mut self, pixels: Pixels<'_>, n: usize) -> Result<ArrayView2<'_, f32>> {
        let Runner { plan, memory, .. } = &mut self.runner;
        memory.run_pixels(plan, self.model.inner(), pixels, n)?;
        Ok(self.runner.scores(n))
    }

    /// Whether a device makes numbers of bytes: views are made on the host, of numbers.
    #[cfg(feature = "train")]
    pub(super) fn takes_pixels(&self) -> bool {
        self.runner.takes_pixels()
    }

    fn check_out(&self, n: usize, out: &ArrayViewMut2<'_, f32>) -> Result<()> {
        let wanted = (n, self.model.classes().len());
        if out.dim() == wanted {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Shape, "out", format!("{:?}", out.dim())).expected(format!("{wanted:?}")))
    }

    fn write(&self, n: usize, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.runner.probabilities(self.model.inner(), n, |i, c, p| out[[i, c]] = p)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("max_batch", &self.max_batch()).finish_non_exhaustive()
    }
}

/// A plan with all memory that it needs besides the weights.
pub(super) struct Runner {
    plan: Plan,
    memory: Memory,
    /// Normalised images.
    input: Arena<f32>,
    several: Option<Several>,
    /// Where images as bytes are placed: where they are.
    unmoved: Vec<[i32; 4]>,
}

/// What several views of an image take.
struct Several {
    views: Views,
    /// One of them.
    view: Arena<f32>,
    /// The mean so far.
    scores: Arena<f32>,
}

impl Runner {
    pub fn new(inner: &Inner, max_batch: usize, device: Device) -> Result<Self> {
        let (plan, memory) = Memory::new(inner, max_batch, device)?;
        let image = inner.graph.shape(inner.graph.images()).len();
        // A batch has at most 2^20 images of fewer than 2^31 numbers.
        let input = Arena::new(image * max_batch)?;
        let unmoved = vec![[0; 4]; if memory.takes_pixels() { max_batch } else { 0 }];
        Ok(Runner { plan, memory, input, several: None, unmoved })
    }

    fn takes_pixels(&self) -> bool {
        self.several.is_none() && self.memory.takes_pixels()
    }

    fn check_images(&self, (n, h, w, c): (usize, usize, usize, usize)) -> Result<()> {
        let graph = self.plan.graph();
        let shape = graph.shape(graph.images());
        let max_batch = self.plan.max_batch();
        if (h, w, c) == (shape.h, shape.w, shape.c) && (1..=max_batch).contains(&n) {
            return Ok(());
        }
        let e = Error::new(ErrorKind::Shape, "images", format!("[{n}, {h}, {w}, {c}]"));
        let e = e.expected(format!("1 to {max_batch} images of {shape}"));
        Err(if n > max_batch { e.hint("a session for larger batches takes more") } else { e })
    }

    /// Runs the model on images as bytes, which a device normalises, if there is one.
    fn run_bytes(&mut self, inner: &Inner, images: ArrayView4<'_, u8>) -> Result<()> {
        self.check_images(images.dim())?;
        let n = images.dim().0;
        if let Some(bytes) = images.to_slice().filter(|_| self.takes_pixels()) {
            let Runner { plan, memory, unmoved, .. } = self;
            let pixels = Pixels { bytes, placements: &unmoved[..n], table: inner.pixels.as_flattened() };
            return memory.run_pixels(plan, inner, pixels, n);
        }
        self.feed_bytes(inner, images)?;
        self.run(inner, n)
    }

    /// Normalises images into the input buffer.
    pub fn feed_bytes(&mut self, inner: &Inner, images: ArrayView4<'_, u8>) -> Result<()> {
        self.check_images(images.dim())?;
        let (n, h, w, _) = images.dim();
        let row = 3 * w;
        parallel::rows_mut(&mut self.input.all_mut()[..n * h * row], row, row, |start, to| {
            let (i, y) = (start / row / h, start / row % h);
            for (x, pixel) in to.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                for (c, value) in pixel.iter_mut().enumerate() {
                    *value = inner.pixels[c][usize::from(images[[i, y, x, c]])];
                }
            }
        });
        Ok(())
    }

    /// Runs the model on the first `n` images of the input buffer.
    pub fn run(&mut self, inner: &Inner, n: usize) -> Result<()> {
        let shape = inner.graph.shape(inner.graph.images());
        let Runner { plan, memory, input, several, .. } = self;
        let images = ArrayView4::from_shape((n, shape.h, shape.w, shape.c), &input.all()[..n * shape.len()]);
        let images = images.expect("the slice is as long as its shape says");
        infer(plan, memory, inner, several.as_mut(), images)
    }

    /// Runs the model on contiguous images that lie elsewhere.
    fn run_on(&mut self, inner: &Inner, images: ArrayView4<'_, f32>) -> Result<()> {
        let Runner { plan, memory, several, .. } = self;
        infer(plan, memory, inner, several.as_mut(), images)
    }

    /// The scores `[n, outputs]` of the last run.
    fn scores(&self, n: usize) -> ArrayView2<'_, f32> {
        match &self.several {
            None => self.memory.logits(&self.plan, n),
            Some(several) => {
                let outputs = self.plan.classes();
                ArrayView2::from_shape((n, outputs), &several.scores.all()[..n * outputs])
                    .expect("a slice of that length")
            }
        }
    }

    /// Hands the softmax of the last run's scores to `put(image, class, probability)`, class by class that has a name.
    pub fn probabilities(&self, inner: &Inner, n: usize, mut put: impl FnMut(usize, usize, f32)) -> Result<()> {
        let classes = inner.info.classes.len();
        for (i, scores) in self.scores(n).outer_iter().enumerate() {
            let (largest, log_sum) = log_sum_exp(scores.iter().copied());
            if !log_sum.is_finite() || !largest.is_finite() {
                return Err(non_finite(i));
            }
            let normaliser = largest + log_sum;
            scores
                .iter()
                .take(classes)
                .enumerate()
                .for_each(|(c, &s)| put(i, c, (f64::from(s) - normaliser).exp() as f32));
        }
        Ok(())
    }
}

/// Runs the plan on images, or on each of several views of them, whose mean scores it then leaves in `several`.
fn infer(
    plan: &Plan,
    memory: &mut Memory,
    inner: &Inner,
    several: Option<&mut Several>,
    images: ArrayView4<'_, f32>,
) -> Result<()> {
    let Some(Several { views, view, scores }) = several else { return memory.run(plan, inner, images) };
    let (n, shape) = (images.dim().0, inner.graph.shape(inner.graph.images()));
    let pixels = images.to_slice().expect("checked to be contiguous");
    let mean = &mut scores.all_mut()[..n * plan.classes()];
    mean.fill(0.0);
    for one in views.all() {
        let to = &mut view.all_mut()[..pixels.len()];
        one.write(pixels, shape, to);
        let images = ArrayView4::from_shape(images.dim(), &*to).expect("as long as the images");
        memory.run(plan, inner, images)?;
        mean.iter_mut().zip(memory.logits(plan, n)).for_each(|(mean, score)| *mean += one.weight * score);
    }
    Ok(())
}

/// The largest score, and log Σ exp(score − largest): finite for finite scores.
pub(super) fn log_sum_exp(scores: impl Iterator<Item = f32> + Clone) -> (f64, f64) {
    let largest = scores.clone().fold(f64::NEG_INFINITY, |m, s| m.max(f64::from(s)));
    let sum: f64 = scores.map(|s| (f64::from(s) - largest).exp()).sum();
    (largest, sum.ln())
}

/// The error of a score that is no number.
pub(super) fn non_finite(image: usize) -> Error {
    let e = Error::new(ErrorKind::NonFinite, format!("image {image}"), "a class score that is not finite");
    e.hint("the model's training went wrong, or a channel's last batch had no variance (the recipes -fixed avoid that)")
}
