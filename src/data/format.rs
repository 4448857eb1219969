//! The bytes of a dataset file; docs/datasets.md has the same table in words.
//!
//! ```text
//! header   HEADER_ALIGN-padded: the fixed fields below, then the class names (u16 length, UTF-8 bytes)
//! pages    page_size bytes each, the last one cut where its samples end
//! index    ENTRY_LEN bytes per sample
//! table    one xxh3-64 per page
//! ```
//! Everything is little-endian. The header's checksum covers the checksums of the index and of the table, and so
//! every byte of the file.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, ErrorKind, Result};

const MAGIC: [u8; 8] = *b"hgd data";
const VERSION: u32 = 1;
/// Bytes of the header before the class names.
const FIXED_LEN: usize = 128;
const HEADER_ALIGN: usize = 4096;
const CHECKSUM: Range<usize> = 16..24;
/// The one pixel layout there is: u8, RGB interleaved, rows from the top.
const PIXELS_RGB8: u32 = 1;

/// Bytes of one index entry.
pub(crate) const ENTRY_LEN: usize = 24;
/// Bytes of one page's checksum.
pub(crate) const SUM_LEN: usize = 8;
/// Colour channels of every sample.
pub(crate) const CHANNELS: usize = 3;
/// The longest side of an image, in pixels.
pub const MAX_SIDE: usize = 65_535;
/// The most classes of a dataset.
pub const MAX_CLASSES: usize = 65_536;

/// Which part of a dataset a sample belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What it is judged on: the folder `val`, `valid` or `test`.
    Valid,
}

impl Split {
    /// Both, in the file's order.
    pub const ALL: [Split; 2] = [Split::Train, Split::Valid];

    /// The split's name: `train` or `valid`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error about a damaged or foreign file.
pub(crate) fn broken(subject: &str, found: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Format, subject, found).hint("the file is damaged or no dataset; convert the images again")
}

/// What the header says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub samples: u64,
    pub train_samples: u64,
    /// Bytes of all pages.
    pub data_len: u64,
    pub page_size: u64,
    /// Height and width of every sample; none where they vary.
    pub fixed_size: Option<(u32, u32)>,
    /// Of the training split, per channel, pixels scaled to 0..1.
    pub mean: [f32; CHANNELS],
    pub std: [f32; CHANNELS],
    pub index_checksum: u64,
    pub table_checksum: u64,
    pub classes: Vec<String>,
}

impl Header {
    /// Bytes that the header of these classes takes: known before the first sample is written.
    pub fn len_for(classes: &[String]) -> usize {
        let names: usize = classes.iter().map(|name| 2 + name.len()).sum();
        (FIXED_LEN + names).next_multiple_of(HEADER_ALIGN)
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.data_len.div_ceil(self.page_size)
    }

    /// The header's bytes, checksum included. The classes must have passed [`check_classes`].
    pub fn encode(&self) -> Vec<u8> {
        let header_len = Header::len_for(&self.classes);
        let file_len =
            header_len as u64 + self.data_len + self.samples * ENTRY_LEN as u64 + self.pages() * SUM_LEN as u64;
        let (height, width) = self.fixed_size.unwrap_or((0, 0));
        let mut out = Vec::with_capacity(header_len);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((header_len as u32).to_le_bytes());
        out.extend(0u64.to_le_bytes()); // the checksum's place
        for field in [file_len, self.samples, self.train_samples, self.data_len, self.page_size] {
            out.extend(field.to_le_bytes());
        }
        for field in [height, width, self.classes.len() as u32, PIXELS_RGB8] {
            out.extend(field.to_le_bytes());
        }
        for field in self.mean.iter().chain(&self.std) {
            out.extend(field.to_le_bytes());
        }
        out.extend(self.index_checksum.to_le_bytes());
        out.extend(self.table_checksum.to_le_bytes());
        out.resize(FIXED_LEN, 0);
        for name in &self.classes {
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(name.as_bytes());
        }
        out.resize(header_len, 0);
        seal(&mut out);
        out
    }

    /// Reads and checks the header of a file of `bytes`; also returns the header's length and checksum.
    pub fn decode(bytes: &[u8], subject: &str) -> Result<(Header, usize, u64)> {
        let mut fields = Fields { bytes, at: 0, subject };
        if bytes.len() < MAGIC.len() || fields.take(MAGIC.len())? != MAGIC {
            return Err(broken(subject, "not a handgrad dataset").expected("a .hgd file from `data-tools convert`"));
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(Error::new(ErrorKind::Unsupported, subject, format!("dataset version {version}"))
                .expected(format!("version {VERSION}"))
                .hint("a newer handgrad wrote this file, or it is damaged; update, or convert the images again"));
        }
        let header_len = fields.u32()? as usize;
        let checksum = fields.u64()?;
        let file_len = fields.u64()?;
        if file_len != bytes.len() as u64 {
            return Err(broken(subject, format!("{} bytes", bytes.len())).expected(format!("{file_len} bytes")));
        }
        if header_len < FIXED_LEN || !header_len.is_multiple_of(HEADER_ALIGN) || header_len > bytes.len() {
            return Err(broken(subject, format!("a header of {header_len} bytes")));
        }
        if header_checksum(&bytes[..header_len]) != checksum {
            return Err(broken(subject, "the header's checksum does not fit its content"));
        }
        fields.bytes = &bytes[..header_len];
        let header = fields.rest_of_header()?;
        Ok((header, header_len, checksum))
    }
}

/// Writes the checksum into a complete header.
pub(crate) fn seal(header: &mut [u8]) {
    let checksum = header_checksum(header);
    header[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

/// xxh3-64 of the header without the checksum's own bytes.
fn header_checksum(header: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&header[..CHECKSUM.start]);
    hasher.update(&header[CHECKSUM.end..]);
    hasher.digest()
}

/// Class names are there, unique and short enough for the header.
pub(crate) fn check_classes(classes: &[String], subject: &str) -> Result<()> {
    if classes.is_empty() || classes.len() > MAX_CLASSES {
        return Err(Error::new(ErrorKind::Format, subject, format!("{} classes", classes.len()))
            .expected(format!("1 to {MAX_CLASSES}")));
    }
    let mut seen = HashSet::new();
    for name in classes {
        if name.is_empty() || name.len() > usize::from(u16::MAX) {
            return Err(Error::new(ErrorKind::Format, subject, format!("a class name of {} bytes", name.len()))
                .expected("1 to 65535 bytes"));
        }
        if !seen.insert(name) {
            return Err(Error::new(ErrorKind::Format, subject, format!("the class {name:?} twice")));
        }
    }
    if u32::try_from(Header::len_for(classes)).is_err() {
        return Err(Error::new(ErrorKind::Format, subject, "class names of more than 4 GB").expected("shorter ones"));
    }
    Ok(())
}

/// Page sizes are powers of two from 4 KiB to 1 GiB.
pub(crate) fn check_page_size(page_size: u64, subject: &str) -> Result<()> {
    if page_size.is_power_of_two() && (1 << 12..=1 << 30).contains(&page_size) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Format, subject, format!("pages of {page_size} bytes"))
        .expected("a power of two from 4096 to 2^30"))
}

/// Reads fixed-width fields one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    subject: &'a str,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        self.at = self.at.saturating_add(len);
        taken.ok_or_else(|| broken(self.subject, "the file ends inside its header"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn f32x3(&mut self) -> Result<[f32; CHANNELS]> {
        let mut out = [0.0; CHANNELS];
        for value in &mut out {
            *value = f32::from_le_bytes(self.array()?);
        }
        Ok(out)
    }

    /// What follows the file's length.
    fn rest_of_header(&mut self) -> Result<Header> {
        let subject = self.subject;
        let (samples, train_samples) = (self.u64()?, self.u64()?);
        let (data_len, page_size) = (self.u64()?, self.u64()?);
        let (height, width, classes, pixels) = (self.u32()?, self.u32()?, self.u32()?, self.u32()?);
        let (mean, std) = (self.f32x3()?, self.f32x3()?);
        let (index_checksum, table_checksum) = (self.u64()?, self.u64()?);
        check_page_size(page_size, subject)?;
        if pixels != PIXELS_RGB8 {
            return Err(broken(subject, format!("pixel layout {pixels}")));
        }
        if samples == 0 || samples > u64::from(u32::MAX) || train_samples > samples {
            return Err(broken(subject, format!("{samples} samples, {train_samples} of them for training")));
        }
        if mean.iter().chain(&std).any(|v| !v.is_finite()) || std.iter().any(|&v| v < 0.0) {
            return Err(broken(subject, format!("statistics {mean:?}, {std:?}")));
        }
        let fixed_size = match (height, width) {
            (0, 0) => None,
            (1.., 1..) => Some((height, width)),
            _ => return Err(broken(subject, format!("images of {height}×{width} pixels"))),
        };
        self.at = FIXED_LEN;
        let classes = self.class_names(classes)?;
        Ok(Header {
            samples,
            train_samples,
            data_len,
            page_size,
            fixed_size,
            mean,
            std,
            index_checksum,
            table_checksum,
            classes,
        })
    }

    fn class_names(&mut self, count: u32) -> Result<Vec<String>> {
        let mut names = Vec::new(); // grows with what is read, not with what is claimed
        for _ in 0..count.min(MAX_CLASSES as u32 + 1) {
            let len = u16::from_le_bytes(self.array()?);
            let name = std::str::from_utf8(self.take(usize::from(len))?);
            names.push(name.map_err(|_| broken(self.subject, "a class name that is not UTF-8"))?.to_owned());
        }
        check_classes(&names, self.subject)?;
        Ok(names)
    }
}

/// Where the parts of a file lie, checked against its length.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub data: Range<usize>,
    pub index: Range<usize>,
    pub table: Range<usize>,
}

impl Layout {
    /// The parts follow each other without a gap and end with the file.
    pub fn new(header: &Header, header_len: usize, file_len: usize, subject: &str) -> Result<Layout> {
        let part = |start: usize, items: u64, size: usize| -> Option<Range<usize>> {
            let len = usize::try_from(items).ok()?.checked_mul(size)?;
            Some(start..start.checked_add(len)?)
        };
        let parts = || {
            let data = part(header_len, header.data_len, 1)?;
            let index = part(data.end, header.samples, ENTRY_LEN)?;
            let table = part(index.end, header.pages(), SUM_LEN)?;
            (table.end == file_len).then_some(Layout { data, index, table })
        };
        parts().ok_or_else(|| broken(subject, "its header does not fit its length"))
    }
}

/// One sample's place and label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// From the start of the pages.
    pub offset: u64,
    pub height: u32,
    pub width: u32,
    pub label: u32,
    pub split: Split,
}

impl Entry {
    /// Bytes of the pixels. Cannot overflow: sides are 32 bits wide.
    pub fn pixel_len(&self) -> u128 {
        u128::from(self.height) * u128::from(self.width) * CHANNELS as u128
    }

    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.height.to_le_bytes());
        out[12..16].copy_from_slice(&self.width.to_le_bytes());
        out[16..20].copy_from_slice(&self.label.to_le_bytes());
        out[20..].copy_from_slice(&(self.split as u32).to_le_bytes());
        out
    }

    /// None where the split is unknown.
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> Option<Entry> {
        let (offset, rest) = bytes.split_at(8);
        let field = |i: usize| u32::from_le_bytes([rest[4 * i], rest[4 * i + 1], rest[4 * i + 2], rest[4 * i + 3]]);
        let mut wide = [0; 8];
        wide.copy_from_slice(offset);
        let split = *Split::ALL.get(field(3) as usize)?;
        Some(Entry { offset: u64::from_le_bytes(wide), height: field(0), width: field(1), label: field(2), split })
    }

    /// The entry lies within the pages, straddles none, and fits the header.
    pub fn fits(&self, header: &Header) -> bool {
        let page = u128::from(header.page_size);
        let (start, len) = (u128::from(self.offset), self.pixel_len());
        let end = start + len;
        let within = len > 0 && end <= u128::from(header.data_len);
        let on_its_pages = if len > page { start % page == 0 } else { len > 0 && start / page == (end - 1) / page };
        let sides = self.height as usize <= MAX_SIDE && self.width as usize <= MAX_SIDE;
        let size = header.fixed_size.is_none_or(|fixed| fixed == (self.height, self.width));
        within && on_its_pages && sides && size && (self.label as usize) < header.classes.len()
    }
}

/// The checksum of a page, of the index and of the table.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}
