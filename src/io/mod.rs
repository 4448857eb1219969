//! Files in and out.

#[cfg(feature = "train")]
pub mod atomic;
#[cfg(feature = "train")]
pub mod metrics;
#[cfg(feature = "cli")]
pub mod plot;
