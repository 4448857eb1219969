//! Images on disk and on their way into training.
//!
//! A dataset is one `.hgd` file ([`Dataset`], written by [`DatasetWriter`]): decoded RGB bytes, mapped into memory.
//! A [`Loader`] draws its samples in a keyed random order, augments and normalises them, and hands out [`Batch`]es
//! that background threads prepare.

mod archives;
mod augment;
mod batch;
mod config;
mod dataset;
#[cfg(test)]
mod dataset_tests;
mod format;
#[cfg(test)]
mod hostile;
mod loader;
#[cfg(test)]
mod loader_tests;
mod order;
mod prepare;
pub mod synth;
mod writer;

pub use archives::{ARCHIVES, archive_of};
pub use augment::{Affine, Augment, Erase, Flip, Jitter, Normalise, Outside, RandomCrop};
pub use batch::Batch;
pub use config::LoaderConfig;
pub use dataset::{Dataset, Sample};
pub use format::{MAX_CLASSES, MAX_SIDE, Split};
pub use loader::{Epoch, Loader};
pub use order::Shuffle;
pub use writer::{DEFAULT_PAGE, DatasetWriter};
