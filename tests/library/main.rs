//! One binary for the tests of the library: links once, runs in parallel.

mod conformance;
mod golden;
mod infer;
mod known_answers;
mod model_file;
mod models;
#[cfg(feature = "cli")]
mod optim;
mod pixels;
mod probe;
#[path = "../pytorch/mod.rs"]
mod pytorch;
#[cfg(feature = "cli")]
mod weights;
