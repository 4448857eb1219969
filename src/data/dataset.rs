//! Reading a dataset: a file mapped into memory.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use super::format::{CHANNELS, ENTRY_LEN, Entry, Header, Layout, SUM_LEN, Split, broken, checksum};
use crate::{Error, ErrorKind, Result};

/// One image and what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// `[height][width][3]` bytes: RGB interleaved, rows from the top.
    pub pixels: &'a [u8],
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// An index into [`Dataset::classes`].
    pub label: u32,
    /// Which split the sample belongs to.
    pub split: Split,
}

/// A dataset file, mapped read-only; shared between threads behind an `Arc`.
///
/// Opening checks the header and the whole index; a page's checksum is checked when a sample first touches it, so
/// damaged pixels are an error and never training data. The file must not be changed or truncated while it is open
/// (replacing it by rename, as [`DatasetWriter`](super::DatasetWriter) does, is fine).
pub struct Dataset {
    path: PathBuf,
    bytes: Bytes,
    header: Header,
    layout: Layout,
    checksum: u64,
    splits: [Vec<u32>; 2],
    /// One bit per page: its checksum has been found right.
    checked: Vec<AtomicU64>,
}

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl Dataset {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read or is not a regular file, [`ErrorKind::Format`] if its header, index
    /// or length is wrong, [`ErrorKind::Unsupported`] if it is of another version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |e| Error::io(path, &e);
        // Asked before opening too: opening a named pipe would wait for a writer.
        if !path.metadata().map_err(io)?.is_file() {
            return Err(Error::new(ErrorKind::Io, path.display(), "not a regular file").expected("a .hgd file"));
        }
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(broken(&path.display().to_string(), "an empty file or not a regular one"));
        }
        // SAFETY: the map is read-only and of a regular file. Another process that changes the file while it is
        // mapped would break the promise that a `&[u8]` does not change; that is documented as forbidden, and
        // every length is checked against the map's, so no other input leads outside it.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Dataset::from(path.to_path_buf(), Bytes::Mapped(map))
    }

    /// A dataset whose file is already in memory.
    ///
    /// # Errors
    /// As [`open`](Dataset::open).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Dataset::from(PathBuf::from("dataset in memory"), Bytes::Owned(bytes))
    }

    fn from(path: PathBuf, bytes: Bytes) -> Result<Self> {
        let subject = path.display().to_string();
        let (header, header_len, header_checksum) = Header::decode(&bytes, &subject)?;
        let layout = Layout::new(&header, header_len, bytes.len(), &subject)?;
        if checksum(&bytes[layout.index.clone()]) != header.index_checksum {
            return Err(broken(&subject, "the index's checksum does not fit its content"));
        }
        if checksum(&bytes[layout.table.clone()]) != header.table_checksum {
            return Err(broken(&subject, "the checksum of the page checksums does not fit"));
        }
        let splits = read_splits(&bytes[layout.index.clone()], &header, &subject)?;
        let checked = (0..header.pages().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Dataset { path, bytes, header, layout, checksum: header_checksum, splits, checked })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of samples in all splits.
    pub fn len(&self) -> usize {
        self.header.samples as usize
    }

    /// Never true: a dataset has at least one sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes, in the order of the labels.
    pub fn classes(&self) -> &[String] {
        &self.header.classes
    }

    /// The indices of a split's samples, ascending.
    pub fn split(&self, split: Split) -> &[u32] {
        &self.splits[split as usize]
    }

    /// Mean of the training images per channel (R, G, B), pixels scaled to 0..1.
    pub fn mean(&self) -> [f32; 3] {
        self.header.mean
    }

    /// Standard deviation of the training images per channel, pixels scaled to 0..1.
    pub fn std(&self) -> [f32; 3] {
        self.header.std
    }

    /// Height and width of every sample, or `None` where they vary.
    pub fn fixed_size(&self) -> Option<(usize, usize)> {
        self.header.fixed_size.map(|(h, w)| (h as usize, w as usize))
    }

    /// The file's length in bytes.
    pub fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u64 {
        self.header.page_size
    }

    /// Names the exact content of the file, order included: a recipe can ask for it. The header's xxh3-64, which
    /// covers the checksums of all other parts.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Sample `i` of the file (not of a split). The first access to a page checks the page.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if `i` is beyond the last sample, [`ErrorKind::Format`] if the page is damaged.
    pub fn sample(&self, i: usize) -> Result<Sample<'_>> {
        let entry = self.entry(i)?;
        let len = entry.pixel_len() as u64;
        let first = entry.offset / self.header.page_size;
        let last = (entry.offset + len - 1) / self.header.page_size;
        for page in first..=last {
            self.check_once(page)?;
        }
        let start = self.layout.data.start + entry.offset as usize;
        Ok(Sample {
            pixels: &self.bytes[start..start + len as usize],
            height: entry.height as usize,
            width: entry.width as usize,
            label: entry.label,
            split: entry.split,
        })
    }

    /// Height, width and label of sample `i`, without touching its pixels.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if `i` is beyond the last sample.
    pub fn size_and_label(&self, i: usize) -> Result<(usize, usize, u32)> {
        let entry = self.entry(i)?;
        Ok((entry.height as usize, entry.width as usize, entry.label))
    }

    /// The page where sample `i` starts: what is read together should be used together.
    pub(crate) fn page_of(&self, i: usize) -> Result<u64> {
        Ok(self.entry(i)?.offset / self.header.page_size)
    }

    fn entry(&self, i: usize) -> Result<Entry> {
        let entries = self.bytes[self.layout.index.clone()].as_chunks::<ENTRY_LEN>().0;
        entries.get(i).and_then(Entry::decode).ok_or_else(|| {
            Error::new(ErrorKind::Usage, self.path.display(), format!("sample {i}"))
                .expected(format!("0 to {}", self.len() - 1))
        })
    }

    fn page_is_right(&self, page: u64) -> bool {
        let data = &self.bytes[self.layout.data.clone()];
        let start = (page * self.header.page_size) as usize;
        let end = data.len().min(start + self.header.page_size as usize);
        let sums = self.bytes[self.layout.table.clone()].as_chunks::<SUM_LEN>().0;
        checksum(&data[start..end]) == u64::from_le_bytes(sums[page as usize])
    }

    fn damaged(&self, page: u64, pages: usize) -> Error {
        let start = self.layout.data.start as u64 + page * self.header.page_size;
        let found = format!("the checksum of page {page} (at byte {start}) does not fit; {pages} damaged");
        broken(&self.path.display().to_string(), found)
    }

    fn check_once(&self, page: u64) -> Result<()> {
        let (word, bit) = (&self.checked[(page / 64) as usize], 1 << (page % 64));
        // Relaxed: the bit guards no other memory, and two threads checking the same page do no harm.
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        if !self.page_is_right(page) {
            return Err(self.damaged(page, 1));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// Reads the whole file and checks every page, on all threads of the current rayon pool.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] naming the first damaged page and their number.
    pub fn verify(&self) -> Result<()> {
        let damaged: Vec<u64> =
            (0..self.header.pages()).into_par_iter().filter(|&page| !self.page_is_right(page)).collect();
        damaged.first().map_or(Ok(()), |&first| Err(self.damaged(first, damaged.len())))
    }

    /// A number that is equal for two datasets whose split has the same images under the same class names, in
    /// whatever order samples and classes come: the sum over samples of xxh3-128 of (class name, height, width,
    /// pixels).
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if a page is damaged.
    pub fn content_digest(&self, split: Split) -> Result<u128> {
        let one = |&i: &u32| {
            let sample = self.sample(i as usize)?;
            let mut hash = Xxh3::new();
            hash.update(self.classes()[sample.label as usize].as_bytes());
            hash.update(&[0]);
            hash.update(&(sample.height as u32).to_le_bytes());
            hash.update(&(sample.width as u32).to_le_bytes());
            hash.update(sample.pixels);
            Ok(hash.digest128())
        };
        self.split(split).par_iter().map(one).try_reduce(|| 0, |a, b| Ok(a.wrapping_add(b)))
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset").field("path", &self.path).field("header", &self.header).finish_non_exhaustive()
    }
}

/// Checks every entry and lists the samples of each split.
fn read_splits(index: &[u8], header: &Header, subject: &str) -> Result<[Vec<u32>; 2]> {
    // The counts are claims, but the index is of that length: what is reserved is bounded by the file.
    let train = header.train_samples as usize;
    let mut splits = [Vec::with_capacity(train), Vec::with_capacity(header.samples as usize - train)];
    for (i, bytes) in index.as_chunks::<ENTRY_LEN>().0.iter().enumerate() {
        match Entry::decode(bytes).filter(|entry| entry.fits(header)) {
            Some(entry) => splits[entry.split as usize].push(i as u32),
            None => return Err(broken(subject, format!("entry {i} of the index does not fit the file"))),
        }
    }
    if splits[0].len() != train {
        return Err(broken(subject, format!("{} training samples", splits[0].len())).expected(train));
    }
    Ok(splits)
}

const _: () = assert!(CHANNELS == 3, "the API's statistics are arrays of three");
