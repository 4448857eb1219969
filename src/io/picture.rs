//! Image files of any common format: PNG, JPEG, GIF, BMP, ICO, PNM, QOI, TIFF, WebP.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::catch_unwind;
use std::path::Path;

use image::{ImageFormat, ImageReader, Limits, RgbImage};

/// Files larger than this are no photographs; nothing of their size is ever read into memory.
pub const MAX_FILE: u64 = 256 << 20;
/// The largest side of an image, in pixels.
const MAX_SIDE: u32 = 65_535;
/// Bytes that one decoder may take.
const MAX_DECODED: u64 = 512 << 20;

/// Reads an image file of at most [`MAX_FILE`] bytes, undecoded.
///
/// # Errors
/// In a few words why it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    // Asked before opening: opening a named pipe would wait for ever.
    let metadata = path.metadata().map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE { Err(format!("larger than {} MB", MAX_FILE >> 20)) } else { Ok(bytes) }
}

/// Decodes an image file's content (its format is told by its first bytes, not by its name), the first frame of an
/// animation, without transparency and without EXIF rotation, as PyTorch's dataset folders do.
///
/// # Errors
/// In a few words what is wrong with the image.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    // Decoders are other people's code: a panic in one spoils one image, not the whole work.
    catch_unwind(|| decode_checked(bytes)).unwrap_or_else(|_| Err("its decoder panicked".into()))
}

/// Whether a file's name says that it is an image of a format that [`decode`] reads.
pub fn is_named_so(path: &Path) -> bool {
    ImageFormat::from_path(path).is_ok_and(|format| format.reading_enabled())
}

fn decode_checked(bytes: &[u8]) -> Result<RgbImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let Some(format) = reader.format() else { return Err("not an image".into()) };
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err("a JPEG that ends before its end marker".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| e.to_string())?;
    // What a decoder claims and what the three-byte copy will take are two things.
    if u64::from(image.width()) * u64::from(image.height()) * 3 > MAX_DECODED {
        return Err("too many pixels".into());
    }
    if image.width() == 0 || image.height() == 0 {
        return Err("an image without pixels".into());
    }
    Ok(image.into_rgb8())
}

/// Walks the segments of a JPEG to its end marker. The decoder fills the rest of a cut file with grey and says
/// nothing.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2; // behind the start marker
    loop {
        // To the next 0xFF, over compressed data and whatever else lies between segments.
        let Some(skipped) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) else { return false };
        at += skipped + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xD9) => return true,
            Some(0xFF) => {}                            // a fill byte: this one may start the marker
            Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 1, // a stuffed zero or a marker without a length
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(len) => at += 1 + usize::from(u16::from_be_bytes([len[0], len[1]])),
                None => return false,
            },
        }
    }
}
