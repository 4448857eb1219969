//! A run's folder.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// Where a run keeps its files. While one of these lives, no other process can take the same folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The system releases it when the process ends, however it ends.
    _lock: Option<Arc<Lock>>,
}

/// A folder that this process has locked.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting shares the lock until it runs its program.
        let _ = self.0.unlock();
    }
}

impl RunFolder {
    /// A folder for a new run: `out` if given, else `runs/NAME`, `runs/NAME-2`… whichever is free.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where `out` already holds a run or another process trains in it, kind
    /// [`ErrorKind::Io`] where it cannot be made.
    pub fn create(out: Option<&Path>, name: &str) -> Result<Self> {
        if let Some(path) = out {
            let used = || {
                let e = Error::new(ErrorKind::Usage, path.display(), "the folder already holds a run");
                e.expected("a new folder").hint("--resume continues that run; another --out starts a new one")
            };
            let folder = Some(RunFolder::at(path)).filter(|folder| !folder.is_taken()).ok_or_else(used)?;
            let folder = folder.make()?.locked()?;
            // Another process may have begun a run, and ended, since the first look.
            return Some(folder).filter(|folder| !folder.is_taken()).ok_or_else(used);
        }
        for folder in numbered(name).filter(|folder| !folder.is_taken()) {
            match folder.make()?.locked() {
                Ok(folder) if !folder.is_taken() => return Ok(folder),
                Err(e) if e.kind() != ErrorKind::Usage => return Err(e),
                // Another process was faster: the next number.
                _ => {}
            }
        }
        unreachable!("there are enough numbers")
    }

    /// The folder of a run to go on with: `out` if given, else the newest of `runs/NAME`, `runs/NAME-2`… What a crash
    /// left of files that were being written is taken away.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where there is none, or another process trains in it.
    pub fn open(out: Option<&Path>, name: &str) -> Result<Self> {
        let folder = match out {
            Some(path) => Some(RunFolder::at(path)),
            None => numbered(name).take_while(|folder| folder.recipe().exists()).last(),
        };
        let folder = folder.filter(|folder| folder.recipe().exists()).ok_or_else(|| {
            let subject = out.map_or_else(|| format!("runs/{name}"), |path| path.display().to_string());
            let e = Error::new(ErrorKind::Usage, subject, "there is no run to resume");
            e.expected("a run folder with recipe.toml").hint("leave out --resume to start one")
        })?;
        let folder = folder.locked()?;
        folder.remove_leftovers();
        Ok(folder)
    }

    fn at(path: &Path) -> Self {
        RunFolder { path: path.to_owned(), _lock: None }
    }

    /// Whether there is anything of a run that a new one would overwrite.
    fn is_taken(&self) -> bool {
        [self.recipe(), self.checkpoint(), self.metrics(), self.last(), self.result()].iter().any(|file| file.exists())
    }

    fn make(self) -> Result<Self> {
        std::fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, &e))?;
        Ok(self)
    }

    /// Takes the folder for this process, on systems whose folders can be locked.
    fn locked(mut self) -> Result<Self> {
        if !cfg!(unix) {
            return Ok(self);
        }
        let file = File::open(&self.path).map_err(|e| Error::io(&self.path, &e))?;
        match file.try_lock() {
            Ok(()) => self._lock = Some(Arc::new(Lock(file))),
            Err(TryLockError::WouldBlock) => {
                let e = Error::new(ErrorKind::Usage, self.path.display(), "another process trains in this folder");
                return Err(e.expected("a folder for this run alone").hint("wait for it, or choose another --out"));
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(self)
    }

    /// Removes temporary files (`.NAME.XXXXXX.tmp`) that a killed process left behind: with the lock, nobody writes
    /// them any more. It is only about disk space, so a failure is none.
    fn remove_leftovers(&self) {
        let files = [
            self.recipe(),
            self.environment(),
            self.metrics(),
            self.curves(),
            self.checkpoint(),
            self.last(),
            self.best(),
            self.result(),
        ];
        let ours: Vec<String> = files
            .iter()
            .filter_map(|file| file.file_name())
            .map(|name| format!(".{}.", name.to_string_lossy()))
            .collect();
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".tmp") && ours.iter().any(|prefix| name.starts_with(prefix)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Removes the folder if it is empty: of a run that could not begin.
    pub fn remove_if_empty(&self) {
        // It fails where there is a file in it, and that is right.
        let _ = std::fs::remove_dir(&self.path);
    }

    /// A folder for several runs: `out` if given, else `runs/NAME`, `runs/NAME-2`… whichever does not exist.
    pub fn for_several(out: Option<&Path>, name: &str) -> PathBuf {
        let free = || numbered(name).map(|folder| folder.path).find(|path| !path.exists());
        out.map_or_else(|| free().expect("there are enough numbers"), Path::to_owned)
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

    /// The folder of TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// What the run came to.
    pub fn result(&self) -> PathBuf {
        self.path.join("result.json")
    }
}

/// `runs/NAME`, `runs/NAME-2`, `runs/NAME-3`…
fn numbered(name: &str) -> impl Iterator<Item = RunFolder> {
    let runs = Path::new("runs");
    let first = RunFolder::at(&runs.join(name));
    std::iter::once(first).chain((2u64..).map(move |i| RunFolder::at(&runs.join(format!("{name}-{i}")))))
}

/// A path as a shell wants it, for a command that a message shows.
pub(crate) fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    shlex::try_quote(&path).map_or_else(|_| path.to_string(), |quoted| quoted.into_owned())
}
