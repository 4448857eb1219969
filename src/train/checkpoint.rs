//! All that a run needs to go on as if it had never stopped.
//!
//! Randomness is keyed, so a position is enough: no generator has a state to save.

use serde::{Deserialize, Serialize};

use super::Job;
use super::evaluate::Totals;
use crate::backend::{Real, simd_level};
use crate::graph::Graph;
use crate::io::model_file::{self, Extra, ModelInfo, Preprocessing};
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

/// An optimizer's saved state: its steps, and its moments by name.
pub(super) type Moments<E> = (u64, Vec<(String, Vec<E>)>);

/// What a checkpoint holds besides the model, under these names.
const PROGRESS: &str = "progress";
const OPTIMIZER_STEPS: &str = "optimizer.steps";
const MOMENT: &str = "optimizer.moment.";
const SIMD: &str = "simd";
const DATASET: &str = "dataset";

/// Class names, preprocessing and notes of a job's models: the recipe, and what else is given.
pub(super) fn model_info(job: &Job, notes: &[(&str, String)]) -> Result<ModelInfo> {
    let normalise = super::normalise(&job.recipe.data.normalise, &job.dataset);
    let size = job.recipe.data.size as usize;
    let preprocessing =
        Preprocessing { size: (size, size), mean: normalise.mean.map(f64::from), std: normalise.std.map(f64::from) };
    let mut info = ModelInfo::new(job.dataset.classes(), preprocessing);
    info.notes.insert("recipe".into(), job.recipe.to_toml()?);
    info.notes.extend(notes.iter().map(|(name, text)| ((*name).to_owned(), text.clone())));
    Ok(info)
}

pub(super) fn save<E: Real>(
    job: &Job,
    graph: &Graph,
    params: &Params<E>,
    progress: &Progress,
    optimizer: &dyn Optimizer<E>,
) -> Result<()> {
    let mut extra = Extra::default();
    for (name, moment) in optimizer.moments() {
        extra.values.insert(format!("{MOMENT}{name}"), moment);
    }
    extra.counters.insert(OPTIMIZER_STEPS.into(), vec![optimizer.steps()]);
    let progress = serde_json::to_string(progress).expect("plain data has a JSON form");
    extra.texts.insert(PROGRESS.into(), progress);
    extra.texts.insert(SIMD.into(), simd_level().name().into());
    extra.texts.insert(DATASET.into(), format!("{:016x}", job.dataset.checksum()));
    model_file::save(job.folder.checkpoint(), graph, params, &model_info(job, &[])?, &extra)
}

/// Sets parameters and state from a job's checkpoint; `None` where the run was stopped before its first one.
pub(super) fn load<E: Real>(job: &Job, params: &mut Params<E>) -> Result<Option<(Progress, Moments<E>)>> {
    let path = job.folder.checkpoint();
    if !path.exists() {
        return Ok(None);
    }
    let file = model_file::load(&path)?;
    let text = |name: &str| {
        let missing = || Error::new(ErrorKind::Format, path.display(), format!("no {name}: a model, no checkpoint"));
        file.extra_text(name).ok_or_else(missing)
    };
    let (simd, now) = (text(SIMD)?, simd_level().name());
    if simd != now && !job.other_simd {
        let e = Error::new(ErrorKind::Usage, path.display(), format!("the run used the SIMD level {simd}"));
        let hint = format!("HANDGRAD_SIMD={simd} keeps it where the machine has it; --other-simd goes on with {now}");
        return Err(e.expected(format!("{now}, this machine's: other levels give other bits")).hint(hint));
    }
    let (dataset, now) = (text(DATASET)?, format!("{:016x}", job.dataset.checksum()));
    if dataset != now {
        let e = Error::new(ErrorKind::Usage, job.dataset.path().display(), format!("a dataset with checksum {now}"));
        return Err(e.expected(format!("the one that the run began with, {dataset}")));
    }
    let progress: Progress = serde_json::from_str(text(PROGRESS)?)
        .map_err(|e| Error::new(ErrorKind::Format, path.display(), format!("progress: {e}")))?;
    if progress.epochs > u64::from(job.recipe.epochs()) {
        let found = format!("{} epochs done", progress.epochs);
        let e = Error::new(ErrorKind::Format, path.display(), found);
        return Err(e.expected(format!("at most the recipe's {}", job.recipe.epochs())));
    }
    file.fill(params)?;
    let mut moments = Vec::new();
    for name in file.extras().filter_map(|name| name.strip_prefix(MOMENT)) {
        moments.push((name.to_owned(), file.extra_values(&format!("{MOMENT}{name}"))?));
    }
    let steps = file.extra_counters(OPTIMIZER_STEPS)?.first().copied().unwrap_or(0);
    Ok(Some((progress, (steps, moments))))
}
