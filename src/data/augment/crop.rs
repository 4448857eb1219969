//! A random part of an image.

use serde::Serialize;

use crate::resample::Rect;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// Parts that are tried before the middle is taken.
const TRIES: usize = 10;

/// A part of random area, shape and place (torchvision's and fastai's RandomResizedCrop).
///
/// Ten tries of: area U(min_scale, max_scale)·height·width, ratio exp U(log ratio₀, log ratio₁), width
/// round √(area·ratio), height round √(area/ratio), rounding halves to even; the first that fits lies at offsets uniform
/// over all places. If none fits: the largest centred part whose ratio is within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RandomCrop {
    /// The least share of the image's area; above 0.
    pub min_scale: f64,
    /// The largest share; at most 1.
    pub max_scale: f64,
    /// The least and the largest ratio of width to height; 1/1000 to 1000.
    pub ratio: [f64; 2],
}

impl Default for RandomCrop {
    /// torchvision's: areas of .08 to 1, ratios of ¾ to 4/3.
    fn default() -> Self {
        RandomCrop { min_scale: 0.08, max_scale: 1.0, ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

impl RandomCrop {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for a number outside its range or a range whose ends are swapped.
    pub fn check(&self) -> Result<()> {
        let RandomCrop { min_scale, max_scale, ratio: [least, largest] } = *self;
        let scales = min_scale > 0.0 && min_scale <= max_scale && max_scale <= 1.0;
        let ratios = (1e-3..=1e3).contains(&least) && least <= largest && largest <= 1e3;
        if scales && ratios {
            return Ok(());
        }
        let found = format!("scales {min_scale} to {max_scale}, ratios {least} to {largest}");
        let e = Error::new(ErrorKind::Usage, "random crop", found);
        Err(e.expected("0 < min_scale ≤ max_scale ≤ 1 and two ratios of 1/1000 to 1000, the smaller one first"))
    }

    /// The part of a `height`×`width` image that belongs to `key`.
    pub(crate) fn draw(&self, key: Key, (height, width): (usize, usize)) -> Rect {
        let mut random = key.with_name("resized crop").stream();
        let [least, largest] = self.ratio;
        let area = height as f64 * width as f64;
        for _ in 0..TRIES {
            let part = area * random.uniform(self.min_scale, self.max_scale);
            let ratio = random.uniform(least.ln(), largest.ln()).exp();
            let side = |square: f64| square.sqrt().round_ties_even() as usize;
            let (w, h) = (side(part * ratio), side(part / ratio));
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = random.below((height - h + 1) as u64) as usize;
                let left = random.below((width - w + 1) as u64) as usize;
                return Rect { top, left, height: h, width: w };
            }
        }
        let own = width as f64 / height as f64;
        let side = |exact: f64, most: usize| (exact.round_ties_even() as usize).clamp(1, most);
        let (h, w) = match own {
            _ if own < least => (side(width as f64 / least, height), width),
            _ if own > largest => (height, side(height as f64 * largest, width)),
            _ => (height, width),
        };
        Rect { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WOOF: RandomCrop = RandomCrop { min_scale: 0.35, max_scale: 1.0, ratio: [3.0 / 4.0, 4.0 / 3.0] };

    fn draws(crop: RandomCrop, size: (usize, usize), n: u64) -> Vec<Rect> {
        (0..n).map(|i| crop.draw(Key::new(3).with(i), size)).collect()
    }

    /// The mean of `values`, and the share of each quarter of `low..high`.
    fn spread(values: &[f64], low: f64, high: f64) -> (f64, [f64; 4]) {
        let mut quarters = [0.0; 4];
        for v in values {
            quarters[(((v - low) / (high - low) * 4.0) as usize).min(3)] += 1.0 / values.len() as f64;
        }
        (values.iter().sum::<f64>() / values.len() as f64, quarters)
    }

    #[test]
    fn area_and_ratio_are_uniform_where_every_part_fits() {
        // Shares up to a half of a large square always fit, so that no try is refused.
        let crop = RandomCrop { min_scale: 0.1, max_scale: 0.5, ..WOOF };
        let parts = draws(crop, (2000, 2000), 20_000);
        let areas: Vec<f64> = parts.iter().map(|r| (r.height * r.width) as f64 / 4e6).collect();
        let ratios: Vec<f64> = parts.iter().map(|r| (r.width as f64 / r.height as f64).ln()).collect();
        let (mean, quarters) = spread(&areas, 0.1, 0.5);
        assert!((mean - 0.3).abs() < 3e-3 && quarters.iter().all(|q| (q - 0.25).abs() < 0.015), "{mean} {quarters:?}");
        let edge = (4.0f64 / 3.0).ln();
        let (mean, quarters) = spread(&ratios, -edge, edge);
        assert!(mean.abs() < 5e-3 && quarters.iter().all(|q| (q - 0.25).abs() < 0.015), "{mean} {quarters:?}");
        assert!(ratios.iter().all(|r| r.abs() < edge + 2e-3) && areas.iter().all(|a| (0.099..0.501).contains(a)));
    }

    #[test]
    fn places_are_uniform_and_reach_both_ends() {
        // Half the area of a 20×20 square is 14×14 at ratio 1: offsets 0 to 6.
        let crop = RandomCrop { min_scale: 0.49, max_scale: 0.49, ratio: [1.0; 2] };
        let mut counts = [[0; 7]; 2];
        for part in draws(crop, (20, 20), 14_000) {
            assert_eq!((part.height, part.width), (14, 14));
            counts[0][part.top] += 1;
            counts[1][part.left] += 1;
        }
        assert!(counts.iter().flatten().all(|n| (1800..2200).contains(n)), "{counts:?}");
    }

    #[test]
    fn parts_lie_inside_images_of_any_shape() {
        for size in [(1, 1), (1, 500), (333, 500), (500, 333), (2, 3), (65_535, 1)] {
            for part in draws(WOOF, size, 300) {
                assert!(part.height > 0 && part.width > 0, "{size:?} {part:?}");
                assert!(part.top + part.height <= size.0 && part.left + part.width <= size.1, "{size:?} {part:?}");
            }
        }
    }

    #[test]
    fn the_middle_is_taken_where_nothing_fits() {
        // A third of a 10×90 image is at least 15 pixels high at ratio 4/3.
        for part in draws(WOOF, (10, 90), 50) {
            // 10·4/3 = 13.33
            assert_eq!(part, Rect { top: 0, left: 38, height: 10, width: 13 });
        }
        assert_eq!(draws(WOOF, (90, 10), 1)[0], Rect { top: 38, left: 0, height: 13, width: 10 });
        let never = RandomCrop { min_scale: 1.0, max_scale: 1.0, ratio: [0.75, 0.751] };
        assert_eq!(draws(never, (300, 300), 1)[0].width, 225);
    }

    #[test]
    fn numbers_outside_their_ranges_are_errors() {
        assert!(WOOF.check().is_ok() && RandomCrop::default().check().is_ok());
        for wrong in [
            RandomCrop { min_scale: 0.0, ..WOOF },
            RandomCrop { max_scale: 0.2, ..WOOF },
            RandomCrop { max_scale: 1.1, ..WOOF },
            RandomCrop { min_scale: f64::NAN, ..WOOF },
            RandomCrop { ratio: [2.0, 1.0], ..WOOF },
            RandomCrop { ratio: [0.0, 1.0], ..WOOF },
            RandomCrop { ratio: [1.0, f64::INFINITY], ..WOOF },
        ] {
            assert_eq!(wrong.check().unwrap_err().kind(), ErrorKind::Usage, "{wrong:?}");
        }
    }
}
