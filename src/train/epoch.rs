//! One epoch of a run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::board::Step;
use super::{Event, Totals, Trainer, checkpoint, evaluate, images_in_group};
use crate::Result;
use crate::backend::Backend;
use crate::engine::Accumulate;
use crate::io::metrics::EpochMetrics;
use crate::optim::{Optimizer, Rates, Update};
use crate::recipe::Phase;
use crate::schedule::Position;

/// A batch whose loss is not known yet: a device works on it.
struct Queued {
    /// Batches of the epoch, with this one.
    batch: usize,
    /// The optimizer step that it ends, counted from the run's beginning, and its rates.
    ends: Option<(u64, Rates)>,
}

/// What waits for losses.
#[derive(Default)]
struct Waiting {
    batches: VecDeque<Queued>,
    /// Of the optimizer step whose losses are coming in.
    of_step: Totals,
}

impl<B: Backend> Trainer<'_, B> {
    /// Trains one epoch, from wherever the checkpoint left it, and evaluates.
    pub(super) fn epoch(
        &mut self,
        phase: &Phase,
        first_epoch: u64,
        optimizer: &mut dyn Optimizer<B::Elem>,
        stop: &AtomicBool,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<EpochMetrics> {
        let recipe = &self.job.recipe;
        let accumulate = recipe.optimizer.accumulate as usize;
        let batches = self.train.steps_per_epoch();
        let steps_per_epoch = batches.div_ceil(accumulate) as u64;
        let (started, seconds_before) = (Instant::now(), self.progress.seconds);
        let (mut rates, mut pending, mut waiting) = (Rates::of(phase.lr), 0, Waiting::default());
        let mut epoch = self.train.epoch(self.progress.epochs, self.progress.batch)?;
        while let Some(batch) = epoch.next().transpose()? {
            let in_group = self.progress.batch % accumulate;
            if in_group == 0 {
                pending = images_in_group(&self.train, self.progress.batch, accumulate);
            }
            let step_of_run = self.step() + u64::from(in_group == 0);
            if let Some(board) = self.board.as_mut().filter(|_| self.progress.batch == 0) {
                board.images(step_of_run, &batch, self.train.config().normalise)?;
            }
            let share = Accumulate { total: pending, add: in_group > 0 };
            match batch.pixels() {
                Some(pixels) => self.engine.queue_pixels(pixels, self.feed.targets(&batch), share)?,
                None => {
                    let (images, targets) = self.feed.views(&batch);
                    self.engine.queue_micro_step(images, targets, share)?;
                }
            }
            self.progress.batch += 1;
            let batch = self.progress.batch;
            if !batch.is_multiple_of(accumulate) && batch < batches {
                waiting.batches.push_back(Queued { batch, ends: None });
                self.take_losses(&mut waiting, false, report)?;
                continue;
            }
            let step = (self.progress.epochs - first_epoch) * steps_per_epoch + ((batch - 1) / accumulate) as u64;
            let total_steps = steps_per_epoch * u64::from(phase.epochs());
            let at = Position { step, steps_per_epoch, total_steps };
            rates = phase.schedule.rates(phase.lr, at);
            let ahead = recipe.optimizer.lookahead;
            rates.lookahead_alpha = ahead.and_then(|ahead| ahead.alpha_at(at.after().share()));
            self.engine.update(Update {
                optimizer,
                rates,
                clip_norm: recipe.optimizer.clip_norm,
                ema: self.ema.as_mut(),
                last: at.after().step == total_steps && ahead.is_some_and(|ahead| ahead.finish),
            })?;

            self.progress.seconds = seconds_before + started.elapsed().as_secs_f64();
            self.progress.engine_step = self.engine.step();
            waiting.batches.push_back(Queued { batch, ends: Some((step_of_run, rates)) });
            self.take_losses(&mut waiting, false, report)?;
            if batch < batches {
                self.save_inside_epoch(&mut waiting, optimizer, stop, report)?;
            }
        }
        self.take_losses(&mut waiting, true, report)?;
        self.progress.seconds = seconds_before + started.elapsed().as_secs_f64();
        let trained_seconds = self.progress.epoch_seconds().max(1e-9);
        self.fetch(optimizer)?;
        self.swap_averages()?;
        let totals = evaluate(&mut self.engine, &self.valid, &mut self.feed);
        self.swap_averages()?;
        let totals = totals?;
        checkpoint::check_finite(self.engine.params(), self.engine.step())?;
        if !totals.mean_loss().is_finite() {
            return Err(checkpoint::non_finite(self.engine.step(), "the validation loss after it"));
        }
        self.progress.seconds = seconds_before + started.elapsed().as_secs_f64();
        Ok(EpochMetrics {
            epoch: self.progress.epochs + 1,
            train_loss: self.progress.train.mean_loss(),
            valid_loss: totals.mean_loss(),
            accuracy: totals.accuracy(),
            top5: totals.top5(),
            lr: rates.lr,
            seconds: self.progress.epoch_seconds(),
            images_per_second: self.progress.train.images as f64 / trained_seconds,
        })
    }

    /// Counts the losses that are known, or, where it has to be, all of them, and reports the steps that they end.
    fn take_losses(&mut self, waiting: &mut Waiting, all: bool, report: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        while let Some(outcome) = self.engine.outcome(all)? {
            self.progress.train.add(&outcome);
            waiting.of_step.add(&outcome);
            let Some(Queued { batch, ends }) = waiting.batches.pop_front() else { break };
            let Some((step, rates)) = ends else { continue };
            let images_per_second = self.progress.train.images as f64 / self.progress.epoch_seconds().max(1e-9);
            let loss = std::mem::take(&mut waiting.of_step).mean_loss();
            if let Some(board) = &mut self.board {
                let momentum = rates.momentum.unwrap_or(self.job.recipe.optimizer.momentum());
                board.step(step, Step { loss, lr: rates.lr, momentum, images_per_second })?;
            }
            report(Event::Step {
                epoch: self.progress.epochs + 1,
                batch: (batch, self.train.steps_per_epoch()),
                loss: self.progress.train.mean_loss(),
                images_per_second,
            });
        }
        Ok(())
    }

    /// A checkpoint where the clock or a signal asks for one.
    fn save_inside_epoch(
        &mut self,
        waiting: &mut Waiting,
        optimizer: &mut dyn Optimizer<B::Elem>,
        stop: &AtomicBool,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let minutes = self.job.recipe.train.checkpoint_minutes;
        let stopping = stop.load(Ordering::Relaxed);
        let due = minutes > 0.0 && self.saved_at.elapsed() >= Duration::from_secs_f64(minutes * 60.0);
        if stopping || due {
            // What is saved has the losses of all steps that the weights have seen.
            self.take_losses(waiting, true, report)?;
            self.fetch(optimizer)?;
            self.save(optimizer)?;
            report(Event::Checkpoint(&self.job.folder.checkpoint()));
        }
        if stopping { Err(self.interrupted()) } else { Ok(()) }
    }
}
