//! Files in and out.

#[cfg(feature = "train")]
pub mod atomic;
