//! Decoding on all cores, writing in order, in bounded memory.

use std::path::Path;
use std::time::Instant;
use std::vec::IntoIter;

use handgrad::data::{DatasetWriter, Split};
use handgrad::{Error, ErrorKind, Result};
use image::RgbImage;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::decode::{self, Resize};
use super::{Image, Item, Options};
use crate::progress::Progress;

/// Names of skipped files kept for the report; all are counted and shown.
const NAMED: usize = 100;

/// What a conversion did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Images written per split: train, valid.
    pub written: [u64; 2],
    /// Files that are no usable images.
    pub skipped: u64,
    /// The first of them: name and reason.
    pub skipped_names: Vec<(String, String)>,
    /// How long it took.
    pub seconds: f64,
}

/// Takes items, decodes them in groups, and writes one group while the next is decoded.
pub(crate) struct Sink<'a> {
    writer: DatasetWriter,
    pool: ThreadPool,
    options: &'a Options,
    progress: &'a mut Progress,
    /// Items to decode, and the weight they have.
    group: Vec<Item>,
    weight: usize,
    /// Bytes that the group's items hold.
    held: usize,
    /// Decoded items to write.
    decoded: Vec<Decoded>,
    report: Report,
    started: Instant,
}

type Decoded = (Item, Result<RgbImage, String>);

/// A group is full at this weight per thread: eight files of any size, or a thousand CIFAR images.
const FULL: usize = 8 * FILE;
const FILE: usize = 128;

/// A group is also full when it holds so many bytes (512 MB), before it is decoded or behind it.
const HELD: usize = 512 << 20;

impl<'a> Sink<'a> {
    pub fn create(
        out: &Path,
        classes: &[String],
        options: &'a Options,
        progress: &'a mut Progress,
    ) -> Result<Sink<'a>> {
        let threads = options.threads.unwrap_or(0); // rayon's word for one per core
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|e| Error::new(ErrorKind::Io, "--threads", e).hint("ask for fewer threads"))?;
        Ok(Sink {
            writer: DatasetWriter::create(out, classes)?,
            pool,
            options,
            progress,
            group: Vec::new(),
            weight: 0,
            held: 0,
            decoded: Vec::new(),
            report: Report::default(),
            started: Instant::now(),
        })
    }

    /// Takes one more item.
    pub fn push(&mut self, item: Item) -> Result<()> {
        self.hold(item);
        while self.weight >= FULL * self.pool.current_num_threads() || self.held >= HELD {
            self.next_group()?;
        }
        Ok(())
    }

    fn hold(&mut self, item: Item) {
        let (weight, bytes) = match &item.image {
            Image::Pixels { pixels, .. } => (1, pixels.len()),
            Image::Bytes(bytes) => (FILE, bytes.len()),
            Image::File(_) | Image::Unusable(_) => (FILE, 0),
        };
        self.weight += weight;
        self.held += bytes;
        self.group.push(item);
    }

    /// Decodes the group that came in, or as much of it as may wait, while the one before is written.
    fn next_group(&mut self) -> Result<()> {
        let (group, ready) = (std::mem::take(&mut self.group), std::mem::take(&mut self.decoded));
        (self.weight, self.held) = (0, 0);
        let (resize, threads) = (self.options.resize, self.pool.current_num_threads());
        let (writer, report, progress, strict) =
            (&mut self.writer, &mut self.report, &mut *self.progress, self.options.strict);
        let ((decoded, left), written) = self
            .pool
            .join(|| decode_some(group, resize, threads, HELD), || write(writer, report, progress, strict, ready));
        self.decoded = decoded;
        left.for_each(|item| self.hold(item));
        written
    }

    /// Writes what is left and finishes the file.
    pub fn finish(mut self) -> Result<Report> {
        while !(self.group.is_empty() && self.decoded.is_empty()) {
            self.next_group()?;
        }
        let Sink { writer, mut report, started, .. } = self;
        if writer.is_empty() && report.skipped > 0 {
            return Err(Error::new(ErrorKind::Format, "convert", "no usable image")
                .expected(format!("at least one; {} files were skipped", report.skipped)));
        }
        writer.finish()?;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }
}

/// Decodes items in parallel until their pixels take `most` bytes, but at least one for each thread; and the items left over.
fn decode_some(group: Vec<Item>, resize: Resize, threads: usize, most: usize) -> (Vec<Decoded>, IntoIter<Item>) {
    let load = |item: Item| {
        let image = decode::load(&item.image, resize);
        (Item { image: Image::Unusable(String::new()), ..item }, image)
    };
    let (mut items, mut decoded, mut bytes, mut largest) = (group.into_iter(), Vec::new(), 0, 0);
    while bytes < most && items.len() > 0 {
        // As many as fit if none is larger than those so far.
        let count = (most - bytes).checked_div(largest).unwrap_or(0).max(threads);
        let some: Vec<Item> = items.by_ref().take(count).collect();
        let some: Vec<Decoded> = some.into_par_iter().map(load).collect();
        for (_, image) in &some {
            let size = image.as_ref().map_or(0, |image| image.as_raw().len());
            (bytes, largest) = (bytes + size, size.max(largest));
        }
        decoded.extend(some);
    }
    (decoded, items)
}

fn write(
    writer: &mut DatasetWriter,
    report: &mut Report,
    progress: &mut Progress,
    strict: bool,
    ready: Vec<Decoded>,
) -> Result<()> {
    for (item, image) in ready {
        match image {
            Ok(image) => {
                let (width, height) = image.dimensions();
                writer.push(item.split, item.label, height as usize, width as usize, image.as_raw())?;
                report.written[usize::from(item.split == Split::Valid)] += 1;
            }
            Err(why) if strict => {
                return Err(Error::new(ErrorKind::Format, item.name, why)
                    .expected("only images")
                    .hint("without --strict such files are reported and skipped"));
            }
            Err(why) => {
                progress.warn(&format!("skipped {}: {why}", item.name));
                report.skipped += 1;
                if report.skipped_names.len() < NAMED {
                    report.skipped_names.push((item.name, why));
                }
            }
        }
        progress.advance(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_images_wait_for_their_turn() {
        let item = |i: u32| {
            let image = Image::Pixels { height: 2, width: 2, pixels: vec![i as u8; 12] };
            Item { split: Split::Train, label: i, name: String::new(), image }
        };
        let labels = |most: usize| -> (Vec<u32>, Vec<u32>) {
            let (decoded, left) = decode_some((0..10).map(item).collect(), Resize::Keep, 2, most);
            assert!(decoded.iter().all(|(_, image)| image.is_ok()));
            (decoded.iter().map(|(item, _)| item.label).collect(), left.map(|item| item.label).collect())
        };
        // Two for the two threads, then what fits, but always as many as there are threads.
        assert_eq!(labels(1), ((0..2).collect(), (2..10).collect()));
        assert_eq!(labels(30), ((0..4).collect(), (4..10).collect()));
        assert_eq!(labels(72), ((0..6).collect(), (6..10).collect()));
        assert_eq!(labels(1000), ((0..10).collect(), Vec::new()));
    }
}
