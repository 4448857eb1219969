//! Files in and out.

#[cfg(feature = "train")]
pub mod atomic;
#[cfg(feature = "train")]
pub mod metrics;
pub mod model_file;
#[cfg(feature = "image")]
pub mod picture;
#[cfg(feature = "cli")]
pub mod plot;
