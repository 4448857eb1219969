//! All that a run needs to go on as if it had never stopped.
//!
//! Randomness is keyed, so a position is enough: no generator has a state to save.

use serde::{Deserialize, Serialize};

use super::Job;
use super::environment::{check_dataset, checksum};
use super::evaluate::Totals;
use crate::backend::{Real, simd_level};
use crate::graph::Graph;
use crate::io::model_file::{self, Extra, ModelInfo, Preprocessing};
use crate::optim::{Ema, Optimizer};
use crate::{Error, ErrorKind, ParamInfo, Params, Result};

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

    /// Whether a run can stand here; a file may say anything.
    fn is_possible(&self, run: &Bounds) -> bool {
        let Progress { epochs, batch, engine_step, train, seconds, seconds_of_epochs } = *self;
        let done = epochs.checked_mul(run.batches as u64).and_then(|done| done.checked_add(batch as u64));
        let ended = epochs == u64::from(run.epochs);
        (epochs < u64::from(run.epochs) || ended && batch == 0)
            && batch < run.batches
            && batch.is_multiple_of(run.accumulate)
            && done == Some(engine_step)
            && (batch > 0 || train == Totals::default())
            && [train.images, train.correct, train.correct5].iter().all(|&n| n < 1 << 48)
            && seconds_of_epochs >= 0.0
            && seconds >= seconds_of_epochs
    }

    /// The epoch under way is done.
    pub fn next_epoch(&mut self) {
        self.epochs += 1;
        self.batch = 0;
        self.train = Totals::default();
        self.seconds_of_epochs = self.seconds;
    }
}

/// What limits a run's [`Progress`].
struct Bounds {
    /// Batches per epoch.
    batches: usize,
    /// Batches per optimizer step.
    accumulate: usize,
    epochs: u32,
}

/// An optimizer's saved state: its steps, and its moments by name.
pub(super) type Moments<E> = (u64, Vec<(String, Vec<E>)>);

/// What a checkpoint holds besides the model, under these names.
const PROGRESS: &str = "progress";
const OPTIMIZER_STEPS: &str = "optimizer.steps";
const MOMENT: &str = "optimizer.moment.";
const EMA_STEPS: &str = "ema.steps";
const EMA_VALUES: &str = "ema.values";
const EMA_STATES: &str = "ema.states";
const SIMD: &str = "simd";
const DATASET: &str = "dataset";

/// Class names, preprocessing and notes of a job's models: the recipe, and what else is given.
pub(super) fn model_info(job: &Job, notes: &[(&str, String)]) -> Result<ModelInfo> {
    let normalise = super::normalise(&job.recipe.data.normalise, &job.dataset);
    let size = job.recipe.data.size as usize;
    let preprocessing = Preprocessing {
        size: (size, size),
        mean: normalise.mean.map(f64::from),
        std: normalise.std.map(f64::from),
        framing: job.recipe.data.framing,
    };
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
    ema: Option<&Ema<E>>,
) -> Result<()> {
    let mut extra = Extra::default();
    if let Some(ema) = ema {
        let (values, states) = ema.averages();
        extra.values.extend([(EMA_VALUES.into(), values), (EMA_STATES.into(), states)]);
        extra.counters.insert(EMA_STEPS.into(), vec![ema.steps()]);
    }
    for (name, moment) in optimizer.moments() {
        extra.values.insert(format!("{MOMENT}{name}"), moment);
    }
    extra.counters.insert(OPTIMIZER_STEPS.into(), vec![optimizer.steps()]);
    let progress = serde_json::to_string(progress).expect("plain data has a JSON form");
    extra.texts.insert(PROGRESS.into(), progress);
    extra.texts.insert(SIMD.into(), simd_level().name().into());
    extra.texts.insert(DATASET.into(), checksum(&job.dataset));
    model_file::save(job.folder.checkpoint(), graph, params, &model_info(job, &[])?, &extra)
}

/// Refuses to go on with, and so to save, parameters or state that are not finite: the files keep the last good ones.
pub(super) fn check_finite<E: Real>(params: &Params<E>, step: u64) -> Result<()> {
    let broken = |infos: &[ParamInfo], values: &[E]| {
        infos.iter().find(|info| values[info.range()].iter().any(|v| !v.is_finite())).map(|info| info.name.clone())
    };
    let found = broken(params.table(), params.values()).or_else(|| broken(params.state_table(), params.states()));
    match found {
        Some(name) => Err(non_finite(step, &format!("parameter {name}"))),
        None => Ok(()),
    }
}

/// The error of a run whose numbers left the finite ones after `step` steps.
pub(super) fn non_finite(step: u64, what: &str) -> Error {
    let e = Error::new(ErrorKind::NonFinite, format!("step {step}"), format!("{what} is not finite"));
    e.expected("finite numbers").hint("take a lower learning rate, clip gradients, or check the data")
}

/// Sets parameters, state and their averages from a job's checkpoint, where an epoch has `batches` batches; `None` where
/// the run was stopped before its first checkpoint.
pub(super) fn load<E: Real>(
    job: &Job,
    batches: usize,
    params: &mut Params<E>,
    ema: Option<&mut Ema<E>>,
) -> Result<Option<(Progress, Moments<E>)>> {
    let path = job.folder.checkpoint();
    if !path.try_exists().map_err(|e| Error::io(&path, &e))? {
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
    check_dataset(job, text(DATASET)?)?;
    if file.info().notes.get("recipe") != Some(&job.recipe.to_toml()?) {
        let e = Error::new(ErrorKind::Usage, job.folder.recipe().display(), "not the recipe that the run began with");
        return Err(e.hint("undo the change; another recipe is a new run, with another --out"));
    }
    let progress: Progress = serde_json::from_str(text(PROGRESS)?)
        .map_err(|e| Error::new(ErrorKind::Format, path.display(), format!("progress: {e}")))?;
    let bounds = Bounds { batches, accumulate: job.recipe.optimizer.accumulate as usize, epochs: job.recipe.epochs() };
    if !progress.is_possible(&bounds) {
        let e = Error::new(ErrorKind::Format, path.display(), format!("a position that no run has: {progress:?}"));
        return Err(e.expected(format!("one within {} epochs of {batches} batches", bounds.epochs)));
    }
    file.fill(params)?;
    if let Some(ema) = ema {
        let steps = file.extra_counters(EMA_STEPS)?.first().copied().unwrap_or(0);
        ema.restore(steps, &file.extra_values(EMA_VALUES)?, &file.extra_values(EMA_STATES)?)?;
    }
    let mut moments = Vec::new();
    for name in file.extras().filter_map(|name| name.strip_prefix(MOMENT)) {
        moments.push((name.to_owned(), file.extra_values(&format!("{MOMENT}{name}"))?));
    }
    let steps = file.extra_counters(OPTIMIZER_STEPS)?.first().copied().unwrap_or(0);
    Ok(Some((progress, (steps, moments))))
}
