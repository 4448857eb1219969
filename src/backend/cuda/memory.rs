//! Memory on the device, and memory of the host that copies reach while the host goes on.

use std::ops::Range;

use cust::memory::{AsyncCopyDestination, DeviceBuffer, DeviceCopy, DevicePointer, DeviceSlice, LockedBuffer};
use cust::stream::Stream;

use super::event::Event;
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
        let wrong = |e| failed(format!("cuda:{}: {} of memory", gpu.info().index, Size::of::<T>(len)), e);
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

    /// Queues a copy of the first `len` elements of `from` to those from `start` on.
    ///
    /// # Panics
    /// Where they do not lie in both.
    pub(super) fn send(&mut self, start: usize, from: &Pinned<T>, len: usize, stream: &Stream) -> Result<()> {
        let mut part = self.part(start..start + len);
        // SAFETY: `Pinned` lets nobody at its elements, and is not given back, before the event behind the copy.
        unsafe { part.async_copy_from(&from.memory[..len], stream) }.map_err(|e| failed("copy to the device", e))?;
        from.done.record(stream)
    }

    /// Queues a copy of a range to the elements of `to` from `start` on.
    ///
    /// # Panics
    /// Where they do not lie in both.
    pub(super) fn receive(&self, range: Range<usize>, to: &mut Pinned<T>, start: usize, stream: &Stream) -> Result<()> {
        let (part, to_part) = (self.part(range.clone()), &mut to.memory[start..start + range.len()]);
        // SAFETY: as for `send`.
        unsafe { part.async_copy_to(to_part, stream) }.map_err(|e| failed("copy from the device", e))?;
        to.done.record(stream)
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

/// Page-locked memory of the host: copies from and to it are queued, and the host goes on. Its elements are out of reach until
/// the last copy is done.
pub(super) struct Pinned<T: DeviceCopy = f32> {
    gpu: &'static Gpu,
    memory: LockedBuffer<T>,
    /// Behind the last copy.
    done: Event,
}

impl<T: DeviceCopy + Default> Pinned<T> {
    /// `len` elements, zero.
    pub fn new(gpu: &'static Gpu, len: usize) -> Result<Self> {
        gpu.enter()?;
        let wrong = |e| failed(format!("cuda:{}: {} of page-locked memory", gpu.info().index, Size::of::<T>(len)), e);
        let memory = LockedBuffer::new(&T::default(), len).map_err(wrong)?;
        Ok(Pinned { gpu, memory, done: Event::new(gpu)? })
    }
}

impl<T: DeviceCopy> Pinned<T> {
    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Waits for the copies, and gives the elements.
    pub fn elements(&mut self) -> Result<&mut [T]> {
        self.done.wait()?;
        Ok(&mut self.memory)
    }

    /// Makes the stream's work from now on come after the last copy.
    pub fn holds_back(&self, stream: &Stream) -> Result<()> {
        self.done.holds_back(stream)
    }
}

impl<T: DeviceCopy> Drop for Pinned<T> {
    fn drop(&mut self) {
        // A copy may be under way. An error has no one to go to.
        let _ = self.gpu.enter();
        let _ = self.done.wait();
    }
}

/// Bytes as an error names them.
struct Size(usize);

impl Size {
    fn of<T>(len: usize) -> Self {
        Size(len.saturating_mul(size_of::<T>()))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes ({} MiB)", self.0, self.0 >> 20)
    }
}

impl<T: DeviceCopy> Drop for Buffer<T> {
    fn drop(&mut self) {
        // What is dropped after this is given back by whichever thread this is; an error has no one to go to.
        let _ = self.gpu.enter();
    }
}
