//! Damaged and forged files, thousands of them: each is a clear error or reads correctly.

use super::format::{ENTRY_LEN, Entry, Header, Layout, checksum, seal};
use super::{Dataset, DatasetWriter, Split};
use crate::rng::{Key, Stream};
use crate::{ErrorKind, Result};

const PAGE: u64 = 4096;

/// The image `i`: varying sizes, one of them larger than a page.
fn image(i: u32) -> (usize, usize, Vec<u8>) {
    let (h, w) = if i == 5 { (40, 50) } else { (3 + i as usize % 7, 20 - i as usize % 5) };
    let mut random = Key::new(9).with(u64::from(i)).stream();
    (h, w, (0..h * w * 3).map(|_| random.u64() as u8).collect())
}

fn split_of(i: u32) -> Split {
    if i % 4 == 3 { Split::Valid } else { Split::Train }
}

const IMAGES: u32 = 40;

fn good_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let classes: Vec<String> = ["ant", "bee", "cat"].map(String::from).to_vec();
    let mut writer = DatasetWriter::with_page_size(&path, &classes, PAGE).unwrap();
    for i in 0..IMAGES {
        let (h, w, pixels) = image(i);
        writer.push(split_of(i), i % 3, h, w, &pixels).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

/// Reads everything there is to read; the number of samples that are exactly the ones written.
fn read_all(bytes: &[u8]) -> Result<u32> {
    let dataset = Dataset::from_bytes(bytes.to_vec())?;
    let mut same = 0;
    for i in 0..dataset.len() {
        let sample = dataset.sample(i)?;
        assert_eq!(sample.pixels.len(), sample.height * sample.width * 3);
        assert!((sample.label as usize) < dataset.classes().len());
        let (h, w, pixels) = image(i as u32);
        let written = (h, w, &pixels[..], i as u32 % 3, split_of(i as u32));
        same += u32::from(written == (sample.height, sample.width, sample.pixels, sample.label, sample.split));
    }
    dataset.verify()?;
    let of_splits = dataset.split(Split::Train).len() + dataset.split(Split::Valid).len();
    assert_eq!(of_splits, dataset.len());
    Ok(same)
}

fn must_be_refused(bytes: &[u8], what: impl FnOnce() -> String) {
    let error = read_all(bytes).expect_err(&what());
    assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{error}");
    assert!(error.to_string().len() < 500, "{error}");
}

/// Puts a header, an index and its checksums into a file, as an attacker would who knows the format.
fn forge(bytes: &mut [u8], change: impl FnOnce(&mut [u8], &mut [u8])) {
    let (header, header_len, _) = Header::decode(bytes, "good").unwrap();
    let layout = Layout::new(&header, header_len, bytes.len(), "good").unwrap();
    let mut index = bytes[layout.index.clone()].to_vec();
    let mut head = bytes[..header_len].to_vec();
    change(&mut head, &mut index);
    head[104..112].copy_from_slice(&checksum(&index).to_le_bytes());
    seal(&mut head);
    bytes[..header_len].copy_from_slice(&head);
    bytes[layout.index].copy_from_slice(&index);
}

#[test]
fn the_good_file_reads_back() {
    assert_eq!(read_all(&good_file()).unwrap(), IMAGES);
}

#[test]
fn every_truncation_is_refused() {
    let good = good_file();
    for len in (0..good.len()).step_by(7).chain(good.len() - 64..good.len()) {
        must_be_refused(&good[..len], || format!("cut to {len} bytes"));
    }
    let mut longer = good;
    longer.push(0);
    must_be_refused(&longer, || "one byte more".into());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut bytes = good_file();
    let mut random = Key::new(1).stream();
    // Every bit of the header's fields, and thousands anywhere.
    let header = 0..192 * 8;
    let anywhere: Vec<u64> = (0..4000).map(|_| random.below(bytes.len() as u64 * 8)).collect();
    for bit in header.chain(anywhere) {
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        bytes[byte] ^= mask;
        must_be_refused(&bytes, || format!("bit {bit} flipped"));
        bytes[byte] ^= mask;
    }
    assert_eq!(read_all(&bytes).unwrap(), IMAGES);
}

/// Numbers that hurt: extremes, neighbours of real ones, and anything.
fn evil(random: &mut Stream) -> u64 {
    let base = [0, 1, 2, 3, 40, 127, 4096, 8192, 65_535, 1 << 31, u64::from(u32::MAX), 1 << 32, u64::MAX / 2, u64::MAX];
    let base = base[random.below(base.len() as u64) as usize];
    match random.below(4) {
        0 => random.u64(),
        1 => base.wrapping_add(random.below(5)).wrapping_sub(2),
        2 => u64::MAX - base,
        _ => base,
    }
}

#[test]
fn forged_headers_and_entries_never_lead_outside_the_file() {
    let good = good_file();
    let mut random = Key::new(2).stream();
    let (mut refused, mut read) = (0, 0);
    for _ in 0..6000 {
        let mut bytes = good.clone();
        forge(&mut bytes, |header, index| {
            for _ in 0..=random.below(2) {
                let value = evil(&mut random).to_le_bytes();
                let width = [4, 8][random.below(2) as usize];
                if random.below(2) == 0 {
                    let at = (8 + 4 * random.below(40)) as usize;
                    header[at..at + width].copy_from_slice(&value[..width]);
                } else {
                    let at = 4 * random.below((index.len() / 4 - 1) as u64) as usize;
                    index[at..at + width].copy_from_slice(&value[..width]);
                }
            }
        });
        match read_all(&bytes) {
            Ok(_) => read += 1,
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Format | ErrorKind::Unsupported), "{e}");
                refused += 1;
            }
        }
    }
    // Some forgeries are valid files (another label, other statistics); most are not.
    assert!(refused > 3000 && read > 50, "{refused} refused, {read} read");
}

#[test]
fn entries_that_straddle_overlap_the_end_or_name_nothing_are_refused() {
    let good = good_file();
    let first = Entry { offset: 0, height: 3, width: 20, label: 0, split: Split::Train };
    let (header, ..) = Header::decode(&good, "good").unwrap();
    let last = header.data_len;
    let bad = [
        Entry { offset: PAGE - 1, ..first },                  // straddles
        Entry { offset: 1, height: 40, width: 50, ..first },  // larger than a page, not at its start
        Entry { offset: last - 10, ..first },                 // beyond the end
        Entry { offset: u64::MAX - 5, ..first },              // overflows
        Entry { height: u32::MAX, width: u32::MAX, ..first }, // overflows
        Entry { height: 0, ..first },
        Entry { label: 3, ..first },
        Entry { split: Split::Valid, ..first }, // the header counts another
    ];
    for entry in bad {
        let mut bytes = good.clone();
        forge(&mut bytes, |_, index| index[..ENTRY_LEN].copy_from_slice(&entry.encode()));
        must_be_refused(&bytes, || format!("{entry:?}"));
    }
    let mut bytes = good;
    forge(&mut bytes, |_, index| index[20] = 2);
    must_be_refused(&bytes, || "an unknown split".into());
}

#[test]
fn random_bytes_behind_a_right_magic_are_refused() {
    let mut random = Key::new(3).stream();
    for _ in 0..2000 {
        let len = random.below(9000) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.u64() as u8).collect();
        let magic = good_file_start();
        let n = magic.len().min(len);
        bytes[..n].copy_from_slice(&magic[..n]);
        must_be_refused(&bytes, || "random".into());
    }
}

fn good_file_start() -> [u8; 16] {
    let mut start = *b"hgd data\x01\0\0\0\0\0\0\0";
    start[13] = 0x10; // a header of 4096 bytes
    start
}

#[test]
fn folders_pipes_and_missing_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Dataset::open(folder.path()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(Dataset::open(folder.path().join("none")).unwrap_err().kind(), ErrorKind::Io);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    assert_eq!(Dataset::open(empty).unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(Dataset::open("/dev/zero").unwrap_err().kind(), ErrorKind::Io);
}
