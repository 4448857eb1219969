//! `verify`: every byte against its checksum.

use std::path::Path;

use handgrad::Result;
use handgrad::data::Dataset;

/// What was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Samples of the file.
    pub samples: usize,
    /// Its length.
    pub bytes: u64,
    /// Its checksum, which names its content.
    pub checksum: u64,
}

/// Checks the header, the index and every page.
///
/// # Errors
/// [`handgrad::ErrorKind::Format`] saying what is damaged, [`handgrad::ErrorKind::Io`].
pub fn verify(file: &Path) -> Result<Verified> {
    let dataset = Dataset::open(file)?;
    dataset.verify()?;
    Ok(Verified { samples: dataset.len(), bytes: dataset.file_len(), checksum: dataset.checksum() })
}
