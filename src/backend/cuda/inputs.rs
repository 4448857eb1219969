//! Batches on their way to the device.

use super::event::Event;
use super::memory::Pinned;
use super::{Buffer, Gpu, Ptr, int, kernels, per_one};
use crate::plan::{Input, Pixels, Plan};
use crate::{Error, ErrorKind, Result};

kernels! { "input":
    /// The numbers of images from their bytes, each moved and mirrored by its placement.
    /// Grid ⌈values/256⌉, at most 65535, any number being right; block 256.
    fn input_pixels(x: Ptr, placements: Ptr, table: Ptr, y: Ptr, images: i32, height: i32, width: i32);
}

/// Two places that batches take in turn: while kernels read one, the next batch is copied to the other.
pub(super) struct Inputs {
    places: [Option<Place>; 2],
    turn: usize,
    /// What a kernel makes of bytes: one place is enough, since kernels follow each other.
    numbers: Option<Buffer>,
    /// Of the batch that was sent last.
    images: Ptr,
    targets: Ptr,
}

/// Bytes of a batch: its images, or what they are made of, and then its targets.
struct Place {
    host: Pinned<u8>,
    device: Buffer<u8>,
    /// Behind the kernels that read them.
    read: Event,
}

impl Inputs {
    pub fn new() -> Self {
        Inputs { places: [None, None], turn: 0, numbers: None, images: Ptr::NULL, targets: Ptr::NULL }
    }

    /// Copies a batch to page-locked memory and queues its copy to the device. Kernels from now on come after it.
    pub fn send(&mut self, gpu: &'static Gpu, plan: &Plan, input: Input<'_, f32>) -> Result<()> {
        let not_contiguous = || Error::new(ErrorKind::Shape, "images", "an array that is not contiguous");
        let images = match input.pixels {
            Some(Pixels { bytes, placements, table }) => [bytes, bytes_of(placements.as_flattened()), bytes_of(table)],
            None => [bytes_of(input.images.as_slice().ok_or_else(not_contiguous)?), &[], &[]],
        };
        let targets = bytes_of(input.targets.as_ref().and_then(|targets| targets.as_slice()).unwrap_or_default());
        let [placements_at, table_at, targets_at] = ends(images);
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
        let host = place.host.elements()?;
        for (at, part) in [0, placements_at, table_at, targets_at].into_iter().zip(images.into_iter().chain([targets]))
        {
            host[at..][..part.len()].copy_from_slice(part);
        }
        place.read.holds_back(gpu.copies())?;
        place.device.send(0, &place.host, targets_at + targets.len(), gpu.copies())?;
        place.host.holds_back(gpu.stream())?;
        let at = |bytes: usize| Ptr(place.device.ptr().0 + bytes as u64);
        (self.images, self.targets) = (at(0), at(targets_at));
        if input.pixels.is_some() {
            let (n, height, width, _) = input.images.dim();
            let most = plan.max_batch() * plan.graph().shape(plan.graph().images()).len();
            let numbers = match &mut self.numbers {
                Some(numbers) if numbers.len() >= most => numbers,
                none => none.insert(Buffer::new(gpu, most)?),
            };
            self.images = numbers.ptr();
            let (launch, [n, height, width]) = (per_one(input.images.len()), [n, height, width].map(int));
            input_pixels(gpu, launch, at(0), at(placements_at), at(table_at), self.images, n, height, width)?;
        }
        Ok(())
    }

    /// Elements of f32 that all of it takes on the device.
    pub fn len(&self) -> usize {
        let numbers = self.numbers.as_ref().map_or(0, |numbers| numbers.len());
        self.places.iter().flatten().map(|place| place.device.len()).sum::<usize>() / size_of::<f32>() + numbers
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

/// The bytes of a plan's largest batch, as numbers or as bytes, which are allocated at once: no later step does.
fn most_bytes(plan: &Plan) -> usize {
    let (n, image) = (plan.max_batch(), plan.graph().shape(plan.graph().images()).len());
    let as_bytes = n * (image + size_of::<[i32; 4]>()) + size_of::<[[f32; 256]; 3]>() + 3 * ALIGN;
    as_bytes.max(size_of::<f32>() * n * image + ALIGN) + size_of::<f32>() * n * plan.classes()
}

/// What tensors begin at multiples of.
const ALIGN: usize = 64;

/// Where what follows each of these parts begins.
fn ends<const N: usize>(parts: [&[u8]; N]) -> [usize; N] {
    let mut end = 0usize;
    parts.map(|part| {
        end = (end + part.len()).next_multiple_of(ALIGN);
        end
    })
}

/// What is all number, without gaps.
trait Number: Copy {}

impl Number for f32 {}
impl Number for i32 {}

fn bytes_of<T: Number>(values: &[T]) -> &[u8] {
    // SAFETY: the same memory, all of it written: numbers have no gaps.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
