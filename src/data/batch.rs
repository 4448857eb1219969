//! Batches and the pool their memory comes from.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::{ArrayView2, ArrayView4};

use super::augment::{PixelTable, Placement};
use super::format::CHANNELS;
use crate::plan::Pixels;
use crate::{Error, ErrorKind, Result};

/// What every batch of a loader looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchShape {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub outputs: usize,
}

impl BatchShape {
    /// Floats of one image.
    pub fn image_len(&self) -> usize {
        self.height * self.width * CHANNELS
    }
}

/// The memory of one batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub images: Vec<f32>,
    /// Bytes of images and where each is placed, in the place of `images` where the loader leaves them as they are.
    pub pixels: Vec<u8>,
    pub placements: Vec<[i32; 4]>,
    pub targets: Vec<f32>,
    pub labels: Vec<u32>,
    pub samples: Vec<u32>,
}

impl Buffers {
    /// Memory for a full batch; a lack of memory is an error, not an abort.
    fn new(shape: &BatchShape, as_pixels: bool) -> Result<Self> {
        let mut buffers = Buffers::default();
        let mut reserve = || {
            let images = shape.batch.checked_mul(shape.image_len())?;
            let targets = shape.batch.checked_mul(shape.outputs)?;
            if as_pixels {
                buffers.pixels.try_reserve_exact(images).ok()?;
                buffers.pixels.resize(images, 0);
                buffers.placements.try_reserve_exact(shape.batch).ok()?;
            } else {
                buffers.images.try_reserve_exact(images).ok()?;
                buffers.images.resize(images, 0.0);
            }
            buffers.targets.try_reserve_exact(targets).ok()?;
            buffers.labels.try_reserve_exact(shape.batch).ok()?;
            buffers.samples.try_reserve_exact(shape.batch).ok()?;
            buffers.targets.resize(targets, 0.0);
            Some(())
        };
        let reserved = reserve();
        let too_large = || {
            Error::new(ErrorKind::Unsupported, "batch", format!("no memory for {shape:?}")).hint("use a smaller batch")
        };
        reserved.ok_or_else(too_large).map(|()| buffers)
    }
}

/// Buffers that wait for the next batch.
#[derive(Debug)]
pub(crate) struct Pool {
    pub shape: BatchShape,
    /// What makes numbers of the bytes, where batches hold those.
    pub pixels: Option<PixelTable>,
    /// No more than this many are kept: a caller who collects batches does not pin their memory for good.
    keep: usize,
    free: Mutex<Vec<Buffers>>,
}

impl Pool {
    /// A pool of `filled` buffers.
    pub fn new(shape: BatchShape, pixels: Option<PixelTable>, filled: usize) -> Result<Self> {
        let keep = filled + 2;
        let mut free = Vec::with_capacity(keep);
        for _ in 0..filled {
            free.push(Buffers::new(&shape, pixels.is_some())?);
        }
        Ok(Pool { shape, pixels, keep, free: Mutex::new(free) })
    }

    /// A free buffer, or a new one while the caller keeps the others.
    pub fn take(&self) -> Result<Buffers> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.map_or_else(|| Buffers::new(&self.shape, self.pixels.is_some()), Ok)
    }

    pub fn put(&self, buffers: Buffers) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.keep {
            free.push(buffers);
        }
    }
}

/// Some images ready for training. Dropping it gives its memory back to the loader.
#[derive(Debug)]
pub struct Batch {
    buffers: Buffers,
    pool: Arc<Pool>,
    /// What the bytes are as numbers, where somebody has asked.
    numbers: OnceLock<Vec<f32>>,
}

impl Batch {
    pub(crate) fn new(buffers: Buffers, pool: Arc<Pool>) -> Self {
        Batch { buffers, pool, numbers: OnceLock::new() }
    }

    /// Number of images: the loader's batch size, or less in the last batch of an epoch.
    #[allow(clippy::len_without_is_empty)] // a batch is never empty
    pub fn len(&self) -> usize {
        self.buffers.labels.len()
    }

    /// `[n, height, width, 3]`, normalised.
    pub fn images(&self) -> ArrayView4<'_, f32> {
        let BatchShape { height, width, .. } = self.pool.shape;
        view(ArrayView4::from_shape((self.len(), height, width, CHANNELS), self.images_slice()))
    }

    /// The same as one slice of `n·height·width·3`.
    pub fn images_slice(&self) -> &[f32] {
        let images = match &self.pool.pixels {
            Some(table) => self.numbers.get_or_init(|| self.as_numbers(table)),
            None => &self.buffers.images,
        };
        &images[..self.len() * self.pool.shape.image_len()]
    }

    /// Its images as bytes and what makes numbers of them, where the loader leaves that to a device
    /// ([`LoaderConfig::pixels`](super::LoaderConfig::pixels)).
    pub fn pixels(&self) -> Option<Pixels<'_>> {
        let bytes = &self.buffers.pixels;
        self.pool.pixels.as_ref().map(|table| Pixels {
            bytes: &bytes[..self.len() * self.pool.shape.image_len()],
            placements: &self.buffers.placements,
            table: table.numbers(),
        })
    }

    fn as_numbers(&self, table: &PixelTable) -> Vec<f32> {
        let BatchShape { height, width, .. } = self.pool.shape;
        let (len, mut columns) = (self.pool.shape.image_len(), Vec::new());
        let mut numbers = vec![0.0; self.len() * len];
        let images = self.buffers.pixels.chunks_exact(len).zip(&self.buffers.placements);
        for ((bytes, &at), out) in images.zip(numbers.chunks_exact_mut(len)) {
            table.convert_bytes(bytes, (height, width), Placement::of_ints(at), &mut columns, out);
        }
        numbers
    }

    /// `[n, outputs]`: one-hot, smoothed and mixed if the loader is told so; every row sums to 1.
    pub fn targets(&self) -> ArrayView2<'_, f32> {
        view(ArrayView2::from_shape((self.len(), self.pool.shape.outputs), self.targets_slice()))
    }

    /// The same as one slice of `n·outputs`.
    pub fn targets_slice(&self) -> &[f32] {
        &self.buffers.targets[..self.len() * self.pool.shape.outputs]
    }

    /// The class of each image; of the one with the larger part where two are mixed by MixUp, of the one outside the box
    /// where they are by CutMix.
    pub fn labels(&self) -> &[u32] {
        &self.buffers.labels
    }

    /// The index of each image in the dataset.
    pub fn samples(&self) -> &[u32] {
        &self.buffers.samples
    }
}

/// The slices are cut to the shape one line above each call.
fn view<T>(cut_to_shape: Result<T, ndarray::ShapeError>) -> T {
    cut_to_shape.expect("the slice is as long as its shape says")
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buffers));
    }
}
