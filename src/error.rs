//! One error type: what it concerns, what was found, what was expected, and a hint.

use std::fmt;

/// What went wrong, in a form that a program can branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A flag, a recipe key or an argument is wrong (exit code 2).
    Usage,
    /// The operating system refused (missing file, full disk…).
    Io,
    /// A file's content is not what its format says.
    Format,
    /// Shapes of layers, images or buffers do not fit.
    Shape,
    /// A loss or an activation is not a finite number.
    NonFinite,
    /// This build, backend or machine cannot do it.
    Unsupported,
    /// A device or its driver failed.
    Device,
    /// A signal asked the program to stop; its state is saved.
    Interrupted,
}

/// An error: its subject (file, layer or flag), what was found, what was expected, a hint.
///
/// ```
/// use handgrad::{Error, ErrorKind};
/// let e = Error::new(ErrorKind::Usage, "--batch", "0").expected("a positive number").hint("try --batch 64");
/// assert_eq!(e.to_string(), "--batch: 0 (expected a positive number)\n  hint: try --batch 64");
/// ```
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    subject: String,
    found: String,
    expected: Option<String>,
    hint: Option<String>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error about `subject` (a file, a layer's path, a flag); `found` says what is wrong with it.
    pub fn new(kind: ErrorKind, subject: impl fmt::Display, found: impl fmt::Display) -> Self {
        let (subject, found) = (subject.to_string(), found.to_string());
        Error(Box::new(Inner { kind, subject, found, expected: None, hint: None }))
    }

    /// An operating-system error on a file.
    pub fn io(path: impl AsRef<std::path::Path>, error: &std::io::Error) -> Self {
        let e = Error::new(ErrorKind::Io, path.as_ref().display(), error);
        match error.kind() {
            std::io::ErrorKind::NotFound => e.hint("check the path; it does not exist"),
            std::io::ErrorKind::PermissionDenied => e.hint("check the permissions of the file and of its folder"),
            std::io::ErrorKind::StorageFull => e.hint("free some disk space and run again"),
            _ => e,
        }
    }

    /// Adds what would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.0.expected = Some(expected.to_string());
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint = Some(hint.to_string());
        self
    }

    /// The same about a layer: its name comes first.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub(crate) fn of_layer(mut self, layer: &str) -> Self {
        self.0.subject = format!("{layer}: {}", self.0.subject);
        self
    }

    /// The kind, to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file, layer or flag that the error is about.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.subject, self.0.found)?;
        if let Some(expected) = &self.0.expected {
            write!(f, " (expected {expected})")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
