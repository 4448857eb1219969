//! A run's folder.

use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// Where a run keeps its files.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// A folder for a new run: `out` if given, else `runs/NAME`, `runs/NAME-2`… whichever is free.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where `out` already holds a run, kind [`ErrorKind::Io`] where it cannot be made.
    pub fn create(out: Option<&Path>, name: &str) -> Result<Self> {
        let folder = match out {
            Some(path) => RunFolder { path: path.to_owned() },
            None => numbered(name).find(|folder| !folder.recipe().exists()).expect("there are enough numbers"),
        };
        if folder.recipe().exists() {
            let e = Error::new(ErrorKind::Usage, folder.path.display(), "the folder already holds a run");
            return Err(e.expected("a new folder").hint("--resume continues that run; another --out starts a new one"));
        }
        std::fs::create_dir_all(&folder.path).map_err(|e| Error::io(&folder.path, &e))?;
        Ok(folder)
    }

    /// The folder of a run to go on with: `out` if given, else the newest of `runs/NAME`, `runs/NAME-2`…
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where there is none.
    pub fn open(out: Option<&Path>, name: &str) -> Result<Self> {
        let folder = match out {
            Some(path) => Some(RunFolder { path: path.to_owned() }),
            None => numbered(name).take_while(|folder| folder.recipe().exists()).last(),
        };
        folder.filter(|folder| folder.recipe().exists()).ok_or_else(|| {
            let subject = out.map_or_else(|| format!("runs/{name}"), |path| path.display().to_string());
            let e = Error::new(ErrorKind::Usage, subject, "there is no run to resume");
            e.expected("a run folder with recipe.toml").hint("leave out --resume to start one")
        })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The exact recipe of the run.
    pub fn recipe(&self) -> PathBuf {
        self.path.join("recipe.toml")
    }

    /// Versions and machine.
    pub fn environment(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// One line per epoch.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The curves' picture.
    pub fn curves(&self) -> PathBuf {
        self.path.join("curves.svg")
    }

    /// All that a resumed run needs.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// The model after the last epoch.
    pub fn last(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// The model of the epoch with the highest accuracy.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// What the run came to.
    pub fn result(&self) -> PathBuf {
        self.path.join("result.json")
    }
}

/// `runs/NAME`, `runs/NAME-2`, `runs/NAME-3`…
fn numbered(name: &str) -> impl Iterator<Item = RunFolder> {
    let runs = Path::new("runs");
    let first = RunFolder { path: runs.join(name) };
    std::iter::once(first).chain((2u64..).map(move |i| RunFolder { path: runs.join(format!("{name}-{i}")) }))
}
