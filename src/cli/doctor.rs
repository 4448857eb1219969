//! `handgrad doctor`

use serde::Serialize;

use super::out;
use crate::Result;
use crate::backend::cpu::simd::{Level, levels_available};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  handgrad doctor\n  handgrad doctor --json")]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What this machine has for each backend.
#[derive(Serialize)]
struct Findings {
    version: &'static str,
    target: String,
    cpu: Cpu,
    cuda: Cuda,
}

#[derive(Serialize)]
struct Cpu {
    threads: usize,
    /// The SIMD levels that the machine has, the slowest first, and the one that kernels use.
    simd_levels: Vec<&'static str>,
    simd: &'static str,
}

#[derive(Serialize)]
struct Cuda {
    /// Whether this build has the backend.
    built: bool,
    #[cfg(feature = "cuda")]
    driver: String,
    #[cfg(feature = "cuda")]
    devices: Vec<crate::backend::cuda::Info>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    /// What each module of kernels was compiled for.
    #[cfg(feature = "cuda")]
    ptx: Vec<crate::backend::cuda::ModuleInfo>,
}

impl Cuda {
    #[cfg(feature = "cuda")]
    fn look() -> Self {
        use crate::backend::cuda::{devices, driver, modules};
        let found = devices();
        let missing = found.as_ref().err().map(ToString::to_string);
        Cuda { built: true, driver: driver(), devices: found.unwrap_or_default(), missing, ptx: modules() }
    }

    #[cfg(not(feature = "cuda"))]
    fn look() -> Self {
        Cuda { built: false, missing: Some("this build has no CUDA backend: build with --features cuda".into()) }
    }
}

pub fn run(args: Args) -> Result<()> {
    let findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        cpu: Cpu {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            simd_levels: levels_available().map(Level::name).collect(),
            simd: Level::current()?.name(),
        },
        cuda: Cuda::look(),
    };
    if args.json { out::json(&findings) } else { print(&findings) }
}

fn print(findings: &Findings) -> Result<()> {
    let Findings { version, target, cpu, cuda } = findings;
    out::line(format!("handgrad:  {version}, {target}"))?;
    out::line(format!("cpu:       {} threads, SIMD {} of {}", cpu.threads, cpu.simd, cpu.simd_levels.join(", ")))?;
    out::line(format!("cuda:      {}", if cuda.built { "built in" } else { "not built in" }))?;
    #[cfg(feature = "cuda")]
    {
        out::line(format!("driver:    {}", cuda.driver))?;
        for device in &cuda.devices {
            let ((major, minor), gib) = (device.capability, device.memory as f64 / f64::from(1 << 30));
            let (index, name, processors) = (device.index, &device.name, device.multiprocessors);
            out::line(format!(
                "cuda:{index}:    {name}, compute capability {major}.{minor}, {gib:.1} GiB, {processors} multiprocessors"
            ))?;
        }
        for module in &cuda.ptx {
            out::line(format!("kernels:   {:<14} ISA {}, {}", module.name, module.version, module.target))?;
        }
    }
    cuda.missing.iter().try_for_each(|why| out::line(format!("no GPU:    {why}")))
}
