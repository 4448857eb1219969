//! All that a run needs to go on as if it had never stopped.
//!
//! Randomness is keyed, so a position is enough: no generator has a state to save.

use serde::{Deserialize, Serialize};

use super::Job;
use super::evaluate::Totals;
use crate::backend::{Host, Real, simd_level};
use crate::graph::Graph;
use crate::io::model_file::{self, Extra, ModelInfo};
use crate::optim::Optimizer;
use crate::{Error, ErrorKind, Params, Result};

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done.
    pub epochs: u64,
    /// Batches done of the epoch under way.
    pub batch: usize,
    /// Steps of the engine so far: what names their randomness.
    pub engine_step: u64,
    /// Losses and hits of the epoch under way.
    pub train: Totals,
    /// Seconds of the whole run so far.
    pub seconds: f64,
    /// Seconds of the epochs that are done.
    pub seconds_of_epochs: f64,
}

impl Progress {
    /// Seconds of the epoch under way.
    pub fn epoch_seconds(&self) -> f64 {
        self.seconds - self.seconds_of_epochs
    }

    /// Whether a phase that starts after `first_epoch` epochs has begun: its optimizer then has a past.
    pub fn in_phase(&self, first_epoch: u64) -> bool {
        self.epochs > first_epoch || self.batch > 0
    }

    /// The epoch under way is done.
    pub fn next_epoch(&mut self) {
        self.epochs += 1;
        self.batch = 0;
        self.train = Totals::default();
        self.seconds_of_epochs = self.seconds;
    }
}

/// An optimizer's saved state: steps, and moments by name.
pub(super) type Moments<E> = (u64, Vec<(String, Vec<E>)>);
pub(super) fn save<E: Real>(_: &Job, _: &Graph, _: &Params<E>, _: &Progress, _: &dyn Optimizer<E>) -> Result<()> { Ok(()) }
pub(super) fn load<E: Real>(_: &Job, _: &mut Params<E>) -> Result<Option<(Progress, Moments<E>)>> { Ok(None) }
pub(super) fn model_info(_: &Job, _: &[(&str, String)]) -> Result<ModelInfo> { Ok(ModelInfo) }
