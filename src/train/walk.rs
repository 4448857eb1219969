//! Some steps of a recipe without a run: what the rate finder and the estimate are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::evaluate::Feed;
use super::lsuv::{self, first_images, lsuv};
use super::{Setup, images_in_group, optimizer, train_config, whiten};
use crate::backend::Backend;
use crate::data::Dataset;
use crate::engine::Accumulate;
use crate::optim::{Rates, Update};
use crate::recipe::Recipe;
use crate::{Error, ErrorKind, Result};

/// A step whose gradients are there.
pub(super) struct Reached {
    /// Counted from 0.
    pub step: usize,
    /// Of all its images; `None` where it is no finite number.
    pub loss: Option<f64>,
    /// Of all its micro-batches.
    pub images: usize,
}

/// Trains a new model by the recipe (its seed, data, optimizer and clipping) at the rates that `rates` gives, until it gives
/// none; returns the model and the loaders. `what` is the command that a stop interrupts.
pub(super) fn walk<B: Backend>(
    recipe: &Recipe,
    dataset: &Arc<Dataset>,
    (what, stop): (&str, &AtomicBool),
    mut rates: impl FnMut(&Setup<B>, Reached) -> Option<Rates>,
) -> Result<Setup<B>> {
    let mut setup = Setup::<B>::new(recipe, dataset, false)?;
    if recipe.phases.first().is_some_and(|phase| phase.lsuv) {
        let images = first_images::<B>(&setup.valid, lsuv::IMAGES)?;
        lsuv(&mut setup.engine, images.view())?;
    }
    if let Some(whiten) = recipe.train.whiten {
        whiten::first_layer(&mut setup.engine, dataset, &train_config(recipe, dataset), whiten)?;
    }
    setup.engine.keep_on_device(true);
    let mut optimizer = optimizer(&recipe.optimizer, setup.engine.params())?;
    let mut feed = Feed::<B>::default();
    let (mut epochs, mut step) = (0, 0);
    let accumulate = recipe.optimizer.accumulate as usize;
    loop {
        let (mut batches, mut batch) = (setup.train.epoch(epochs, 0)?, 0);
        loop {
            // A gradient is divided by the images of all batches of its step.
            let images = images_in_group(&setup.train, batch, accumulate);
            let (mut loss, before) = (Some(0.0), batch);
            for part in batches.by_ref().take(accumulate) {
                let part = part?;
                let (x, targets) = feed.views(&part);
                let share = Accumulate { total: images, add: batch > before };
                batch += 1;
                match setup.engine.train_micro_step(x, targets, share) {
                    Ok(outcome) => {
                        let share = outcome.loss * outcome.images as f64 / images as f64;
                        loss = loss.map(|loss| loss + share);
                    }
                    Err(e) if e.kind() == ErrorKind::NonFinite => loss = None,
                    Err(e) => return Err(e),
                }
            }
            if batch == before {
                break;
            }
            let Some(rates) = rates(&setup, Reached { step, loss, images }) else {
                setup.engine.fetch()?;
                return Ok(setup);
            };
            setup.engine.update(Update {
                optimizer: &mut *optimizer,
                rates,
                clip_norm: recipe.optimizer.clip_norm,
                ema: setup.ema.as_mut(),
                last: false,
            })?;
            step += 1;
            if stop.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Interrupted, what, format!("stopped after {step} steps")));
            }
        }
        epochs += 1;
    }
}
