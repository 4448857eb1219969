//! Decoding on all cores, writing in order, in bounded memory.

use std::path::Path;
use std::time::Instant;

use handgrad::data::{DatasetWriter, Split};
use handgrad::{Error, ErrorKind, Result};
use image::RgbImage;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Image, Item, Options, decode};
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
    /// Decoded items to write.
    decoded: Vec<Decoded>,
    report: Report,
    started: Instant,
}

type Decoded = (Item, Result<RgbImage, String>);

/// A group is full at this weight per thread: eight files of any size, or a thousand CIFAR images.
const FULL: usize = 8 * FILE;
const FILE: usize = 128;

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
            decoded: Vec::new(),
            report: Report::default(),
            started: Instant::now(),
        })
    }

    /// Takes one more item.
    pub fn push(&mut self, item: Item) -> Result<()> {
        self.weight += if matches!(item.image, Image::Pixels { .. }) { 1 } else { FILE };
        self.group.push(item);
        if self.weight >= FULL * self.pool.current_num_threads() { self.next_group() } else { Ok(()) }
    }

    /// Decodes the group that came in while the one before is written.
    fn next_group(&mut self) -> Result<()> {
        let (group, ready) = (std::mem::take(&mut self.group), std::mem::take(&mut self.decoded));
        self.weight = 0;
        let resize = self.options.resize;
        let decode = || -> Vec<Decoded> {
            let load = |item: Item| {
                let image = decode::load(&item.image, resize);
                (Item { image: Image::Unusable(String::new()), ..item }, image)
            };
            group.into_par_iter().map(load).collect()
        };
        let (writer, report, progress, strict) =
            (&mut self.writer, &mut self.report, &mut *self.progress, self.options.strict);
        let (decoded, written) = self.pool.join(decode, || write(writer, report, progress, strict, ready));
        self.decoded = decoded;
        written
    }

    /// Writes what is left and finishes the file.
    pub fn finish(mut self) -> Result<Report> {
        self.next_group()?;
        self.next_group()?;
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
