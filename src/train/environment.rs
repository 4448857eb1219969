//! run.json: what a run depends on besides its recipe.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{FirstWeights, Job, write_text};
use crate::data::Dataset;
use crate::{Error, ErrorKind, Result};

/// Versions, machine and dataset of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The version of handgrad.
    pub handgrad: String,
    /// The backend's name.
    pub backend: String,
    /// The SIMD level of kernels.
    pub simd: String,
    /// Processor and operating system.
    pub target: String,
    /// Threads; the results do not depend on them.
    pub threads: usize,
    /// The dataset's file.
    pub dataset: String,
    /// The checksum in the dataset's header, in hexadecimal digits.
    pub dataset_checksum: String,
    /// The weights that it began with, where they were not random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FirstWeights>,
}

impl Environment {
    /// That of a job on this machine.
    pub fn of(job: &Job, backend: &str) -> Self {
        let dataset = job.dataset.path();
        Environment {
            handgrad: env!("CARGO_PKG_VERSION").into(),
            backend: backend.into(),
            simd: crate::backend::simd_level().name().into(),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            threads: rayon::current_num_threads(),
            // Absolute, since a run may be resumed from another working directory.
            dataset: std::path::absolute(dataset).unwrap_or_else(|_| dataset.to_owned()).display().to_string(),
            dataset_checksum: checksum(&job.dataset),
            from: job.from.as_ref().map(|FirstWeights { file, new_head }| FirstWeights {
                file: std::path::absolute(file).unwrap_or_else(|_| file.clone()),
                new_head: *new_head,
            }),
        }
    }

    /// What a run folder's run.json says; `None` where there is none.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Io`] where it is unreadable, [`ErrorKind::Format`] where it is something else.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if !path.try_exists().map_err(|e| Error::io(path, &e))? {
            return Ok(None);
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
        let wrong = |e| Error::new(ErrorKind::Format, path.display(), e).expected("what `handgrad train` wrote");
        serde_json::from_str(&text).map(Some).map_err(wrong)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write_text(path, &serde_json::to_string_pretty(self).expect("plain data has a JSON form"))
    }

    /// The dataset's file, where it still lies there.
    pub fn dataset_file(&self) -> Option<PathBuf> {
        Some(PathBuf::from(&self.dataset)).filter(|path| path.is_file())
    }
}

/// A dataset's checksum as files of a run have it.
pub(super) fn checksum(dataset: &Dataset) -> String {
    format!("{:016x}", dataset.checksum())
}

/// Refuses another dataset than the one that a run began with.
pub(super) fn check_dataset(job: &Job, began_with: &str) -> Result<()> {
    let now = checksum(&job.dataset);
    if now == began_with {
        return Ok(());
    }
    let e = Error::new(ErrorKind::Usage, job.dataset.path().display(), format!("a dataset with checksum {now}"));
    let e = e.expected(format!("the one that the run began with, {began_with}"));
    Err(e.hint("--data FILE says where that one lies; training on another is a new run, with another --out"))
}
