//! One binary for the tests of the library: links once, runs in parallel.

mod conformance;
mod golden;
mod known_answers;
mod models;
