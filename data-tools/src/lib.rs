//! The parts of the `data-tools` binary, for tests to call directly.

pub mod cli;
pub mod convert;
pub mod fetch;
pub mod inspect;
pub mod progress;
pub mod verify;

/// Whether both paths lead to one file that is there: what is written to the one would replace the other.
pub(crate) fn is_same_file(a: &std::path::Path, b: &std::path::Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
