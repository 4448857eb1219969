//! From an image file to RGB bytes of the wanted size.

use handgrad::io::picture;
use image::RgbImage;
use image::imageops::{self, FilterType};

use super::Image;

/// What happens to an image's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// Nothing.
    #[default]
    Keep,
    /// Shrinks so that the longer side is at most this many pixels; never enlarges.
    MaxSide(u32),
    /// Exactly this height and width.
    Exact {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// How another shape is made to fit.
        fit: Fit,
    },
}

/// How an image of another shape fits an exact size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Fit {
    /// The whole image, its sides scaled independently.
    #[default]
    Squash,
    /// Scaled to cover the size, then cut at the centre.
    Crop,
}

/// Decodes and resizes one image; the error says in a few words what is wrong with it.
///
/// # Errors
/// Anything that makes the file unusable: unreadable, no image, cut short, too large, a decoder that gives up.
pub(crate) fn load(image: &Image, resize: Resize) -> Result<RgbImage, String> {
    match image {
        Image::Unusable(why) => Err(why.clone()),
        Image::Pixels { height, width, pixels } => {
            let image = RgbImage::from_raw(*width, *height, pixels.clone()).ok_or("pixels do not fit the size")?;
            Ok(resized(image, resize))
        }
        Image::Bytes(bytes) => decode(bytes, resize),
        Image::File(path) => decode(&picture::read(path)?, resize),
    }
}

/// [`picture::decode`]s an image file's content and resizes it.
///
/// # Errors
/// What is wrong with the image.
pub fn decode(bytes: &[u8], resize: Resize) -> Result<RgbImage, String> {
    Ok(resized(picture::decode(bytes)?, resize))
}

/// Triangle filter over the source's footprint: bilinear, and antialiased when it shrinks.
fn resized(image: RgbImage, resize: Resize) -> RgbImage {
    let (width, height) = image.dimensions();
    match resize {
        Resize::Keep => image,
        Resize::MaxSide(side) => {
            let longer = width.max(height);
            if longer <= side {
                return image;
            }
            let scaled = |n: u32| (f64::from(n) * f64::from(side) / f64::from(longer)).round().max(1.0) as u32;
            imageops::resize(&image, scaled(width), scaled(height), FilterType::Triangle)
        }
        Resize::Exact { height: h, width: w, .. } if (h, w) == (height, width) => image,
        Resize::Exact { height: h, width: w, fit: Fit::Squash } => imageops::resize(&image, w, h, FilterType::Triangle),
        Resize::Exact { height: h, width: w, fit: Fit::Crop } => {
            let (x, y, cut_w, cut_h) = centre(width, height, w, h);
            let cut = imageops::crop_imm(&image, x, y, cut_w, cut_h);
            imageops::resize(&*cut, w, h, FilterType::Triangle)
        }
    }
}

/// The largest centred part of `width`×`height` that has the shape `w`:`h`: its corner, width and height.
fn centre(width: u32, height: u32, w: u32, h: u32) -> (u32, u32, u32, u32) {
    let (width64, height64, w64, h64) = (u64::from(width), u64::from(height), u64::from(w), u64::from(h));
    let (cut_w, cut_h) = if width64 * h64 > height64 * w64 {
        (((height64 * w64 + h64 / 2) / h64).max(1) as u32, height)
    } else {
        (width, ((width64 * h64 + w64 / 2) / w64).max(1) as u32)
    };
    let (cut_w, cut_h) = (cut_w.min(width), cut_h.min(height));
    ((width - cut_w) / 2, (height - cut_h) / 2, cut_w, cut_h)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::ImageFormat;

    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, ((x * y) % 251) as u8]))
    }

    fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    const FORMATS: [ImageFormat; 8] = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Gif,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::WebP,
        ImageFormat::Pnm,
        ImageFormat::Qoi,
    ];

    #[test]
    fn every_format_reads_and_no_cut_file_passes() {
        let image = picture(60, 40);
        for format in FORMATS {
            let bytes = encoded(&image, format);
            let read = decode(&bytes, Resize::Keep).unwrap_or_else(|e| panic!("{format:?}: {e}"));
            assert_eq!(read.dimensions(), (60, 40));
            if !matches!(format, ImageFormat::Jpeg | ImageFormat::Gif) {
                assert_eq!(read, image, "{format:?}");
            }
            for cut in [0, 1, 5, bytes.len() / 4, bytes.len() / 2, bytes.len() * 9 / 10] {
                assert!(decode(&bytes[..cut], Resize::Keep).is_err(), "{format:?} cut to {cut} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn hostile_images_neither_panic_nor_take_the_memory() {
        let mut random = handgrad::rng::Key::new(7).stream();
        let image = picture(30, 20);
        for format in FORMATS {
            let good = encoded(&image, format);
            for _ in 0..400 {
                let mut bytes = good.clone();
                for _ in 0..=random.below(4) {
                    let at = random.below(bytes.len().min(200) as u64) as usize;
                    bytes[at] = random.u64() as u8;
                }
                if let Ok(image) = decode(&bytes, Resize::MaxSide(16)) {
                    assert!(image.width() <= 16 && image.height() <= 16);
                }
            }
        }
        // 60000×60000 claimed in twenty bytes.
        assert!(decode(b"P6 60000 60000 255 \0\0\0", Resize::Keep).is_err());
    }

    #[test]
    fn sizes_come_out_as_asked() {
        let size = |resize| resized(picture(200, 100), resize).dimensions();
        assert_eq!(size(Resize::Keep), (200, 100));
        assert_eq!(size(Resize::MaxSide(50)), (50, 25));
        assert_eq!(size(Resize::MaxSide(300)), (200, 100));
        assert_eq!(size(Resize::MaxSide(1)), (1, 1));
        for fit in [Fit::Squash, Fit::Crop] {
            assert_eq!(size(Resize::Exact { height: 64, width: 48, fit }), (48, 64));
            assert_eq!(size(Resize::Exact { height: 1, width: 999, fit }), (999, 1));
        }
        assert_eq!(centre(200, 100, 10, 10), (50, 0, 100, 100));
        assert_eq!(centre(100, 200, 10, 10), (0, 50, 100, 100));
        assert_eq!(centre(1, 65_535, 65_535, 1), (0, 32_767, 1, 1));
    }
}
