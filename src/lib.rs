//! handgrad trains and runs image classifiers inside your own program.
//!
//! A model is an explicit [graph](graph) of layers; every layer states its forward pass and its hand-derived
//! backward pass; graph, batch and precision compile to a fixed [plan] that allocates nothing while it runs.
#![deny(missing_docs)]

pub mod backend;
#[cfg(feature = "train")]
pub mod data;
mod error;
pub mod io;
#[cfg(feature = "train")]
pub mod optim;
pub mod rng;
#[cfg(feature = "train")]
pub mod schedule;

pub use error::{Error, ErrorKind, Result};
