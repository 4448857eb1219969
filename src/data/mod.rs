//! data
pub mod synth;
