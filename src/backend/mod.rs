//! Where plans run: what operations share on a device.

pub mod cpu;
