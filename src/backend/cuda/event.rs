//! A place in a stream's work that another stream, or the host, waits for.

use std::ffi::CStr;

use cust::stream::Stream;
use cust::sys;

use super::Gpu;
use crate::{Error, ErrorKind, Result};

/// An event. cust's own is consumed by the stream that waits for it; this one serves every step anew.
pub(super) struct Event {
    gpu: &'static Gpu,
    raw: sys::CUevent,
}

// SAFETY: a handle, which the driver lets any thread use.
unsafe impl Send for Event {}
// SAFETY: what a shared reference gives are calls of the driver with that handle, of which any number may run at once.
unsafe impl Sync for Event {}

impl Event {
    pub fn new(gpu: &'static Gpu) -> Result<Self> {
        gpu.enter()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: there is room for the handle.
        check("event", unsafe { sys::cuEventCreate(&mut raw, flags) })?;
        Ok(Event { gpu, raw })
    }

    /// Puts it behind the stream's work so far, instead of where it was.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        check("event", unsafe { sys::cuEventRecord(self.raw, stream.as_inner()) })
    }

    /// Makes the stream's work from now on come after it. Before it was ever recorded, that is no condition.
    pub fn holds_back(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        check("event", unsafe { sys::cuStreamWaitEvent(stream.as_inner(), self.raw, 0) })
    }

    /// Makes the host wait for it.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: it lives.
        check(self.gpu.since_when(), unsafe { sys::cuEventSynchronize(self.raw) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // An error has no one to go to.
        if self.gpu.enter().is_ok() {
            // SAFETY: it is given back once.
            unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

/// A code of the driver, as [`super::gpu::failed`] tells those of cust.
fn check(subject: impl std::fmt::Display, code: sys::CUresult) -> Result<()> {
    if code == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: there is room for the pointer, which is to a text of the driver's own or stays null.
    let text = unsafe {
        sys::cuGetErrorString(code, &mut text);
        if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy() }
    };
    Err(Error::new(ErrorKind::Device, subject, format!("{text} ({code:?}, {})", code as u32)))
}
