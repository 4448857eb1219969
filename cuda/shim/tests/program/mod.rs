//! What a program does with cust: a device, a context, a module, pinned memory, copies and kernels on a stream, events.

use std::error::Error;

use cust::context::Context;
use cust::device::{Device, DeviceAttribute};
use cust::error::{CudaError, CudaResult};
use cust::event::{Event, EventFlags, EventStatus};
use cust::launch;
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};

const PTX: &str = include_str!("../../../driver-double/tests/kernels/reduce.ptx");

const BLOCKS: u32 = 8;
const THREADS: u32 = 256;
const LEN: usize = 10_000;

/// What lives as long as the program, in the order in which it goes.
struct Gpu {
    stream: Stream,
    module: Module,
    _context: Context,
}

fn start() -> CudaResult<Gpu> {
    cust::init(cust::CudaFlags::empty())?;
    let context = Context::new(Device::get_device(0)?)?;
    let module = Module::from_ptx(PTX, &[])?;
    Ok(Gpu { stream: Stream::new(StreamFlags::NON_BLOCKING, None)?, module, _context: context })
}

/// Sums `values` by blocks, of which the kernel is told that there are `len`.
fn launch_sums(gpu: &Gpu, values: &DeviceBuffer<f32>, sums: &DeviceBuffer<f32>, len: usize) -> CudaResult<()> {
    let function = gpu.module.get_function("block_sum")?;
    let stream = &gpu.stream;
    // SAFETY: the kernel takes two pointers to f32 and an int. It writes a sum per block, for which there is room; that
    // it reads no further than `values` is the caller's matter, and the double's to find out.
    unsafe {
        launch!(function<<<BLOCKS, THREADS, 0, stream>>>(values.as_device_ptr(), sums.as_device_ptr(), len as i32))
    }?;
    stream.synchronize()
}

/// Sums whole numbers, so that the order of a sum changes nothing.
pub fn sums_blocks() -> Result<(), Box<dyn Error>> {
    // A program linked with a driver would have one by now.
    #[cfg(target_os = "linux")]
    assert!(!std::fs::read_to_string("/proc/self/maps")?.contains("libcuda"));
    let gpu = start()?;
    let device = Device::get_device(0)?;
    assert!(device.name()?.starts_with("driver double"), "{}", device.name()?);
    assert!(device.total_memory()? > 0);
    assert_eq!(device.get_attribute(DeviceAttribute::ComputeCapabilityMajor)?, 8);
    let (_, threads) = gpu.module.get_function("block_sum")?.suggested_launch_configuration(0, 0.into())?;
    assert!(threads >= 32);

    let host: Vec<f32> = (0..LEN).map(|i| (i % 13) as f32 - 4.0).collect();
    let pinned = LockedBuffer::from_slice(&host)?;
    let mut back = LockedBuffer::new(&0.0f32, BLOCKS as usize)?;
    let (started, ended) = (Event::new(EventFlags::DEFAULT)?, Event::new(EventFlags::DEFAULT)?);
    let sums = DeviceBuffer::from_slice(&[0.0f32; BLOCKS as usize])?;
    started.record(&gpu.stream)?;
    // SAFETY: all three buffers outlive the wait at the end, and nothing else touches them before.
    unsafe {
        let mut values = DeviceBuffer::<f32>::uninitialized(LEN)?;
        values.async_copy_from(&pinned[..], &gpu.stream)?;
        launch_sums(&gpu, &values, &sums, LEN)?;
        sums.async_copy_to(&mut back[..], &gpu.stream)?;
        ended.record(&gpu.stream)?;
        gpu.stream.synchronize()?;
    }
    assert_eq!(ended.query()?, EventStatus::Ready);
    assert!(ended.elapsed_time_f32(&started)? >= 0.0);

    let stride = (BLOCKS * THREADS) as usize;
    let block = |b: usize| move |i: &usize| i % stride / THREADS as usize == b;
    let want: Vec<f32> = (0..BLOCKS as usize).map(|b| (0..LEN).filter(block(b)).map(|i| host[i]).sum()).collect();
    assert_eq!(back[..], want);
    let mut again = vec![0.0; BLOCKS as usize];
    sums.copy_to(&mut again)?;
    assert_eq!(again, want);
    Ok(())
}

/// A kernel that reads too far.
pub fn faults() -> Result<(), Box<dyn Error>> {
    let gpu = start()?;
    let values = DeviceBuffer::from_slice(&[1.0f32; LEN])?;
    let sums = DeviceBuffer::from_slice(&[0.0f32; BLOCKS as usize])?;
    launch_sums(&gpu, &values, &sums, LEN)?;
    let fault = launch_sums(&gpu, &values, &sums, LEN + 1);
    assert_eq!(fault, Err(CudaError::IllegalAddress));
    assert_eq!(CudaError::IllegalAddress.to_string(), r#""an illegal memory access was encountered""#);
    // It stays, and what is dropped now is dropped without a panic.
    assert_eq!(gpu.stream.synchronize(), Err(CudaError::IllegalAddress));
    Ok(())
}
