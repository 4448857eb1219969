//! handgrad trains and runs image classifiers inside your own program.
//!
//! A model is an explicit [graph] of layers; every layer states its forward pass and its hand-derived
//! backward pass; graph, batch and precision compile to a fixed [plan] that allocates nothing while it runs.
#![deny(missing_docs)]

pub mod backend;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "train")]
pub mod data;
pub mod engine;
mod error;
pub mod graph;
#[cfg(feature = "infer")]
pub mod infer;
#[cfg(feature = "infer")]
pub mod io;
pub mod models;
pub mod ops;
#[cfg(feature = "train")]
pub mod optim;
mod params;
pub mod plan;
pub mod probe;
#[cfg(feature = "cli")]
pub mod recipe;
#[cfg(feature = "infer")]
pub mod resample;
pub mod rng;
#[cfg(feature = "train")]
pub mod schedule;
#[cfg(feature = "cli")]
pub mod train;

pub use error::{Error, ErrorKind, Result};
pub use params::{ParamInfo, Params};
