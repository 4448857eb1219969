//! Pictures made of pixels: sheets of small images with captions, maps of numbers as colours.

mod colour;
mod sheet;

use std::io::Write;
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use ndarray::{ArrayView2, ArrayView3};

use super::atomic::write_atomically;
use crate::{Error, ErrorKind, Result};

pub use colour::{heat, signed};
pub use sheet::{Cell, Sheet};

/// Writes a PNG whole or not at all.
///
/// # Errors
/// Kind [`ErrorKind::Io`] where the file cannot be written, [`ErrorKind::Unsupported`] for a picture that PNG cannot
/// hold.
pub fn write_png(path: &Path, picture: &RgbImage) -> Result<()> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, PngFilter::Adaptive);
    let encoded = picture.write_with_encoder(encoder);
    encoded.map_err(|e| Error::new(ErrorKind::Unsupported, path.display(), e))?;
    write_atomically(path, |file| file.write_all(&bytes).map_err(|e| Error::io(path, &e)))
}

/// An RGB image `[height, width, 3]` as a picture.
pub fn photo(image: ArrayView3<'_, u8>) -> RgbImage {
    let (h, w, _) = image.dim();
    RgbImage::from_fn(w as u32, h as u32, |x, y| Rgb(std::array::from_fn(|c| image[[y as usize, x as usize, c]])))
}

/// A map of numbers as a picture of the same size.
pub fn map(values: ArrayView2<'_, f32>, colour: impl Fn(f32) -> Rgb<u8>) -> RgbImage {
    let (h, w) = values.dim();
    RgbImage::from_fn(w as u32, h as u32, |x, y| colour(values[[y as usize, x as usize]]))
}

/// The picture at another size: enlarged, its pixels stay seen; shrunk, they are averaged.
pub fn fit(picture: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
    let larger = width >= picture.width();
    imageops::resize(picture, width, height, if larger { FilterType::Nearest } else { FilterType::Triangle })
}

/// Width and height of a picture whose longer side is brought to `side`.
pub fn fitted_size(picture: &RgbImage, side: u32) -> (u32, u32) {
    let (w, h) = (picture.width().max(1), picture.height().max(1));
    let scaled = |n: u32| (u64::from(n) * u64::from(side) / u64::from(w.max(h))).max(1) as u32;
    (scaled(w), scaled(h))
}

/// The picture in grey, towards white by `paleness` from 0 to 1: a ground for what is drawn over it.
pub fn dimmed(picture: &RgbImage, paleness: f32) -> RgbImage {
    let mut grey = picture.clone();
    for Rgb(pixel) in grey.pixels_mut() {
        let light = 0.2126 * f32::from(pixel[0]) + 0.7152 * f32::from(pixel[1]) + 0.0722 * f32::from(pixel[2]);
        *pixel = [(light + paleness * (255.0 - light)).round() as u8; 3];
    }
    grey
}

/// `over` mixed into `under` by `share` from 0 to 1.
pub fn mix(under: Rgb<u8>, over: Rgb<u8>, share: f32) -> Rgb<u8> {
    let mixed = |c: usize| f32::from(under.0[c]) + share * (f32::from(over.0[c]) - f32::from(under.0[c]));
    Rgb(std::array::from_fn(|c| mixed(c).round() as u8))
}
