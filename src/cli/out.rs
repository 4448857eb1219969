//! Standard output, where a reader that has gone away is no error.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::{Error, Result};

/// Prints a line. A closed pipe ends the program with success: nobody reads the rest.
///
/// # Errors
/// Where standard output cannot be written for another reason.
pub fn line(text: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(|e| Error::io("standard output", &e)),
    }
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string(value).expect("plain data has a JSON form"))
}
