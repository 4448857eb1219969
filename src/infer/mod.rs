//! A trained model inside your own program: load a file, predict. docs/embedding.md is the guide.
//!
//! - [`Model`] is a cheap handle on weights that any number of threads share.
//! - [`Model::predict`] classifies one image of any size.
//! - [`Model::grad_cam`] says where in an image something speaks for a class, [`Model::features`] what a layer makes of
//!   it.
//! - [`Model::session`] gives a [`Session`]: memory for batches of up to some size, which predicts without allocating;
//!   [`Model::session_on`] one that runs on a GPU.
//!
//! Work runs on the current rayon pool: the global one, or the host's own where it calls from inside
//! `ThreadPool::install`; [`in_pool`] makes one of a given size. Results have the same bits for any number of threads.

#[cfg(feature = "train")]
mod evaluate;
mod explain;
mod memory;
mod model;
#[cfg(feature = "image")]
mod picture;
mod prediction;
mod resize;
mod session;
mod views;

#[cfg(feature = "train")]
pub use evaluate::{EvalConfig, Evaluation, TopLoss, evaluate};
pub use explain::Cam;
pub use memory::Device;
pub use model::Model;
#[cfg(feature = "cli")]
pub(crate) use picture::{open_image, pixels};
pub use prediction::{ClassProbability, Prediction};
pub use resize::{framed, resized};
pub use session::Session;
pub use views::Views;

use crate::{Error, ErrorKind, Result};

/// Runs `work` in a rayon pool of its own with this many threads; 0 means one per core.
///
/// A host that has a pool calls `pool.install(|| …)` instead.
///
/// # Errors
/// Kind [`ErrorKind::Usage`] for a number beyond 1024, [`ErrorKind::Unsupported`] where the system allows no more
/// threads.
pub fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    if threads > 1024 {
        return Err(Error::new(ErrorKind::Usage, "threads", threads).expected("at most 1024, or 0 for one per core"));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map(|pool| pool.install(work)).map_err(|e| Error::new(ErrorKind::Unsupported, "threads", e))
}
