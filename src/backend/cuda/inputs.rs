//! Batches on their way to the device.

use super::event::Event;
use super::memory::Pinned;
use super::{Buffer, Gpu, Ptr};
use crate::plan::{Input, Plan};
use crate::{Error, ErrorKind, Result};

/// Two places that batches take in turn: while kernels read one, the next batch is copied to the other.
pub(super) struct Inputs {
    places: [Option<Place>; 2],
    turn: usize,
    /// Of the batch that was sent last.
    images: Ptr,
    targets: Ptr,
}

/// Bytes of a batch: images, then targets.
struct Place {
    host: Pinned<u8>,
    device: Buffer<u8>,
    /// Behind the kernels that read them.
    read: Event,
}

impl Inputs {
    pub fn new() -> Self {
        Inputs { places: [None, None], turn: 0, images: Ptr::NULL, targets: Ptr::NULL }
    }

    /// Copies a batch to page-locked memory and queues its copy to the device. Kernels from now on come after it.
    pub fn send(&mut self, gpu: &'static Gpu, plan: &Plan, input: Input<'_, f32>) -> Result<()> {
        let not_contiguous = || Error::new(ErrorKind::Shape, "images", "an array that is not contiguous");
        let images = bytes_of(input.images.as_slice().ok_or_else(not_contiguous)?);
        let targets = bytes_of(input.targets.as_ref().and_then(|targets| targets.as_slice()).unwrap_or_default());
        // All that was queued so far is done with the last batch, when this is.
        if let Some(last) = &self.places[self.turn] {
            last.read.record(gpu.stream())?;
        }
        self.turn = 1 - self.turn;
        let place = &mut self.places[self.turn];
        let most = most_bytes(plan);
        let place = match place {
            Some(place) if place.host.len() >= most => place,
            place => place.insert(Place::new(gpu, most)?),
        };
        // Waits for the copy of two batches ago.
        let start = aligned(images.len());
        let bytes = place.host.elements()?;
        bytes[..images.len()].copy_from_slice(images);
        bytes[start..][..targets.len()].copy_from_slice(targets);
        place.read.holds_back(gpu.copies())?;
        place.device.send(0, &place.host, start + targets.len(), gpu.copies())?;
        place.host.holds_back(gpu.stream())?;
        self.images = place.device.ptr();
        self.targets = Ptr(self.images.0 + start as u64);
        Ok(())
    }

    /// Elements of f32 that the places take on the device.
    pub fn len(&self) -> usize {
        self.places.iter().flatten().map(|place| place.device.len()).sum::<usize>() / size_of::<f32>()
    }

    /// The images of the batch that was sent last.
    pub fn images(&self) -> Ptr {
        self.images
    }

    /// Its targets.
    pub fn targets(&self) -> Ptr {
        self.targets
    }
}

impl Place {
    fn new(gpu: &'static Gpu, bytes: usize) -> Result<Self> {
        Ok(Place { host: Pinned::new(gpu, bytes)?, device: Buffer::new(gpu, bytes)?, read: Event::new(gpu)? })
    }
}

/// The bytes of a plan's largest batch, which are allocated at once: no later step does.
fn most_bytes(plan: &Plan) -> usize {
    let images = plan.max_batch() * plan.graph().shape(plan.graph().images()).len();
    aligned(size_of::<f32>() * images) + size_of::<f32>() * plan.max_batch() * plan.classes()
}

/// Tensors begin at multiples of 64 bytes.
fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(64)
}

fn bytes_of(values: &[f32]) -> &[u8] {
    // SAFETY: the same memory; any bytes are bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
