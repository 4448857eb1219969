//! Which source pixels mix to each output pixel along one axis, and by which weights.

use std::ops::Range;

/// The same number of source pixels for every output pixel, in two flat lists.
#[derive(Debug, Default)]
pub(super) struct Axis {
    per_pixel: usize,
    /// The first source pixel of each output pixel, counted from `start`.
    first: Vec<u32>,
    pub weights: Vec<f32>,
    /// The source pixels that any output pixel needs.
    needed: Range<usize>,
}

/// A view of an [`Axis`].
#[derive(Clone, Copy)]
pub(super) struct Taps<'a> {
    pub per_pixel: usize,
    pub first: &'a [u32],
    pub weights: &'a [f32],
}

impl Taps<'_> {
    /// Without the first `n` output pixels.
    pub fn skip(self, n: usize) -> Self {
        Taps { first: &self.first[n..], weights: &self.weights[n * self.per_pixel..], ..self }
    }
}

impl Axis {
    /// Output positions `window` of an axis that brings `from` pixels to `to`; backwards if `flip`.
    pub fn set(&mut self, from: usize, to: usize, window: Range<usize>, flip: bool) {
        self.per_pixel = per_pixel(from, to);
        self.first.clear();
        self.weights.clear();
        let scale = from as f64 / to as f64;
        let reach = scale.max(1.0);
        let last = from - self.per_pixel;
        let mut needed = from..0;
        for i in 0..window.len() {
            let o = if flip { window.end - 1 - i } else { window.start + i };
            let at = (o as f64 + 0.5) * scale - 0.5;
            // The first pixel that is nearer than `reach`; at an edge, neighbours fill up with a weight of 0.
            let first = ((at - reach).floor() + 1.0).clamp(0.0, last as f64) as usize;
            let weight = |x: usize| (1.0 - (x as f64 - at).abs() / reach).max(0.0);
            let own = first..first + self.per_pixel;
            let sum: f64 = own.clone().map(weight).sum();
            self.weights.extend(own.map(|x| (weight(x) / sum) as f32));
            self.first.push(first as u32);
            needed = needed.start.min(first)..needed.end.max(first + self.per_pixel);
        }
        self.first.iter_mut().for_each(|first| *first -= needed.start as u32);
        self.needed = needed;
    }

    pub fn taps(&self) -> Taps<'_> {
        Taps { per_pixel: self.per_pixel, first: &self.first, weights: &self.weights }
    }

    /// The first source pixel that any output pixel needs.
    pub fn start(&self) -> usize {
        self.needed.start
    }

    /// How many source pixels from there on are needed.
    pub fn span(&self) -> usize {
        self.needed.len()
    }

    /// The most weights that a window of `window` positions, over at most `from` pixels, can have. A window of an axis
    /// that brings these to `to` ≥ `window` positions has fewer the larger `to` is.
    #[cfg(any(feature = "train", test))]
    fn most_weights(from: usize, window: usize) -> usize {
        window * per_pixel(from, window)
    }

    #[cfg(any(feature = "train", test))]
    pub fn reserve(&mut self, from: usize, window: usize) {
        self.first.reserve_exact(window);
        self.weights.reserve_exact(Axis::most_weights(from, window).max(2 * window));
    }

    #[cfg(feature = "train")]
    pub fn bytes_for(from: usize, window: usize) -> usize {
        size_of::<u32>() * window + size_of::<f32>() * Axis::most_weights(from, window).max(2 * window)
    }
}

/// The number of pixels that lie nearer than max(scale, 1) to any position: an open interval of length 2·max(scale, 1)
/// holds no more whole numbers than that, rounded up.
fn per_pixel(from: usize, to: usize) -> usize {
    if from == to { 1 } else { (2 * from).div_ceil(to).clamp(2, from.max(2)).min(from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(from: usize, to: usize, window: Range<usize>, flip: bool) -> Axis {
        let mut axis = Axis::default();
        axis.set(from, to, window, flip);
        axis
    }

    #[test]
    fn halving_weighs_four_pixels_by_the_triangle() {
        // Scale 2: the output pixel lies between two source pixels, at distances ½ (weight ¾) and 1½ (weight ¼).
        let half = axis(8, 4, 1..2, false);
        assert_eq!((half.start(), half.span(), half.weights), (1, 4, vec![0.125, 0.375, 0.375, 0.125]));
    }

    #[test]
    fn its_own_size_takes_each_pixel_alone() {
        let same = axis(5, 5, 1..4, true);
        assert_eq!((same.per_pixel, same.start(), same.span()), (1, 1, 3));
        assert_eq!((same.first, same.weights), (vec![2, 1, 0], vec![1.0; 3]));
    }

    #[test]
    fn nothing_nearer_than_the_reach_is_left_out_and_the_reserve_suffices() {
        for from in 1..40usize {
            for to in 1..50 {
                let whole = axis(from, to, 0..to, false);
                let (scale, reach) = (from as f64 / to as f64, (from as f64 / to as f64).max(1.0));
                assert!(whole.weights.len() <= Axis::most_weights(from, to).max(2 * to), "{from} to {to}");
                for (o, weights) in whole.weights.chunks_exact(whole.per_pixel).enumerate() {
                    let at = (o as f64 + 0.5) * scale - 0.5;
                    let first = whole.start() + whole.first[o] as usize;
                    for x in (0..from).filter(|&x| (x as f64 - at).abs() < reach - 1e-9) {
                        let weight = x.checked_sub(first).and_then(|k| weights.get(k));
                        assert!(weight.is_some_and(|&w| w > 0.0), "{from} to {to}: pixel {x} of output {o}");
                    }
                    assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                }
            }
        }
    }
}
