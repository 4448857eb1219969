//! A device, opened once per process: its context, its stream, its kernels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use cust::context::{Context, CurrentContext};
use cust::device::{Device, DeviceAttribute};
use cust::error::CudaError;
use cust::function::{BlockSize, Function, GridSize};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use handgrad_cuda_driver::Status;

use super::Launch;
use crate::{Error, ErrorKind, Result};

/// A kernel that was looked up. A process opens one device, so that one place per kernel is enough.
pub(crate) type FunctionCell = OnceLock<Function<'static>>;

/// An opened device. It stays open until the program ends.
pub struct Gpu {
    info: Info,
    context: Context,
    stream: Stream,
    /// Of uploads, which run beside the kernels.
    copies: Stream,
    modules: Mutex<BTreeMap<&'static str, &'static Module>>,
    /// The last launch, which an error that shows later comes from, or one before it.
    last: Mutex<&'static str>,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Info {
    /// Its number, as `--backend cuda:N` takes it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub capability: (i32, i32),
    /// Bytes of its memory.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: i32,
}

impl Info {
    fn of(index: u32, device: Device) -> Result<Self, CudaError> {
        let attribute = |which| device.get_attribute(which);
        Ok(Info {
            index,
            name: device.name()?,
            capability: (
                attribute(DeviceAttribute::ComputeCapabilityMajor)?,
                attribute(DeviceAttribute::ComputeCapabilityMinor)?,
            ),
            memory: device.total_memory()?,
            multiprocessors: attribute(DeviceAttribute::MultiprocessorCount)?,
        })
    }
}

static OPENED: Mutex<Option<&'static Gpu>> = Mutex::new(None);

/// The devices of this machine.
///
/// # Errors
/// Kind [`ErrorKind::Unsupported`] where there is no driver or no device.
pub fn devices() -> Result<Vec<Info>> {
    start()?;
    let all =
        || (0..Device::num_devices()?).map(|i| Info::of(i, Device::get_device(i)?)).collect::<Result<Vec<_>, _>>();
    let all = all().map_err(|e| failed("devices", e))?;
    if all.is_empty() { Err(none(text(CudaError::NoDevice))) } else { Ok(all) }
}

/// The driver that was found, or why there is none, as text.
pub fn driver() -> String {
    let version = || cust::CudaApiVersion::get().ok().map(|v| format!(", for CUDA {}.{}", v.major(), v.minor()));
    let status = handgrad_cuda_driver::status();
    match status {
        Status::Opened { .. } => format!("{status}{}", version().unwrap_or_default()),
        Status::Missing { .. } => status.to_string(),
    }
}

fn start() -> Result<()> {
    match handgrad_cuda_driver::status() {
        Status::Missing { .. } => Err(none(handgrad_cuda_driver::status())),
        Status::Opened { .. } => cust::init(cust::CudaFlags::empty()).map_err(|e| none(text(e))),
    }
}

/// Why there is no device.
fn none(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, "--backend cuda", why)
        .expected("an NVIDIA GPU of compute capability 7.5 or more, and its driver, of CUDA 11.0 or later")
        .hint("install NVIDIA's driver (CUDA's toolkit is not needed) and see that nvidia-smi shows the GPU, or take --backend cpu")
}

/// What the driver says about a code.
fn text(e: CudaError) -> String {
    format!("{e} ({e:?}, {})", e as u32)
}

/// An error of a call about `subject`.
pub(super) fn failed(subject: impl std::fmt::Display, e: CudaError) -> Error {
    let error = Error::new(ErrorKind::Device, subject, text(e));
    match e {
        CudaError::OutOfMemory => error.hint("take a smaller batch, image size or model"),
        CudaError::InvalidPtx | CudaError::UnsupportedLimit | CudaError::NoBinaryForGpu => {
            error.hint("install a newer driver: one of CUDA 11.0 or later")
        }
        _ => error,
    }
}

impl Gpu {
    /// Opens a device for this process; again where it is open.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Unsupported`] where there is no driver or no device, [`ErrorKind::Usage`] for a number that no device
    /// has, or where another is open, [`ErrorKind::Device`] where the driver fails.
    pub fn open(index: u32) -> Result<&'static Gpu> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = *opened {
            if gpu.info.index == index {
                return Ok(gpu);
            }
            let e = Error::new(ErrorKind::Usage, format!("cuda:{index}"), format!("cuda:{} is open", gpu.info.index));
            return Err(e.expected("one device per process"));
        }
        let all = devices()?;
        let Some(info) = all.get(index as usize).cloned() else {
            let e = Error::new(ErrorKind::Usage, format!("cuda:{index}"), "no such device");
            return Err(e.expected(format!("0 to {}", all.len() - 1)));
        };
        let make = || {
            let context = Context::new(Device::get_device(index)?)?;
            CurrentContext::set_current(&context)?;
            let stream = || Stream::new(StreamFlags::NON_BLOCKING, None);
            let (stream, copies) = (stream()?, stream()?);
            Ok(Gpu { info, context, stream, copies, modules: Mutex::default(), last: Mutex::new("") })
        };
        let gpu: &'static Gpu = Box::leak(Box::new(make().map_err(|e| failed(format!("cuda:{index}"), e))?));
        *opened = Some(gpu);
        Ok(gpu)
    }

    /// The device that is open, else the first, opened.
    ///
    /// # Errors
    /// Those of [`Gpu::open`].
    pub fn current() -> Result<&'static Gpu> {
        let opened = *OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        opened.map_or_else(|| Gpu::open(0), Ok)
    }

    /// What it is.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Makes it this thread's device: before the first call of any thread.
    pub(super) fn enter(&self) -> Result<()> {
        CurrentContext::set_current(&self.context).map_err(|e| failed("cuda", e))
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn copies(&self) -> &Stream {
        &self.copies
    }

    /// Waits until all that was queued is done.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Device`] where something of it failed: the error names the last launch, which failed or comes after
    /// the one that did.
    pub fn wait(&self) -> Result<()> {
        self.stream.synchronize().map_err(|e| failed(self.since_when(), e))
    }

    /// The subject of an error that shows when something is waited for.
    pub(super) fn since_when(&self) -> String {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        format!("cuda: {last} or a launch before it")
    }

    /// Queues a kernel. `arguments` point to values of the types that the kernel takes, which the declaration of the kernel
    /// sees to.
    pub(crate) fn launch(
        &self,
        function: &FunctionCell,
        module: &'static str,
        name: &'static str,
        launch: Launch,
        arguments: &[*mut c_void],
    ) -> Result<()> {
        let function = match function.get() {
            Some(function) => function,
            None => {
                let found = self.function(module, name)?;
                function.get_or_init(|| found)
            }
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = name;
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let (grid, block) = (GridSize::xyz(gx, gy, gz), BlockSize::xyz(bx, by, bz));
        // SAFETY: the declaration in `kernels!` has the kernel's parameters, which a test compares with the PTX; the addresses are
        // operands that the plan laid out, of the lengths that the kernel's shapes say.
        unsafe { self.stream.launch(function, grid, block, launch.shared, arguments) }
            .map_err(|e| failed(format!("{name} ({launch})"), e))
    }

    fn function(&self, module: &'static str, name: &'static str) -> Result<Function<'static>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match modules.get(module) {
            Some(loaded) => loaded,
            None => {
                let text = text_of(module)?;
                let loaded = Module::from_ptx(text, &[]).map_err(|e| failed(format!("{module}.ptx"), e))?;
                modules.entry(module).or_insert(Box::leak(Box::new(loaded)))
            }
        };
        loaded.get_function(name).map_err(|e| failed(format!("{name} in {module}.ptx"), e))
    }
}

/// The PTX of a module: that inside the program, or that of the folder which the variable names, so that a kernel can be
/// worked on without compiling the program anew.
fn text_of(module: &str) -> Result<Cow<'static, str>> {
    let Some(folder) = std::env::var_os("HANDGRAD_PTX") else {
        return Ok(Cow::Borrowed(super::ptx(module).unwrap_or_default()));
    };
    let path = PathBuf::from(folder).join(format!("{module}.ptx"));
    std::fs::read_to_string(&path).map(Cow::Owned).map_err(|e| Error::io(&path, &e))
}
