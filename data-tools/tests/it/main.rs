//! Tests of data-tools: conversions, the pickle reader, downloads from a local server, the command line.

mod cli;
mod convert;
mod fetch;
mod pickle;
mod real;
mod support;
