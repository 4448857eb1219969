//! The program as scripts and people meet it: flags, files, exit codes, signals, crashes.

mod augment;
mod common;
#[cfg(unix)]
mod crash;
mod failures;
mod hostile;
#[cfg(target_os = "linux")]
mod memory;
mod options;
mod output;
mod rates;
#[cfg(unix)]
mod resume;
mod runs;
#[cfg(unix)]
mod tensorboard;
mod usage;
