//! Some steps of a recipe without a run: what the rate finder and the estimate are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::evaluate::Feed;
use super::lsuv::{self, first_images, lsuv};
use super::{Setup, optimizer, train_config, whiten};
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
    loop {
        let mut batches = setup.train.epoch(epochs, 0)?;
        loop {
            // All batches of one step first: a gradient is divided by the images of all.
            let group = batches.by_ref().take(recipe.optimizer.accumulate as usize).collect::<Result<Vec<_>>>()?;
            if group.is_empty() {
                break;
            }
            let images: usize = group.iter().map(|batch| batch.targets().dim().0).sum();
            let mut loss = Some(0.0);
            for (i, batch) in group.iter().enumerate() {
                let (x, targets) = feed.views(batch);
                match setup.engine.train_micro_step(x, targets, Accumulate { total: images, add: i > 0 }) {
                    Ok(outcome) => {
                        let share = outcome.loss * outcome.images as f64 / images as f64;
                        loss = loss.map(|loss| loss + share);
                    }
                    Err(e) if e.kind() == ErrorKind::NonFinite => loss = None,
                    Err(e) => return Err(e),
                }
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
