//! The parts of the `data-tools` binary, for tests to call directly.

pub mod cli;
pub mod convert;
pub mod fetch;
pub mod inspect;
pub mod progress;
pub mod verify;
