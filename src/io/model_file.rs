//! temp
#![allow(missing_docs)]
use crate::*;
#[derive(Default)]
pub struct Extra;
pub struct ModelInfo;
pub fn save<E: crate::backend::Real>(_: std::path::PathBuf, _: &crate::graph::Graph, _: &Params<E>, _: &ModelInfo, _: &Extra) -> Result<()> { Ok(()) }
