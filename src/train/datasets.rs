//! Which file a dataset's name stands for.

use std::path::{Path, PathBuf};

use crate::data::synth::{self, SynthConfig};
use crate::data::{ARCHIVES, archive_of};
use crate::{Error, ErrorKind, Result};

/// The folder of datasets that the program makes itself: `HANDGRAD_CACHE`, else the user's cache directory.
///
/// # Errors
/// Kind [`ErrorKind::Io`] where there is neither.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("HANDGRAD_CACHE").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    dirs::cache_dir().map(|folder| folder.join("handgrad")).ok_or_else(|| {
        let e = Error::new(ErrorKind::Io, "cache directory", "the system names none");
        e.hint("set HANDGRAD_CACHE to a folder that may be written")
    })
}

/// The file behind a recipe's `data.dataset`: `given` (a `--data` flag) if there is one, the built-in dataset for
/// `synth` (drawn on first use; `notice` is told before that starts), a path as it stands, and for any other name
/// `NAME.hgd` in `HANDGRAD_DATA` or in the [`cache_dir`].
///
/// # Errors
/// Kind [`ErrorKind::Usage`] where no file has that name, and whatever drawing and writing meet.
pub fn locate(name: &str, given: Option<&Path>, notice: impl FnOnce(&str)) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if name == "synth" {
        return built_in(&SynthConfig::default(), notice);
    }
    if Path::new(name).extension().is_some_and(|extension| extension == "hgd") {
        return Ok(name.into());
    }
    let file = format!("{name}.hgd");
    let folder = std::env::var_os("HANDGRAD_DATA").map(PathBuf::from);
    let candidates = [folder.map(|folder| folder.join(&file)), cache_dir().ok().map(|folder| folder.join(&file))];
    let found = candidates.iter().flatten().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        let e = Error::new(ErrorKind::Usage, format!("dataset {name}"), format!("there is no {file}"));
        e.expected("--data FILE.hgd, or that file in the folder that HANDGRAD_DATA names").hint(how_to_make(name))
    })
}

/// The commands that make the file of a dataset.
fn how_to_make(name: &str) -> String {
    match archive_of(name) {
        Some(archive) => {
            format!("make it once: `data-tools fetch {name}`, then `data-tools convert {archive} {name}.hgd`")
        }
        None => {
            let names = ARCHIVES.map(|(name, _)| name).join(", ");
            format!("make it of your images: `data-tools convert FOLDER {name}.hgd`; to be fetched are {names}")
        }
    }
}

/// The built-in dataset's file, drawn if it does not exist yet.
///
/// # Errors
/// Kind [`ErrorKind::Io`] where the cache cannot be written.
pub fn built_in(config: &SynthConfig, notice: impl FnOnce(&str)) -> Result<PathBuf> {
    let SynthConfig { train, valid, size, seed } = config;
    let path = cache_dir()?.join(format!("synth-v{}-{train}-{valid}-{size}-{seed}.hgd", synth::VERSION));
    if !path.is_file() {
        notice(&format!("drawing the built-in dataset ({} images) to {}", train + valid, path.display()));
        synth::write(config, &path)?;
    }
    Ok(path)
}
