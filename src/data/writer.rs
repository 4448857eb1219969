//! Writing a dataset, one sample after the other.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::format::{
    CHANNELS, ENTRY_LEN, Entry, Header, MAX_SIDE, SUM_LEN, Split, check_classes, check_page_size, checksum,
};
use crate::io::atomic::{AtomicFile, folder_of};
use crate::{Error, ErrorKind, Result};

/// The page size of [`DatasetWriter::create`]: large enough that photographs leave little of a page empty.
pub const DEFAULT_PAGE: u64 = 4 << 20;

/// Writes a dataset file sample by sample, in memory of about one page, whatever the number of samples.
///
/// The file appears under its name with [`finish`](DatasetWriter::finish), whole; dropped before, the writer
/// leaves nothing.
///
/// ```
/// # fn main() -> handgrad::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// use handgrad::data::{Dataset, DatasetWriter, Split};
/// let path = folder.path().join("two.hgd");
/// let mut writer = DatasetWriter::create(&path, &["black".into(), "white".into()])?;
/// writer.push(Split::Train, 0, 2, 2, &[0; 12])?;
/// writer.push(Split::Valid, 1, 2, 2, &[255; 12])?;
/// writer.finish()?;
/// let dataset = Dataset::open(&path)?;
/// assert_eq!(dataset.sample(1)?.pixels, [255; 12]);
/// # Ok(())
/// # }
/// ```
pub struct DatasetWriter {
    out: AtomicFile,
    path: PathBuf,
    /// The index on its way to the end of the file: ten million entries stay out of memory.
    index: BufWriter<File>,
    index_hash: Xxh3,
    page: Vec<u8>,
    page_size: usize,
    page_sums: Vec<u8>,
    classes: Vec<String>,
    samples: [u64; 2],
    size: Size,
    statistics: [Statistics; 2],
}

/// Whether all samples so far are of one height and width.
#[derive(Clone, Copy, Debug)]
enum Size {
    Unknown,
    Fixed(u32, u32),
    Varying,
}

impl DatasetWriter {
    /// Starts a dataset of these classes; label `i` means `classes[i]`.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if a class name is empty, too long or there twice, [`ErrorKind::Io`] if the folder
    /// cannot be written.
    pub fn create(path: impl AsRef<Path>, classes: &[String]) -> Result<Self> {
        DatasetWriter::with_page_size(path, classes, DEFAULT_PAGE)
    }

    /// [`create`](DatasetWriter::create) with pages of another size in bytes: a power of two, 4096 to 2³⁰.
    ///
    /// # Errors
    /// As `create`, and for a page size that is not allowed.
    pub fn with_page_size(path: impl AsRef<Path>, classes: &[String], page_size: u64) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let subject = path.display().to_string();
        check_classes(classes, &subject)?;
        check_page_size(page_size, &subject)?;
        let mut out = AtomicFile::create(&path)?;
        let io = |e| Error::io(&path, &e);
        let index = BufWriter::new(tempfile::tempfile_in(folder_of(&path)).map_err(io)?);
        // The header's place; what stands there is written last.
        out.file().seek(SeekFrom::Start(Header::len_for(classes) as u64)).map_err(io)?;
        Ok(DatasetWriter {
            out,
            path,
            index,
            index_hash: Xxh3::new(),
            page: Vec::new(),
            page_size: page_size as usize,
            page_sums: Vec::new(),
            classes: classes.to_vec(),
            samples: [0; 2],
            size: Size::Unknown,
            statistics: Default::default(),
        })
    }

    /// Number of samples so far.
    pub fn len(&self) -> usize {
        (self.samples[0] + self.samples[1]) as usize
    }

    /// True before the first sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends an image of `height`×`width` pixels: RGB interleaved, rows from the top.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] if `pixels` is not `3·height·width` long or a side is 0 or beyond [`MAX_SIDE`],
    /// [`ErrorKind::Format`] if the label names no class, [`ErrorKind::Io`] if the disk refuses (the writer is
    /// then of no more use).
    pub fn push(&mut self, split: Split, label: u32, height: usize, width: usize, pixels: &[u8]) -> Result<()> {
        self.check(label, height, width, pixels)?;
        if !self.page.is_empty() && self.page.len() + pixels.len() > self.page_size {
            self.page.resize(self.page_size, 0);
            self.write_page()?;
        }
        let offset = self.pages() * self.page_size as u64 + self.page.len() as u64;
        let mut rest = pixels;
        while rest.len() > self.page_size {
            let (page, after) = rest.split_at(self.page_size);
            self.page.extend_from_slice(page);
            self.write_page()?;
            rest = after;
        }
        self.page.extend_from_slice(rest);
        self.register(Entry { offset, height: height as u32, width: width as u32, label, split })?;
        self.statistics[split as usize].add(pixels);
        Ok(())
    }

    fn check(&self, label: u32, height: usize, width: usize, pixels: &[u8]) -> Result<()> {
        let subject = || format!("{} sample {}", self.path.display(), self.len());
        if label as usize >= self.classes.len() {
            return Err(Error::new(ErrorKind::Format, subject(), format!("label {label}"))
                .expected(format!("0 to {}", self.classes.len() - 1)));
        }
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&height) || !sides.contains(&width) || pixels.len() != height * width * CHANNELS {
            let found = format!("{} bytes for {height}×{width} pixels", pixels.len());
            return Err(Error::new(ErrorKind::Shape, subject(), found)
                .expected(format!("3·height·width bytes, sides of 1 to {MAX_SIDE}")));
        }
        if self.len() >= u32::MAX as usize {
            return Err(Error::new(ErrorKind::Unsupported, subject(), "too many samples"));
        }
        Ok(())
    }

    fn register(&mut self, entry: Entry) -> Result<()> {
        let bytes = entry.encode();
        self.index.write_all(&bytes).map_err(|e| Error::io(&self.path, &e))?;
        self.index_hash.update(&bytes);
        self.samples[entry.split as usize] += 1;
        self.size = match self.size {
            Size::Unknown => Size::Fixed(entry.height, entry.width),
            Size::Fixed(h, w) if (h, w) != (entry.height, entry.width) => Size::Varying,
            size => size,
        };
        Ok(())
    }

    fn pages(&self) -> u64 {
        (self.page_sums.len() / SUM_LEN) as u64
    }

    fn write_page(&mut self) -> Result<()> {
        self.page_sums.extend(checksum(&self.page).to_le_bytes());
        self.out.file().write_all(&self.page).map_err(|e| Error::io(&self.path, &e))?;
        self.page.clear();
        Ok(())
    }

    /// Writes what is left, the header last, and makes the file durable under its name.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if no sample was written, [`ErrorKind::Io`].
    pub fn finish(mut self) -> Result<()> {
        if self.is_empty() {
            return Err(Error::new(ErrorKind::Format, self.path.display(), "no sample").expected("at least one image"));
        }
        // The last page is not padded: a small dataset is a small file.
        let data_len = self.pages() * self.page_size as u64 + self.page.len() as u64;
        if !self.page.is_empty() {
            self.write_page()?;
        }
        let header = self.header(data_len);
        let path = self.path;
        let io = |e| Error::io(&path, &e);
        let mut index = self.index.into_inner().map_err(|e| Error::io(&path, e.error()))?;
        index.rewind().map_err(io)?;
        let file = self.out.file();
        let copied = std::io::copy(&mut index, file).map_err(io)?;
        if copied != header.samples * ENTRY_LEN as u64 {
            return Err(Error::new(ErrorKind::Io, path.display(), "the temporary index changed while it was copied"));
        }
        file.write_all(&self.page_sums).map_err(io)?;
        file.rewind().map_err(io)?;
        file.write_all(&header.encode()).map_err(io)?;
        self.out.commit()
    }

    fn header(&self, data_len: u64) -> Header {
        let [train, valid] = &self.statistics;
        // A dataset without a training split (a test set by itself) describes what it has.
        let (mean, std) = if train.pixels > 0 { train.mean_std() } else { valid.mean_std() };
        Header {
            samples: self.samples[0] + self.samples[1],
            train_samples: self.samples[0],
            data_len,
            page_size: self.page_size as u64,
            fixed_size: if let Size::Fixed(h, w) = self.size { Some((h, w)) } else { None },
            mean,
            std,
            index_checksum: self.index_hash.digest(),
            table_checksum: checksum(&self.page_sums),
            classes: self.classes.clone(),
        }
    }
}

impl fmt::Debug for DatasetWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatasetWriter")
            .field("path", &self.path)
            .field("samples", &self.samples)
            .finish_non_exhaustive()
    }
}

/// Sums over pixels, per channel: exact integers, so that the order of the samples leaves no trace.
#[derive(Debug, Default)]
struct Statistics {
    pixels: u64,
    sum: [u128; CHANNELS],
    squares: [u128; CHANNELS],
}

impl Statistics {
    fn add(&mut self, pixels: &[u8]) {
        // 4096 squares of at most 255² fit 32 bits: narrow sums inside, wide ones outside.
        for block in pixels.chunks(4096 * CHANNELS) {
            let (mut sum, mut squares) = ([0u32; CHANNELS], [0u32; CHANNELS]);
            for pixel in block.chunks_exact(CHANNELS) {
                for c in 0..CHANNELS {
                    let v = u32::from(pixel[c]);
                    sum[c] += v;
                    squares[c] += v * v;
                }
            }
            for c in 0..CHANNELS {
                self.sum[c] += u128::from(sum[c]);
                self.squares[c] += u128::from(squares[c]);
            }
        }
        self.pixels += (pixels.len() / CHANNELS) as u64;
    }

    /// Mean and (population) standard deviation of the channels, in units of the full range 255.
    fn mean_std(&self) -> ([f32; CHANNELS], [f32; CHANNELS]) {
        let n = u128::from(self.pixels);
        let (mut mean, mut std) = ([0.0; CHANNELS], [0.0; CHANNELS]);
        for c in 0..CHANNELS {
            mean[c] = (self.sum[c] as f64 / n as f64 / 255.0) as f32;
            // n·Σx² − (Σx)² is exact in integers: no cancellation.
            let spread = n * self.squares[c] - self.sum[c] * self.sum[c];
            std[c] = ((spread as f64).sqrt() / n as f64 / 255.0) as f32;
        }
        (mean, std)
    }
}
