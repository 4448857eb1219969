//! The loader: batches in a keyed order, prepared by background threads.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::LoaderConfig;
use super::augment::PixelTable;
use super::batch::{Batch, BatchShape, Buffers, Pool};
use super::dataset::Dataset;
use super::order::Sampler;
use super::prepare::{Desk, Source};
use crate::{Error, ErrorKind, Result};

/// Hands out the batches of any epoch of a dataset.
///
/// A batch's content depends on (seed, run, epoch, sample) only, and on its number where images are mixed or erased: not
/// on the number of threads, nor on which epochs or batches were read before.
///
/// ```
/// # fn main() -> handgrad::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("a.hgd");
/// use std::sync::Arc;
/// use handgrad::data::{Augment, Dataset, DatasetWriter, Loader, LoaderConfig, Split};
/// let mut writer = DatasetWriter::create(&path, &["dark".into(), "light".into()])?;
/// for i in 0..10 {
///     writer.push(Split::Train, u32::from(i >= 5), 8, 8, &[25 * i; 8 * 8 * 3])?;
/// }
/// writer.finish()?;
/// let dataset = Arc::new(Dataset::open(&path)?);
/// let config = LoaderConfig { augment: Augment::CIFAR, ..LoaderConfig::train(&dataset, 4) };
/// let loader = Loader::new(dataset, config)?;
/// assert_eq!(loader.steps_per_epoch(), 3);
/// for batch in loader.epoch(0, 0)? {
///     let batch = batch?;
///     assert_eq!(batch.images().dim(), (batch.len(), 8, 8, 3));
///     assert_eq!(batch.targets().dim(), (batch.len(), 2));
/// }
/// # Ok(())
/// # }
/// ```
pub struct Loader {
    source: Arc<Source>,
}

impl Loader {
    /// A loader of `dataset`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a configuration that makes no sense or an empty split, [`ErrorKind::Shape`] if an
    /// image is not of the asked size (the first such sample is named).
    pub fn new(dataset: Arc<Dataset>, config: LoaderConfig) -> Result<Self> {
        config.check(&dataset)?;
        let sampler = Sampler::new(&dataset, config.split, config.shuffle)?;
        let (height, width) = config.size;
        let shape = BatchShape { batch: config.batch.min(sampler.len()), height, width, outputs: config.outputs };
        // One more than is prepared ahead: the one in use.
        let table = config.pixels.then(|| PixelTable::new(&config.normalise));
        let pool = Arc::new(Pool::new(shape, table, config.prefetch + 1)?);
        Ok(Loader { source: Arc::new(Source::new(dataset, config, sampler, pool)?) })
    }

    /// The dataset it reads.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.source.dataset
    }

    /// How it reads.
    pub fn config(&self) -> &LoaderConfig {
        &self.source.config
    }

    /// Number of batches in an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.source.steps()
    }

    /// Number of images in an epoch: without those of a dropped last batch.
    pub fn images_per_epoch(&self) -> usize {
        let all = self.source.sampler.len();
        if self.source.config.drop_last { self.source.steps() * self.source.pool.shape.batch } else { all }
    }

    /// Bytes of what it keeps in memory: see [`LoaderConfig::bytes`].
    pub fn bytes(&self) -> usize {
        self.source.config.bytes(&self.source.dataset)
    }

    /// The batch that these samples of the split would be, in this epoch and as its batch of this number: to look at, since
    /// a training loop gets its batches from [`Loader::epoch`].
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for no samples, more than a batch holds, or one that the split does not have.
    pub fn prepare(&self, epoch: u64, number: usize, samples: &[u32]) -> Result<Batch> {
        let Source { dataset, config, pool, .. } = &*self.source;
        if !(1..=pool.shape.batch).contains(&samples.len()) {
            let e = Error::new(ErrorKind::Usage, "samples", format!("{} of them", samples.len()));
            return Err(e.expected(format!("1 to {}", pool.shape.batch)));
        }
        for &i in samples {
            let split = dataset.sample(i as usize)?.split;
            if split != config.split {
                let e = Error::new(ErrorKind::Usage, format!("sample {i}"), format!("of the split {split}"));
                return Err(e.expected(format!("one of the split {}", config.split)));
            }
        }
        let buffers = self.source.fill(epoch, number, samples, &mut self.source.desk()?)?;
        Ok(Batch::new(buffers, Arc::clone(pool)))
    }

    /// The batches of an epoch from `first_batch` on (to resume inside an epoch). Its threads start now and end
    /// with the returned value.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if `first_batch` is beyond the epoch's end, [`ErrorKind::Io`] if no thread can start.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Result<Epoch> {
        let steps = self.source.steps();
        if first_batch > steps {
            return Err(Error::new(ErrorKind::Usage, "first batch", first_batch).expected(format!("at most {steps}")));
        }
        let source = Arc::clone(&self.source);
        let ready = (0..source.config.prefetch).map(|_| None).collect();
        let queue = Queue { next: first_batch, taken: first_batch, ready, stop: false };
        let order = source.sampler.epoch(source.key.with(epoch));
        let shared = Arc::new(Shared {
            source,
            epoch,
            order,
            steps,
            queue: Mutex::new(queue),
            room: Condvar::new(),
            filled: Condvar::new(),
        });
        let mut epoch = Epoch { shared, workers: Vec::new() };
        epoch.start_workers(steps - first_batch)?;
        Ok(epoch)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { dataset, config, .. } = &*self.source;
        f.debug_struct("Loader").field("dataset", dataset).field("config", config).finish_non_exhaustive()
    }
}

/// What an epoch's consumer and workers share.
struct Shared {
    source: Arc<Source>,
    epoch: u64,
    order: Vec<u32>,
    steps: usize,
    queue: Mutex<Queue>,
    /// A worker may have room to prepare another batch.
    room: Condvar,
    /// A batch is ready.
    filled: Condvar,
}

/// Batches between the workers and the consumer. Batch `b` waits in place `b % ready.len()`, free because nobody
/// starts a batch that is `ready.len()` ahead of the consumer.
struct Queue {
    /// The batch that the next idle worker prepares.
    next: usize,
    /// The batch that the consumer takes next.
    taken: usize,
    ready: Vec<Option<Result<Buffers>>>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life: claim a batch, prepare it, put it in its place.
    fn work(&self) {
        let mut desk = None;
        while let Some(batch) = self.claim() {
            // A panic here would leave the consumer waiting for ever.
            let filled = catch_unwind(AssertUnwindSafe(|| self.prepare(batch, &mut desk)));
            let filled = filled.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unsupported, "loader", format!("a worker panicked in batch {batch}")))
            });
            let mut queue = self.lock();
            if queue.stop {
                // Nobody will take it: its memory goes back.
                filled.into_iter().for_each(|buffers| self.source.pool.put(buffers));
                return;
            }
            let place = batch % queue.ready.len();
            queue.ready[place] = Some(filled);
            drop(queue);
            self.filled.notify_one();
        }
    }

    fn claim(&self) -> Option<usize> {
        let mut queue = self.lock();
        loop {
            if queue.stop || queue.next >= self.steps {
                return None;
            }
            if queue.next - queue.taken < queue.ready.len() {
                queue.next += 1;
                return Some(queue.next - 1);
            }
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn prepare(&self, batch: usize, desk: &mut Option<Desk>) -> Result<Buffers> {
        let desk = match desk {
            Some(desk) => desk,
            none => none.insert(self.source.desk()?),
        };
        let size = self.source.pool.shape.batch;
        let start = batch * size;
        let samples = &self.order[start..self.order.len().min(start + size)];
        self.source.fill(self.epoch, batch, samples, desk)
    }
}

/// The batches of one epoch, in order. Dropping it early ends its threads.
///
/// After an error the epoch is over.
pub struct Epoch {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Epoch {
    fn start_workers(&mut self, batches: usize) -> Result<()> {
        for i in 0..self.shared.source.config.threads.min(batches) {
            let shared = Arc::clone(&self.shared);
            let worker = std::thread::Builder::new().name(format!("handgrad-loader-{i}"));
            match worker.spawn(move || shared.work()) {
                Ok(handle) => self.workers.push(handle),
                Err(e) if self.workers.is_empty() => {
                    return Err(Error::new(ErrorKind::Io, "loader", e).hint("the system allows no more threads"));
                }
                Err(_) => break, // fewer threads give the same batches, later
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        let mut queue = self.shared.lock();
        queue.stop = true;
        // What was prepared for nothing goes back to the pool.
        for filled in queue.ready.iter_mut().filter_map(Option::take).flatten() {
            self.shared.source.pool.put(filled);
        }
        drop(queue);
        self.shared.room.notify_all();
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").field("steps", &self.shared.steps).finish_non_exhaustive()
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let mut queue = self.shared.lock();
        if queue.stop || queue.taken >= self.shared.steps {
            return None;
        }
        let place = queue.taken % queue.ready.len();
        let filled = loop {
            if let Some(filled) = queue.ready[place].take() {
                break filled;
            }
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.taken += 1;
        drop(queue);
        self.shared.room.notify_one();
        let pool = &self.shared.source.pool;
        let batch = filled.map(|buffers| Batch::new(buffers, Arc::clone(pool)));
        if batch.is_err() {
            self.stop();
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let queue = self.shared.lock();
        let left = if queue.stop { 0 } else { self.shared.steps - queue.taken };
        (0, Some(left))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop();
        for worker in self.workers.drain(..) {
            // A worker catches its panics, so there is nothing to pass on.
            let _ = worker.join();
        }
    }
}
