//! `--backend` and `--threads`, which several subcommands share.

use std::str::FromStr;

use crate::backend::{Cpu, Host, Reference};
use crate::{Result, infer};

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// f64, naive, the truth.
    Reference,
    /// f32 on CPU threads.
    Cpu,
}

impl Backend {
    /// The name that `--backend` takes.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Reference => Reference::NAME,
            Backend::Cpu => Cpu::NAME,
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reference" => Ok(Backend::Reference),
            "cpu" => Ok(Backend::Cpu),
            text if text == "cuda" || text.starts_with("cuda:") => {
                Err("this build has no CUDA backend; take --backend cpu".into())
            }
            _ => Err("expected reference, cpu or cuda[:N]".into()),
        }
    }
}

/// Runs `work` on a pool of `threads` (all cores where not given); the whole program enters it once.
///
/// # Errors
/// Those of [`infer::in_pool`], and what `work` returns.
pub fn in_pool<T: Send>(threads: Option<usize>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    infer::in_pool(threads.unwrap_or(0), work)?
}

/// `--threads` values: 1 to 1024.
pub fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "expected 1 to 1024".into())
}
