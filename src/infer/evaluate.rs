//! Loss, accuracy and confusions of a model over a dataset, with or without test-time augmentation.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::ArrayView1;
use serde::Serialize;

use super::session::{log_sum_exp, non_finite};
use super::{Device, Model, Session, Views};
use crate::data::{Augment, Dataset, Loader, LoaderConfig, Normalise, Split};
use crate::plan::Arena;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// How to evaluate.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalConfig {
    /// The part of the dataset.
    pub split: Split,
    /// Images per batch.
    pub batch: usize,
    /// Augmented passes whose probabilities are averaged with those of the plain pass.
    pub tta: u32,
    /// Views of each image whose scores each pass averages.
    pub views: Views,
    /// The augmentation of those passes; what changes whole batches is left out.
    pub augment: Augment,
    /// The seed of the augmentation.
    pub seed: u64,
    /// How many of the images with the highest losses to name.
    pub top_losses: usize,
    /// Where the model runs.
    pub device: Device,
}

impl Default for EvalConfig {
    fn default() -> Self {
        EvalConfig {
            split: Split::Valid,
            batch: 256,
            tta: 0,
            views: Views::One,
            augment: Augment::CIFAR,
            seed: 0,
            top_losses: 0,
            device: Device::Cpu,
        }
    }
}

/// How good a model is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Images seen.
    pub images: u64,
    /// The share of images whose most probable class is right.
    pub accuracy: f64,
    /// The share of images whose class is among the five most probable.
    pub top5: f64,
    /// The mean of −log p(class).
    pub loss: f64,
    /// How often each (class, prediction) occurred; predictions that are no class are outputs without a name.
    #[serde(skip)]
    pub pairs: BTreeMap<(usize, usize), u64>,
    /// The images with the highest losses, the highest first: as many as were asked for.
    pub top_losses: Vec<TopLoss>,
}

/// An image that a model finds hard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopLoss {
    /// Its place in the split.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The most probable class.
    pub predicted: usize,
    /// −log p of its class.
    pub loss: f64,
    /// How probable the most probable class is.
    pub probability: f64,
}

impl Evaluation {
    /// Images of a class, and how many of them are right.
    pub fn of_class(&self, class: usize) -> (u64, u64) {
        let images = self.pairs.range((class, 0)..=(class, usize::MAX)).map(|(_, n)| n).sum();
        (images, self.pairs.get(&(class, class)).copied().unwrap_or(0))
    }

    /// The confusion matrix of `classes` classes, row by row: the true class is the row.
    pub fn confusion(&self, classes: usize) -> Vec<u64> {
        let pair = |i: usize| self.pairs.get(&(i / classes, i % classes)).copied().unwrap_or(0);
        (0..classes * classes).map(pair).collect()
    }
}

/// Evaluates a model, on the CPU on the current rayon pool. Accuracies count images, so the batch size changes none.
///
/// Test-time augmentation averages the probabilities of the plain pass and of `tta` augmented ones (the published
/// CIFAR-10 progression: 4). Each pass has the mean scores of its views.
///
/// Outputs without a name take their part in the softmax; an image that scores highest there is wrong.
///
/// # Errors
/// Kind [`ErrorKind::Usage`] where the dataset's classes are not the model's or the split is empty,
/// [`ErrorKind::Shape`] where its images have another size and the model's framing is exact, [`ErrorKind::NonFinite`] where a score is not finite;
/// those of [`Model::session_on`].
pub fn evaluate(model: &Model, dataset: &Arc<Dataset>, config: &EvalConfig) -> Result<Evaluation> {
    check_classes(model, dataset)?;
    let batch = config.batch.min(dataset.split(config.split).len().max(1));
    let mut session = model.session_on(config.device, batch)?.with_views(config.views)?;
    let mut sums = Sums { most: config.top_losses, ..Sums::default() };
    if config.tta == 0 {
        pass(&mut session, dataset, config, 0, |i, scores, label| {
            let (largest, log_sum) = log_sum_exp(scores.iter().copied());
            let loss = largest + log_sum - f64::from(scores[label]);
            sums.add(i, scores, label, (loss, (-log_sum).exp()));
        })?;
        return Ok(sums.finish());
    }
    let outputs = model.graph().shape(model.graph().output()).c;
    let mut probabilities = Arena::<f32>::new(dataset.split(config.split).len().saturating_mul(outputs))?;
    let weight = 1.0 / (f64::from(config.tta) + 1.0);
    for augmented in 0..=config.tta {
        pass(&mut session, dataset, config, augmented, |i, scores, label| {
            let (largest, log_sum) = log_sum_exp(scores.iter().copied());
            let mean = &mut probabilities.all_mut()[i * outputs..(i + 1) * outputs];
            for (mean, &score) in mean.iter_mut().zip(scores) {
                *mean += (weight * (f64::from(score) - largest - log_sum).exp()) as f32;
            }
            if augmented == config.tta {
                // A probability can round to 0, its logarithm would be infinite.
                let loss = -f64::from(mean[label]).max(f64::MIN_POSITIVE).ln();
                let most = mean.iter().fold(0.0, |most: f32, &p| most.max(p));
                sums.add(i, ArrayView1::from(&*mean), label, (loss, most.into()));
            }
        })?;
    }
    Ok(sums.finish())
}

/// One pass over the split in the file's order; `each` gets an image's place in it, its scores, its label.
fn pass(
    session: &mut Session,
    dataset: &Arc<Dataset>,
    config: &EvalConfig,
    augmented: u32,
    mut each: impl FnMut(usize, ArrayView1<'_, f32>, usize),
) -> Result<()> {
    let preprocessing = &session.model().info().preprocessing;
    let as_f32 = |values: [f64; 3]| values.map(|v| v as f32);
    let mut loader = LoaderConfig {
        split: config.split,
        size: preprocessing.size,
        framing: preprocessing.framing,
        normalise: Normalise { mean: as_f32(preprocessing.mean), std: as_f32(preprocessing.std) },
        augment: if augmented == 0 { Augment::NONE } else { config.augment.of_images() },
        key: Key::new(config.seed).with_name("tta"),
        run: u64::from(augmented),
        ..LoaderConfig::valid(dataset, config.batch)
    };
    loader.pixels = session.takes_pixels() && loader.keeps_bytes();
    let mut place = 0;
    for batch in Loader::new(Arc::clone(dataset), loader)?.epoch(0, 0)? {
        let batch = batch?;
        let scores = match batch.pixels() {
            Some(pixels) => session.scores_of_pixels(pixels, batch.len())?,
            None => session.scores(batch.images())?,
        };
        for (scores, &label) in scores.outer_iter().zip(batch.labels()) {
            if scores.iter().any(|score| !score.is_finite()) {
                return Err(non_finite(place));
            }
            each(place, scores, label as usize);
            place += 1;
        }
    }
    Ok(())
}

fn check_classes(model: &Model, dataset: &Dataset) -> Result<()> {
    let (ours, theirs) = (model.classes(), dataset.classes());
    if ours == theirs {
        return Ok(());
    }
    let subject = dataset.path().display().to_string();
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(ours.len().min(theirs.len()));
    let name = |classes: &[String]| classes.get(first).map_or("none".to_owned(), |name| format!("{name:?}"));
    let found = format!("{} classes, number {first} is {}", theirs.len(), name(theirs));
    let e = Error::new(ErrorKind::Usage, subject, found);
    Err(e.expected(format!("the model's {} classes, number {first} being {}", ours.len(), name(ours))))
}

#[derive(Default)]
struct Sums {
    images: u64,
    correct: u64,
    correct5: u64,
    loss: f64,
    pairs: BTreeMap<(usize, usize), u64>,
    /// The highest losses so far, and how many are wanted.
    top: Vec<TopLoss>,
    most: usize,
}

impl Sums {
    /// Counts an image with its loss and its highest probability; among equal scores the class with the lowest number
    /// comes first, as in an argmax.
    fn add(&mut self, index: usize, scores: ArrayView1<'_, f32>, label: usize, (loss, probability): (f64, f64)) {
        let best = (0..scores.len()).fold(0, |best, c| if scores[c] > scores[best] { c } else { best });
        let ahead = |c: &usize| scores[*c] > scores[label] || (scores[*c] == scores[label] && *c < label);
        self.images += 1;
        self.correct += u64::from(best == label);
        self.correct5 += u64::from((0..scores.len()).filter(ahead).count() < 5);
        self.loss += loss;
        *self.pairs.entry((label, best)).or_default() += 1;
        // Of equal losses the first image comes first.
        let rank = self.top.partition_point(|other| other.loss >= loss);
        if rank < self.most {
            self.top.insert(rank, TopLoss { index, label, predicted: best, loss, probability });
            self.top.truncate(self.most);
        }
    }

    fn finish(self) -> Evaluation {
        let share = |count: f64| count / self.images.max(1) as f64;
        Evaluation {
            images: self.images,
            accuracy: share(self.correct as f64),
            top5: share(self.correct5 as f64),
            loss: share(self.loss),
            pairs: self.pairs,
            top_losses: self.top,
        }
    }
}
