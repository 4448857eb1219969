//! Files in and out.

#[cfg(feature = "train")]
pub mod atomic;
#[cfg(feature = "cli")]
pub mod draw;
#[cfg(all(feature = "image", feature = "train"))]
mod lettering;
#[cfg(feature = "train")]
pub mod metrics;
pub mod model_file;
#[cfg(all(feature = "image", feature = "train"))]
pub mod mosaic;
#[cfg(feature = "image")]
pub mod picture;
#[cfg(feature = "cli")]
pub mod plot;
#[cfg(feature = "train")]
pub mod tensorboard;
