//! Stands in for the crate of this name, which the build scripts of `cust` and `cust_raw` call to find a CUDA toolkit, and
//! which panics where there is none.
//!
//! Nobody needs a toolkit here: `handgrad-cuda-driver` defines the driver's functions and finds the driver when the program
//! runs. Linking the driver as well would make a program that doesn't start on machines without one.

#![deny(missing_docs)]

/// Looks for nothing and has nothing linked.
pub fn include_cuda() {}
