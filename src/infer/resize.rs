//! Images at another size.

use ndarray::{Array3, ArrayView3, s};

use crate::{Error, ErrorKind, Result};

/// The largest side of an image.
const MAX_SIDE: usize = 65_535;

/// An RGB image `[height, width, 3]` at `size` (height, width): the largest centred part of that shape, resampled with
/// a triangle filter whose width grows with the reduction (bilinear, and antialiased when it shrinks).
///
/// A side of the result at position o lies at the source position (o + ½)·scale − ½; a source pixel at distance d from
/// it weighs max(0, 1 − |d|/max(scale, 1)), and weights are divided by their sum.
///
/// # Errors
/// Kind [`ErrorKind::Shape`] for an image or a size without pixels, of other than three channels, or with a side
/// beyond 65,535.
pub fn resized(image: ArrayView3<'_, u8>, size: (usize, usize)) -> Result<Array3<u8>> {
    let (h, w, channels) = image.dim();
    let (height, width) = size;
    let sides = [h, w, height, width];
    if channels != 3 || sides.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
        let e = Error::new(ErrorKind::Shape, "image", format!("[{h}, {w}, {channels}] to {height}×{width}"));
        return Err(e.expected(format!("[height, width, 3] with sides of 1 to {MAX_SIDE}")));
    }
    let (top, left, cut_h, cut_w) = centre((h, w), size);
    let part = image.slice(s![top..top + cut_h, left..left + cut_w, ..]);
    if part.dim() == (height, width, 3) {
        return Ok(part.to_owned());
    }
    // Columns first: one row of floats per source row, then rows are mixed.
    let columns: Vec<Taps> = (0..width).map(|o| Taps::new(o, cut_w, width)).collect();
    let mut narrow = Array3::<f32>::zeros((cut_h, width, 3));
    for (from, mut to) in part.outer_iter().zip(narrow.outer_iter_mut()) {
        for (taps, mut to) in columns.iter().zip(to.outer_iter_mut()) {
            for (x, weight) in taps.iter() {
                (0..3).for_each(|c| to[c] += weight * f32::from(from[[x, c]]));
            }
        }
    }
    let mut out = Array3::zeros((height, width, 3));
    let mut sums = vec![0.0f32; 3 * width];
    for (o, mut to) in out.outer_iter_mut().enumerate() {
        sums.fill(0.0);
        for (y, weight) in Taps::new(o, cut_h, height).iter() {
            sums.iter_mut().zip(narrow.slice(s![y, .., ..])).for_each(|(sum, v)| *sum += weight * v);
        }
        to.iter_mut().zip(&sums).for_each(|(to, sum)| *to = (sum + 0.5).clamp(0.0, 255.0) as u8);
    }
    Ok(out)
}

/// Corner, height and width of the largest centred part of an `h`×`w` image that has the shape of `size`. Sides are at
/// most 2^16, products fit 64 bits.
fn centre((h, w): (usize, usize), (height, width): (usize, usize)) -> (usize, usize, usize, usize) {
    let rounded = |a: usize, b: usize, by: usize| ((a as u64 * b as u64 + by as u64 / 2) / by as u64) as usize;
    let (cut_h, cut_w) = if w as u64 * height as u64 > h as u64 * width as u64 {
        (h, rounded(h, width, height).clamp(1, w))
    } else {
        (rounded(w, height, width).clamp(1, h), w)
    };
    ((h - cut_h) / 2, (w - cut_w) / 2, cut_h, cut_w)
}

/// The source pixels that one output pixel mixes along one axis.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl Taps {
    /// Output position `o` of `to` along an axis of `from` pixels.
    fn new(o: usize, from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let reach = scale.max(1.0);
        let at = (o as f64 + 0.5) * scale - 0.5;
        let first = (at - reach).ceil().max(0.0) as usize;
        let last = ((at + reach).floor() as usize).min(from - 1);
        let weights: Vec<f64> = (first..=last).map(|x| (1.0 - (x as f64 - at).abs() / reach).max(0.0)).collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.into_iter().map(|w| (w / sum) as f32).collect() }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.weights.iter().enumerate().map(|(i, &weight)| (self.first + i, weight))
    }
}

#[cfg(test)]
mod tests {
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
        let taps = Taps::new(1, 8, 4);
        assert_eq!((taps.first, taps.weights), (1, vec![0.125, 0.375, 0.375, 0.125]));
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
