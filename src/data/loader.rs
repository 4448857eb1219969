//! The loader: batches in a keyed order, prepared by background threads.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::augment::{Augment, Normalise, PixelTable};
use super::batch::{Batch, BatchShape, Buffers, Pool};
use super::dataset::Dataset;
use super::format::Split;
use super::order::{Sampler, Shuffle};
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// How a [`Loader`] reads its dataset.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// The part of the dataset to read.
    pub split: Split,
    /// Images per batch. More than the split holds means the whole split.
    pub batch: usize,
    /// Height and width of the batches' images. The stored images must have it.
    pub size: (usize, usize),
    /// The order of an epoch.
    pub shuffle: Shuffle,
    /// Random changes.
    pub augment: Augment,
    /// How bytes become floats.
    pub normalise: Normalise,
    /// Leave out the last batch of an epoch if it is not full.
    pub drop_last: bool,
    /// Label smoothing ε: targets are `(1−ε)·onehot + ε/classes`.
    pub label_smoothing: f32,
    /// The seed of everything random.
    pub key: Key,
    /// Which of several runs of one seed this is.
    pub run: u64,
    /// Threads that prepare batches.
    pub threads: usize,
    /// Batches prepared ahead of the one in use; each costs the memory of a batch.
    pub prefetch: usize,
}

impl LoaderConfig {
    /// For training: shuffled, the last batch kept, normalised by the dataset's statistics, no augmentation, seed 0.
    /// `size` is the dataset's if fixed (else 0, to be set).
    pub fn train(dataset: &Dataset, batch: usize) -> Self {
        // One thread prepares hundreds of thousands of CIFAR images a second: most cores belong to the training.
        let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 4).clamp(1, 8));
        LoaderConfig {
            split: Split::Train,
            batch,
            size: dataset.fixed_size().unwrap_or((0, 0)),
            shuffle: Shuffle::Full,
            augment: Augment::NONE,
            normalise: Normalise { mean: dataset.mean(), std: dataset.std() },
            drop_last: false,
            label_smoothing: 0.0,
            key: Key::new(0),
            run: 0,
            threads,
            prefetch: threads + 2,
        }
    }

    /// For evaluation: the validation split in the file's order.
    pub fn valid(dataset: &Dataset, batch: usize) -> Self {
        LoaderConfig { split: Split::Valid, shuffle: Shuffle::No, ..LoaderConfig::train(dataset, batch) }
    }

    /// The bytes that a loader of `dataset` keeps: its batches, the list of its samples and an epoch's order.
    pub fn bytes(&self, dataset: &Dataset) -> usize {
        let samples = dataset.split(self.split).len();
        let image = self.size.0.saturating_mul(self.size.1).saturating_mul(super::format::CHANNELS);
        let floats = self.batch.min(samples).saturating_mul(image.saturating_add(dataset.classes().len()));
        let batches = self.prefetch.saturating_add(1).saturating_mul(floats).saturating_mul(size_of::<f32>());
        batches.saturating_add(2 * size_of::<u32>() * samples)
    }

    fn check(&self, dataset: &Dataset) -> Result<()> {
        let usage = |subject: &str, found: String, expected: &str| {
            Err(Error::new(ErrorKind::Usage, subject, found).expected(expected))
        };
        if self.batch == 0 || self.threads == 0 || self.prefetch == 0 {
            let found = format!("batch {}, {} threads, prefetch {}", self.batch, self.threads, self.prefetch);
            return usage("loader", found, "positive numbers");
        }
        if self.threads > 1024 || self.prefetch > 4096 {
            let found = format!("{} threads, prefetch {}", self.threads, self.prefetch);
            return usage("loader", found, "at most 1024 threads and 4096 batches ahead");
        }
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return usage("label smoothing", self.label_smoothing.to_string(), "0 to 1");
        }
        let Normalise { mean, std } = self.normalise;
        if mean.iter().any(|v| !v.is_finite()) || std.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            let found = format!("mean {mean:?}, std {std:?}");
            let e = Error::new(ErrorKind::Usage, "normalisation", found).expected("finite means, positive deviations");
            return Err(e.hint("images of one colour have no deviation: give a mean and a std, or normalise by none"));
        }
        if dataset.split(self.split).is_empty() {
            let found = format!("no image in the split {}", self.split);
            return Err(Error::new(ErrorKind::Usage, dataset.path().display(), found).expected("at least one"));
        }
        check_sizes(dataset, self.split, self.size)?;
        if self.augment.pad > self.size.0.min(self.size.1) {
            return usage("augmentation", format!("pad {}", self.augment.pad), "at most the image's shorter side");
        }
        Ok(())
    }
}

/// Every image of the split has the size of the batches. A size of 0 is one that nobody chose, because the dataset
/// has no single one.
fn check_sizes(dataset: &Dataset, split: Split, size: (usize, usize)) -> Result<()> {
    if dataset.fixed_size() == Some(size) {
        return Ok(());
    }
    let samples = dataset.split(split);
    let (first_height, first_width, _) = dataset.size_and_label(samples[0] as usize)?;
    let chosen = size.0 > 0 && size.1 > 0;
    let (height, width) = if chosen { size } else { (first_height, first_width) };
    for &i in samples {
        let (h, w, _) = dataset.size_and_label(i as usize)?;
        if (h, w) != (height, width) {
            let asked = if chosen { "as asked".to_owned() } else { format!("as sample {}", samples[0]) };
            let example = if chosen { format!("{height}x{width}") } else { "128x128".to_owned() };
            return Err(Error::new(
                ErrorKind::Shape,
                dataset.path().display(),
                format!("sample {i} has {h}×{w} pixels"),
            )
            .expected(format!("{height}×{width} for every sample, {asked}"))
            .hint(format!("convert the images to one size: data-tools convert SRC OUT.hgd --size {example}")));
        }
    }
    if chosen {
        return Ok(());
    }
    // The whole file varies, but not this split: the batches still need the size to be said.
    Err(Error::new(ErrorKind::Usage, "image size", format!("{}×{}", size.0, size.1))
        .expected(format!("{height}×{width}, which every sample of the split {split} has")))
}

/// Hands out the batches of any epoch of a dataset.
///
/// A batch's content depends on (seed, run, epoch, sample) only: not on the number of threads, nor on which epochs
/// or batches were read before.
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
        let classes = dataset.classes().len();
        let shape = BatchShape { batch: config.batch.min(sampler.len()), height, width, classes };
        // One more than is prepared ahead: the one in use.
        let pool = Arc::new(Pool::new(shape, config.prefetch + 1)?);
        let table = PixelTable::new(&config.normalise);
        let key = config.key.with_name("data").with(config.run);
        Ok(Loader { source: Arc::new(Source { dataset, config, sampler, table, pool, key }) })
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
        let key = source.key.with(epoch);
        let ready = (0..source.config.prefetch).map(|_| None).collect();
        let queue = Queue { next: first_batch, taken: first_batch, ready, stop: false };
        let order = source.sampler.epoch(key);
        let shared = Arc::new(Shared {
            source,
            key,
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

/// What all epochs of a loader share.
struct Source {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    sampler: Sampler,
    table: PixelTable,
    pool: Arc<Pool>,
    /// Of (seed, run).
    key: Key,
}

impl Source {
    fn steps(&self) -> usize {
        let (n, batch) = (self.sampler.len(), self.pool.shape.batch);
        if self.config.drop_last { n / batch } else { n.div_ceil(batch) }
    }

    /// Prepares the batch of these samples. `columns` is scratch.
    fn fill(&self, epoch: Key, samples: &[u32], columns: &mut Vec<usize>) -> Result<Buffers> {
        let mut buffers = self.pool.take()?;
        let shape = &self.pool.shape;
        buffers.labels.clear();
        buffers.samples.clear();
        buffers.samples.extend_from_slice(samples);
        let smoothing = self.config.label_smoothing;
        let off = smoothing / shape.classes as f32;
        let images = buffers.images.chunks_exact_mut(shape.image_len());
        let targets = buffers.targets.chunks_exact_mut(shape.classes);
        for ((&i, image), target) in samples.iter().zip(images).zip(targets) {
            let sample = self.dataset.sample(i as usize)?;
            let placement = self.config.augment.draw(epoch.with(u64::from(i)));
            self.table.convert(&sample, placement, columns, image);
            target.fill(off);
            target[sample.label as usize] = 1.0 - smoothing + off;
            buffers.labels.push(sample.label);
        }
        Ok(buffers)
    }
}

/// What an epoch's consumer and workers share.
struct Shared {
    source: Arc<Source>,
    /// Of (seed, run, epoch).
    key: Key,
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
        let mut columns = Vec::with_capacity(self.source.config.size.1);
        while let Some(batch) = self.claim() {
            // A panic here would leave the consumer waiting for ever.
            let filled = catch_unwind(AssertUnwindSafe(|| self.prepare(batch, &mut columns)));
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

    fn prepare(&self, batch: usize, columns: &mut Vec<usize>) -> Result<Buffers> {
        let size = self.source.pool.shape.batch;
        let start = batch * size;
        let samples = &self.order[start..self.order.len().min(start + size)];
        self.source.fill(self.key, samples, columns)
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
