//! Standard output whose reader may leave: `handgrad … | head` is no error.

use std::fmt;
use std::io::{ErrorKind, Stdout, Write};

use crate::{Error, Result};

/// Standard output, line by line.
#[derive(Debug)]
pub struct Out {
    stdout: Stdout,
    closed: bool,
}

impl Out {
    /// Standard output, open.
    pub fn stdout() -> Self {
        Out { stdout: std::io::stdout(), closed: false }
    }

    /// Writes a text; after the reader has left, nothing.
    ///
    /// # Errors
    /// Kind [`crate::ErrorKind::Io`] for anything but a closed pipe.
    pub fn write(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        match self.stdout.write_fmt(text) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            result => result.map_err(|e| Error::io("standard output", &e)),
        }
    }

    /// [`Out::write`] with a line's end.
    ///
    /// # Errors
    /// As [`Out::write`].
    pub fn line(&mut self, text: impl fmt::Display) -> Result<()> {
        self.write(format_args!("{text}\n"))
    }

    /// Whether the reader has left: further work is for nobody.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Brings what is written to the reader.
    ///
    /// # Errors
    /// As [`Out::write`].
    pub fn flush(&mut self) -> Result<()> {
        match self.stdout.flush() {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", &e)),
            _ => Ok(()),
        }
    }
}

/// Prints a line to standard output; a reader that has left is no error.
///
/// # Errors
/// As [`Out::write`].
pub fn line(text: impl fmt::Display) -> Result<()> {
    Out::stdout().line(text)
}

/// Prints a line to standard error. Where that is closed or full, there is nobody left to tell.
pub fn note(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`Out::write`].
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    line(serde_json::to_string(value).expect("plain data has a JSON form"))
}
