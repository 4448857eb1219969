//! TensorBoard's event files: scalars, pictures and histograms over the steps of a run.
//!
//! An event file is a sequence of records, each with checksums of its length and of its content (`crc`); a record is one
//! `Event` of TensorBoard's protocol buffers (`wire`). Both are small enough to be written here by hand.
//!
//! A file only ever grows. Each session of a run (it starts, it is resumed) begins a file of its own, whose second event is
//! a `SessionLog` with status START and the first step that the session will write: readers then drop what earlier files
//! say of that step and later ones, which is how TensorBoard itself treats a training that went back to a checkpoint. A
//! record that a crash cut short ends its file for a reader, and the next file goes on.

mod crc;
mod histogram;
mod wire;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use histogram::Histogram;

use crate::{Error, Result};

/// What every event file's name begins with: TensorBoard looks for it.
const PREFIX: &str = "events.out.tfevents.";
/// Events wait in memory up to this size,
const BUFFER: usize = 64 << 10;
/// or this long: curves are looked at while a run goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// A file that takes events. Dropped, it writes what still waits, as well as it can.
///
/// ```
/// # fn main() -> handgrad::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// use handgrad::io::tensorboard::EventFile;
/// let mut events = EventFile::create(folder.path(), 1)?;
/// for step in 1..=10 {
///     events.write(step, |summary| summary.scalar("train/loss", 1.0 / step as f64))?;
/// }
/// events.sync()
/// # }
/// ```
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    /// The event under construction.
    event: Vec<u8>,
    /// Records that are not in the file yet.
    waiting: Vec<u8>,
    written: Instant,
}

impl EventFile {
    /// Begins a file in `folder`, which is made if it does not exist, for events from `first_step` on: what other files
    /// there say of these steps no longer counts.
    ///
    /// # Errors
    /// `Io` where the folder or the file cannot be made.
    pub fn create(folder: impl AsRef<Path>, first_step: u64) -> Result<Self> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        let path = folder.join(next_name(folder));
        let file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(|e| Error::io(&path, &e))?;
        let (event, waiting) = (Vec::with_capacity(BUFFER), Vec::with_capacity(BUFFER));
        let mut events = EventFile { path, file, event, waiting, written: Instant::now() };
        events.push(0, |event| wire::text(event, wire::event::FILE_VERSION, b"brain.Event:2"))?;
        events.push(first_step, |event| {
            wire::message(event, wire::event::SESSION_LOG, |log| {
                wire::integer(log, wire::session::STATUS, wire::START)
            });
        })?;
        events.flush()?;
        Ok(events)
    }

    /// Adds an event of one step, with the values that `fill` gives to it.
    ///
    /// # Errors
    /// `Io` from writing.
    pub fn write(&mut self, step: u64, fill: impl FnOnce(&mut Summary<'_>)) -> Result<()> {
        self.push(step, |event| wire::message(event, wire::event::SUMMARY, |summary| fill(&mut Summary(summary))))?;
        if self.waiting.len() >= BUFFER / 2 || self.written.elapsed() >= PATIENCE { self.flush() } else { Ok(()) }
    }

    /// Waits until all events are on disk.
    ///
    /// # Errors
    /// `Io` from writing.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync_data().map_err(|e| Error::io(&self.path, &e))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn push(&mut self, step: u64, what: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.event.clear();
        wire::double(&mut self.event, wire::event::WALL_TIME, now.as_secs_f64());
        wire::integer(&mut self.event, wire::event::STEP, step);
        what(&mut self.event);
        if self.waiting.len() + self.event.len() > BUFFER {
            self.flush()?;
        }
        crc::frame(&self.event, &mut self.waiting);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.waiting).map_err(|e| Error::io(&self.path, &e))?;
        self.waiting.clear();
        self.written = Instant::now();
        Ok(())
    }
}

impl Drop for EventFile {
    fn drop(&mut self) {
        // Whoever needs to know calls `sync`.
        let _ = self.file.write_all(&self.waiting);
    }
}

/// A name behind those of all other event files in the folder, also when two begin in one second or the clock was set
/// back: readers take files in the order of their names.
fn next_name(folder: &Path) -> String {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let numbers = |name: std::ffi::OsString| {
        let name = name.to_str()?.strip_prefix(PREFIX)?;
        let (seconds, rest) = name.split_once('.')?;
        let count = rest.rsplit('.').next()?.parse().unwrap_or(0);
        Some((seconds.parse().ok()?, count))
    };
    let newest: Option<(u64, u64)> = names.filter_map(numbers).max();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (seconds, count) = match newest {
        Some((seconds, count)) if seconds >= now => (seconds, count.saturating_add(1)),
        _ => (now, 0),
    };
    format!("{PREFIX}{seconds:010}.handgrad.{count:04}")
}

/// The values of one event, each under a tag; TensorBoard groups tags by what stands before the first `/`.
#[derive(Debug)]
pub struct Summary<'a>(&'a mut Vec<u8>);

impl Summary<'_> {
    /// A number, kept as f32.
    pub fn scalar(&mut self, tag: &str, value: f64) {
        self.value(tag, |out| wire::float(out, wire::value::SIMPLE, value as f32));
    }

    /// An RGB picture of `height` × `width` pixels, as the content of a PNG file.
    pub fn png(&mut self, tag: &str, (height, width): (usize, usize), content: &[u8]) {
        self.value(tag, |out| {
            wire::message(out, wire::value::IMAGE, |image| {
                wire::integer(image, wire::image::HEIGHT, height as u64);
                wire::integer(image, wire::image::WIDTH, width as u64);
                wire::integer(image, wire::image::COLORSPACE, wire::RGB);
                wire::text(image, wire::image::ENCODED, content);
            });
        });
    }

    /// How many values are how large.
    pub fn histogram(&mut self, tag: &str, histogram: &Histogram) {
        self.value(tag, |out| wire::message(out, wire::value::HISTOGRAM, |out| histogram.encode(out)));
    }

    fn value(&mut self, tag: &str, content: impl FnOnce(&mut Vec<u8>)) {
        wire::message(self.0, wire::summary::VALUE, |value| {
            wire::text(value, wire::value::TAG, tag.as_bytes());
            content(value);
        });
    }
}

#[cfg(test)]
mod tests;
