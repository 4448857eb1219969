//! Memory on the device.

use std::ops::Range;

use cust::memory::{AsyncCopyDestination, DeviceBuffer, DeviceCopy, DevicePointer, DeviceSlice};

use super::gpu::failed;
use super::{Gpu, Ptr};
use crate::Result;

/// A block of elements on a device, which it gives back when it is dropped.
pub struct Buffer<T: DeviceCopy = f32> {
    gpu: &'static Gpu,
    memory: DeviceBuffer<T>,
}

impl<T: DeviceCopy> Buffer<T> {
    /// `len` elements that nothing was written to.
    ///
    /// # Errors
    /// Kind [`crate::ErrorKind::Device`] where the device has less memory.
    pub fn new(gpu: &'static Gpu, len: usize) -> Result<Self> {
        gpu.enter()?;
        let wrong = |e| failed(format!("cuda:{}: {} MiB of memory", gpu.info().index, (size_of::<T>() * len) >> 20), e);
        // SAFETY: elements are plain numbers without invalid bits; kernels write before they read, which tests on the driver double check. A block
        // without elements has no address, so that one is the least.
        let memory = unsafe { DeviceBuffer::uninitialized(len.max(1)) }.map_err(wrong)?;
        Ok(Buffer { gpu, memory })
    }

    /// The elements of a slice.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn of(gpu: &'static Gpu, values: &[T]) -> Result<Self> {
        let mut buffer = Buffer::new(gpu, values.len())?;
        buffer.upload(0, values)?;
        Ok(buffer)
    }

    /// The address of its first element.
    pub fn ptr(&self) -> Ptr {
        Ptr(self.memory.as_device_ptr().as_raw())
    }

    /// Its elements.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// # Panics
    /// Where the range does not lie in the block.
    fn part(&self, range: Range<usize>) -> DeviceSlice<T> {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {}", self.len());
        let start = DevicePointer::<T>::from_raw(self.ptr().0 + (size_of::<T>() * range.start) as u64);
        // SAFETY: inside the block by the assertion.
        unsafe { DeviceSlice::from_raw_parts(start, range.len()) }
    }

    /// Queues a copy of `values` to the elements from `start` on.
    ///
    /// # Errors
    /// What the driver reports.
    ///
    /// # Panics
    /// Where they do not lie in the block.
    pub fn upload(&mut self, start: usize, values: &[T]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let mut part = self.part(start..start + values.len());
        // SAFETY: memory of the host that may be paged out is copied away before the call returns.
        unsafe { part.async_copy_from(values, self.gpu.stream()) }.map_err(|e| failed("copy to the device", e))
    }

    /// Copies the elements from `start` on to `values`, when all that was queued is done.
    ///
    /// # Errors
    /// What the driver reports, of earlier launches too.
    ///
    /// # Panics
    /// Where they do not lie in the block.
    pub fn download(&self, start: usize, values: &mut [T]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let part = self.part(start..start + values.len());
        // SAFETY: `wait` comes before anybody reads the values.
        let copied = unsafe { part.async_copy_to(values, self.gpu.stream()) };
        self.gpu.wait()?;
        copied.map_err(|e| failed("copy from the device", e))
    }
}

impl Buffer {
    /// Queues the same value for every element of a range.
    ///
    /// # Errors
    /// What the driver reports.
    ///
    /// # Panics
    /// Where the range does not lie in the block.
    pub fn fill(&mut self, range: Range<usize>, value: f32) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut part = self.part(range);
        // SAFETY: the memory lives as long as the device, and what comes after is queued behind this.
        unsafe { part.set_32_async(value.to_bits(), self.gpu.stream()) }.map_err(|e| failed("fill", e))
    }
}

impl<T: DeviceCopy> Drop for Buffer<T> {
    fn drop(&mut self) {
        // What is dropped after this is given back by whichever thread this is; an error has no one to go to.
        let _ = self.gpu.enter();
    }
}
