//! The CUDA backend on the driver double: the PTX that ships, run on the processor and checked.
//!
//! Each test restarts itself in a process of its own, whose driver is the double, so that a fault of one is not another's.

mod double;
mod kernels_page;
mod models;
mod ops;
mod optim;
mod pixels;
mod predicting;
#[path = "../pytorch/mod.rs"]
mod pytorch;
mod queue;
mod tensor_cores;
mod training;
