//! The built-in dataset as a file.

use std::path::Path;

use rayon::prelude::*;

use super::{CLASSES, SynthConfig, draw};
use crate::data::{DatasetWriter, Split};
use crate::{Error, Result};

/// Draws the built-in dataset into a file.
///
/// # Errors
/// Kind [`Io`](crate::ErrorKind::Io) where the file cannot be written, [`Shape`](crate::ErrorKind::Shape) for a size of 0.
pub fn write(config: &SynthConfig, path: &Path) -> Result<()> {
    /// Images drawn in parallel at a time, and their bytes where they are large (64 MB).
    const CHUNK: usize = 1000;
    const CHUNK_BYTES: usize = 64 << 20;
    let chunk = (CHUNK_BYTES / (config.size * config.size * 3).max(1)).clamp(1, CHUNK);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    }
    let mut writer = DatasetWriter::create(path, &CLASSES.map(String::from))?;
    for (code, split, count) in [(0, Split::Train, config.train), (1, Split::Valid, config.valid)] {
        for start in (0..count).step_by(chunk) {
            let indices = start..count.min(start + chunk);
            let images: Vec<_> = indices
                .into_par_iter()
                .map(|i| {
                    let mut pixels = vec![0; config.size * config.size * 3];
                    draw(config, code, i as u64, &mut pixels).map(|label| (label, pixels))
                })
                .collect::<Result<_>>()?;
            for (label, pixels) in images {
                writer.push(split, label, config.size, config.size, &pixels)?;
            }
        }
    }
    writer.finish()
}
