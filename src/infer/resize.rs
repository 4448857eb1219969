//! Images at another size.

use ndarray::{Array3, ArrayView3};

use crate::resample::{Framing, MAX_SIDE, Resampler};
use crate::{Error, ErrorKind, Result};

/// An RGB image `[height, width, 3]` at `size` (height, width): the largest centred part of that shape, resampled with
/// a triangle filter whose width grows with the reduction (bilinear, and antialiased when it shrinks; see
/// [`resample`](crate::resample)).
///
/// # Errors
/// Kind [`ErrorKind::Shape`] for an image or a size without pixels, of other than three channels, or with a side
/// beyond 65,535.
pub fn resized(image: ArrayView3<'_, u8>, size: (usize, usize)) -> Result<Array3<u8>> {
    framed(image, Framing::Fill, size)
}

/// An RGB image `[height, width, 3]` brought to `size` (height, width) as `framing` says; bytes are rounded to the
/// nearest.
///
/// # Errors
/// As [`resized`], and those of [`Framing::frame`].
pub fn framed(image: ArrayView3<'_, u8>, framing: Framing, size: (usize, usize)) -> Result<Array3<u8>> {
    let (h, w, channels) = image.dim();
    let frame = framing.frame((h, w), size);
    let (Ok(frame), 3) = (&frame, channels) else {
        let e = Error::new(ErrorKind::Shape, "image", format!("[{h}, {w}, {channels}] to {}×{}", size.0, size.1));
        return Err(frame.err().unwrap_or(e.expected(format!("[height, width, 3] with sides of 1 to {MAX_SIDE}"))));
    };
    let image = image.as_standard_layout();
    let mut out = Array3::zeros((size.0, size.1, 3));
    if let (Some(pixels), Some(out)) = (image.as_slice(), out.as_slice_mut()) {
        Resampler::new()?.bytes(pixels, w, frame, out);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use ndarray::s;

    use super::*;

    fn ramp(h: usize, w: usize) -> Array3<u8> {
        Array3::from_shape_fn((h, w, 3), |(y, x, c)| (8 * y + 2 * x + c) as u8)
    }

    #[test]
    fn its_own_size_is_itself_and_a_crop_copies() {
        let image = ramp(6, 9);
        assert_eq!(resized(image.view(), (6, 9)).unwrap(), image);
        // 6×6 of 6×9: columns 1 to 6 (of 3 left over, 1 goes to the left).
        assert_eq!(resized(image.view(), (6, 6)).unwrap(), image.slice(s![.., 1..7, ..]));
    }

    #[test]
    fn halving_weighs_four_pixels_by_the_triangle() {
        // Scale 2: the output pixel lies between two source pixels, at distances ½ (weight ¾) and 1½ (weight ¼).
        let mut image = Array3::zeros((1, 8, 3));
        image.slice_mut(s![0, .., 0]).assign(&ndarray::arr1(&[0, 10, 80, 30, 200, 0, 7, 90]));
        let narrow = resized(image.view(), (1, 1)).unwrap();
        assert_eq!(narrow.dim(), (1, 1, 3));
        let wide = Array3::from_shape_fn((8, 8, 3), |(_, x, c)| image[[0, x, c]]);
        let half = resized(wide.view(), (4, 4)).unwrap();
        let expected = (10.0 * 0.125 + 80.0 * 0.375 + 30.0 * 0.375 + 200.0 * 0.125 + 0.5) as u8;
        assert!((0..4).all(|y| half[[y, 1, 0]] == expected), "{half}");
    }

    #[test]
    fn flat_images_stay_flat_at_any_size() {
        let mut random = crate::rng::Key::new(3).stream();
        for _ in 0..300 {
            let mut side = || 1 + random.below(70) as usize;
            let (from, to) = ((side(), side()), (side(), side()));
            let image = Array3::from_elem((from.0, from.1, 3), 171u8);
            let out = resized(image.view(), to).unwrap();
            assert_eq!(out.dim(), (to.0, to.1, 3));
            assert!(out.iter().all(|&v| v == 171), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn a_ramp_stays_a_ramp() {
        let out = resized(ramp(24, 24).view(), (12, 12)).unwrap();
        // Twice the slope, inside: the filter is symmetric.
        for (y, x) in [(3, 3), (5, 8), (9, 2)] {
            assert_eq!(out[[y, x + 1, 0]] - out[[y, x, 0]], 4);
            assert_eq!(out[[y + 1, x, 1]] - out[[y, x, 1]], 16);
        }
    }

    #[test]
    fn what_cannot_be_resized_is_an_error() {
        for (dim, size) in [((0, 4, 3), (2, 2)), ((4, 4, 1), (2, 2)), ((4, 4, 3), (0, 2)), ((4, 4, 3), (2, 70_000))] {
            let error = resized(Array3::zeros(dim).view(), size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Shape);
        }
        assert_eq!(resized(Array3::from_elem((65_535, 1, 3), 9).view(), (1, 300)).unwrap().dim(), (1, 300, 3));
    }
}
