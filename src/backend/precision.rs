//! The arithmetic of products.

use std::fmt;

use serde::Serialize;

use super::Backend;
use crate::{Error, ErrorKind, Result};

/// The arithmetic of a run; what a backend lacks it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the name of a number format")]
pub enum Precision {
    F32,
    Bf16,
    Tf32,
    Fp16,
    Int8,
}

impl Precision {
    /// Each precision under its name.
    pub const ALL: [(&'static str, Precision); 5] = [
        ("f32", Precision::F32),
        ("bf16", Precision::Bf16),
        ("tf32", Precision::Tf32),
        ("fp16", Precision::Fp16),
        ("int8", Precision::Int8),
    ];

    /// Whether a backend computes so.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where it does not.
    pub fn check<B: Backend>(self) -> Result<()> {
        if self == B::PRECISION {
            return Ok(());
        }
        let e = Error::new(ErrorKind::Usage, "--precision", self);
        Err(e.expected(format!("{} with --backend {}", B::PRECISION, B::NAME)))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Precision::ALL.iter().find(|(_, p)| p == self).map_or("", |(name, _)| name))
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Precision::ALL.iter().find(|(n, _)| *n == name).map(|(_, p)| *p).ok_or_else(|| {
            let names = Precision::ALL.map(|(n, _)| n).join(", ");
            Error::new(ErrorKind::Usage, "precision", format!("\"{name}\"")).expected(format!("one of {names}"))
        })
    }
}
