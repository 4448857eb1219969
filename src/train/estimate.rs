//! What a recipe would take here: a few measured steps.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::evaluate::Feed;
use super::walk::walk;
use crate::Result;
use crate::backend::Backend;
use crate::data::Dataset;
use crate::optim::Rates;
use crate::recipe::Recipe;
use crate::schedule::Position;

/// Steps that warm up, before those that are measured.
const WARM_UP: usize = 3;
/// Batches of the evaluation that is measured.
const EVALUATED: usize = 5;

/// What [`estimate`] measured, and what follows for the whole recipe.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Optimizer steps that were measured.
    pub steps: usize,
    /// Images per second of training, those that wait on data included: of the median step.
    pub images_per_second: f64,
    /// Images per second of evaluation.
    pub evaluated_per_second: f64,
    /// The loss of the first step.
    pub first_loss: f64,
    /// The mean loss of the last ten.
    pub last_loss: f64,
    /// Bytes that a run allocates: what `train` prints before it starts.
    pub peak_bytes: usize,
    /// Epochs of the recipe.
    pub epochs: u32,
    /// Hours of the whole recipe, an evaluation after each epoch included.
    pub hours: f64,
}

/// Measures `steps` optimizer steps of a recipe at the rates that it begins with, and a few batches of evaluation. `report`
/// is told steps done. `stop` set from outside ends it.
///
/// # Errors
/// What the recipe or the dataset gets wrong; kind [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) after `stop`,
/// [`ErrorKind::NonFinite`](crate::ErrorKind::NonFinite) where the loss is no finite number.
pub fn estimate<B: Backend>(
    recipe: &Recipe,
    dataset: &Arc<Dataset>,
    steps: usize,
    stop: &AtomicBool,
    mut report: impl FnMut(usize),
) -> Result<Estimate> {
    let phase = &recipe.phases[0];
    let (mut losses, mut seconds, mut before) = (Vec::new(), Vec::new(), Instant::now());
    let mut setup = walk::<B>(recipe, dataset, ("estimate", stop), |setup, reached| {
        let step_seconds = std::mem::replace(&mut before, Instant::now()).elapsed().as_secs_f64();
        if reached.step >= WARM_UP {
            seconds.push(step_seconds / reached.images as f64);
            report(seconds.len());
        }
        losses.push(reached.loss?);
        let steps_per_epoch = setup.train.steps_per_epoch().div_ceil(recipe.optimizer.accumulate as usize) as u64;
        let total_steps = steps_per_epoch * u64::from(phase.epochs());
        let step = (reached.step as u64).min(total_steps - 1);
        let rates = phase.schedule.rates(phase.lr, Position { step, steps_per_epoch, total_steps });
        (seconds.len() < steps).then_some(Rates { lookahead_alpha: None, ..rates })
    })?;
    if losses.len() < WARM_UP + steps {
        return Err(super::checkpoint::non_finite(losses.len() as u64, "the loss"));
    }
    seconds.sort_by(f64::total_cmp);
    let images_per_second = 1.0 / seconds[seconds.len() / 2].max(1e-12);

    let (mut feed, mut evaluated, mut measured) = (Feed::<B>::default(), 0, 0.0);
    for (i, batch) in setup.valid.epoch(0, 0)?.enumerate().take(EVALUATED + 1) {
        let batch = batch?;
        let (images, targets) = feed.views(&batch);
        let started = Instant::now();
        setup.engine.evaluate(images, targets)?;
        // The first one warms up, where there are others.
        if i > 0 || setup.valid.steps_per_epoch() == 1 {
            evaluated += images.dim().0;
            measured += started.elapsed().as_secs_f64();
        }
    }
    let evaluated_per_second = evaluated as f64 / measured.max(1e-12);
    let (trained, validated) = (setup.train.images_per_epoch() as f64, setup.valid.images_per_epoch() as f64);
    let epoch_seconds = trained / images_per_second + validated / evaluated_per_second;
    let last = &losses[losses.len() - losses.len().min(10)..];
    Ok(Estimate {
        steps,
        images_per_second,
        evaluated_per_second,
        first_loss: losses[0],
        last_loss: last.iter().sum::<f64>() / last.len() as f64,
        peak_bytes: setup.peak_bytes,
        epochs: recipe.epochs(),
        hours: f64::from(recipe.epochs()) * epoch_seconds / 3600.0,
    })
}
