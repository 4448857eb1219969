//! `--backend`, `--precision` and `--threads`, which several subcommands share.

use std::str::FromStr;

#[cfg(feature = "cuda")]
use crate::backend::Cuda;
use crate::backend::{Backend as _, Cpu, Precision, Reference};
use crate::infer::{self, Device};
use crate::{Error, ErrorKind, Result};

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// f64, naive, the truth.
    Reference,
    /// f32 on CPU threads.
    Cpu,
    /// f32, or tf32 in products, on the GPU of this number.
    #[cfg(feature = "cuda")]
    Cuda(u32),
}

/// Evaluates an expression with the type that a [`Backend`] and a precision stand for; a GPU is opened before.
macro_rules! on_backend {
    (($backend:expr, $precision:expr), $type:ident => $value:expr) => {
        $backend.check($precision).and_then(|()| match ($backend, $precision) {
            ($crate::cli::backend::Backend::Cpu, _) => {
                type $type = $crate::backend::Cpu;
                $value
            }
            ($crate::cli::backend::Backend::Reference, _) => {
                type $type = $crate::backend::Reference;
                $value
            }
            #[cfg(feature = "cuda")]
            ($crate::cli::backend::Backend::Cuda(index), $crate::backend::Precision::Tf32) => {
                $crate::backend::cuda::Gpu::open(index).and_then(|_| {
                    type $type = $crate::backend::CudaTf32;
                    $value
                })
            }
            #[cfg(feature = "cuda")]
            ($crate::cli::backend::Backend::Cuda(index), _) => $crate::backend::cuda::Gpu::open(index).and_then(|_| {
                type $type = $crate::backend::Cuda;
                $value
            }),
        })
    };
}
pub(super) use on_backend;

impl Backend {
    /// The name that `--backend` takes.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Reference => Reference::NAME,
            Backend::Cpu => Cpu::NAME,
            #[cfg(feature = "cuda")]
            Backend::Cuda(_) => Cuda::NAME,
        }
    }

    /// The precisions that it has.
    pub fn precisions(self) -> &'static [Precision] {
        match self {
            Backend::Reference | Backend::Cpu => &[Precision::F32],
            #[cfg(feature = "cuda")]
            Backend::Cuda(_) => &[Precision::F32, Precision::Tf32],
        }
    }

    /// Whether it has a precision.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where it does not.
    pub fn check(self, precision: Precision) -> Result<()> {
        let all = self.precisions();
        if all.contains(&precision) {
            return Ok(());
        }
        let names: Vec<String> = all.iter().map(Precision::to_string).collect();
        Err(Error::new(ErrorKind::Usage, "--precision", precision)
            .expected(format!("{} with --backend {}", names.join(" or "), self.name()))
            .hint("every backend has f32; a GPU, with --backend cuda, has tf32, too"))
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reference" => Ok(Backend::Reference),
            "cpu" => Ok(Backend::Cpu),
            text if text == "cuda" || text.starts_with("cuda:") => cuda(text),
            _ => Err("expected reference, cpu or cuda[:N]".into()),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(text: &str) -> Result<Backend, String> {
    let number = text.strip_prefix("cuda:").unwrap_or("0");
    number.parse().map(Backend::Cuda).map_err(|_| "expected cuda, or cuda:N with the number of a GPU".into())
}

#[cfg(not(feature = "cuda"))]
fn cuda(_text: &str) -> Result<Backend, String> {
    Err("this build has no CUDA backend: build with --features cuda, or take --backend cpu".into())
}

/// `--backend` of what only predicts.
pub fn device(text: &str) -> Result<Device, String> {
    match text.parse() {
        Ok(Backend::Cpu) => Ok(Device::Cpu),
        #[cfg(feature = "cuda")]
        Ok(Backend::Cuda(index)) => Ok(Device::Cuda(index)),
        Err(why) if text.starts_with("cuda") => Err(why),
        Ok(Backend::Reference) | Err(_) => Err("expected cpu or cuda[:N]".into()),
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
