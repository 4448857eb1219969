//! Random boxes of noise.

use serde::Serialize;

use crate::data::batch::BatchShape;
use crate::data::format::CHANNELS;
use crate::resample::Rect;
use crate::rng::{Key, Stream};
use crate::{Error, ErrorKind, Result};

/// The narrowest aspect of a box; the widest is its inverse.
const MIN_ASPECT: f64 = 0.3;

/// Boxes of noise, the same for all images of a batch (fastai's RandomErasing).
///
/// A batch is changed with probability `p`. Then: count U{1..max_count}; each box has the area
/// U(0, max_share)·height·width/count and the aspect exp U(log .3, log 1/.3), height round √(area·aspect), width
/// round √(area/aspect), rounding halves to even, and an offset uniform over 0..=max(side − own, 0), cut off at the edge.
/// Its values become N(0, 1), anew for each pixel, channel and image, after normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Erase {
    /// The probability that a batch is changed.
    pub p: f64,
    /// The largest share of the image's area that all boxes together take, 0 to 1. 0: nothing is erased.
    pub max_share: f64,
    /// The largest number of boxes; at least 1.
    pub max_count: u32,
}

impl Default for Erase {
    /// As the Imagewoof experiment would have: p .3, up to 3 boxes of up to .3 of the image.
    fn default() -> Self {
        Erase { p: 0.3, max_share: 0.3, max_count: 3 }
    }
}

impl Erase {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for a number outside its range.
    pub fn check(&self) -> Result<()> {
        let Erase { p, max_share, max_count } = *self;
        if (0.0..=1.0).contains(&p) && (0.0..=1.0).contains(&max_share) && (1..=100).contains(&max_count) {
            return Ok(());
        }
        let found = format!("p {p}, max_share {max_share}, max_count {max_count}");
        Err(Error::new(ErrorKind::Usage, "erasing", found).expected("a probability, a share, and 1 to 100 boxes"))
    }

    /// Changes the images of the batch that `key` names.
    pub(super) fn apply(&self, key: Key, shape: &BatchShape, images: &mut [f32]) {
        let key = key.with_name("erase");
        for (i, image) in images.chunks_exact_mut(shape.image_len()).enumerate() {
            let mut noise = key.with_name("noise").with(i as u64).stream();
            // Boxes are drawn again for each image, which is cheaper than to keep them.
            self.boxes(key, shape).for_each(|part| fill(image, shape.width, part, &mut noise));
        }
    }

    /// The boxes of the batch that `key` names; none where it stays as it is.
    pub(super) fn boxes(&self, key: Key, shape: &BatchShape) -> impl Iterator<Item = Rect> {
        let mut random = key.stream();
        let erases = self.max_share > 0.0 && random.chance(self.p);
        let count = if erases { 1 + random.below(u64::from(self.max_count)) } else { 0 };
        (0..count).map(move |number| self.rect(key.with_name("box").with(number).stream(), count, shape))
    }

    /// One of `count` boxes.
    fn rect(&self, mut random: Stream, count: u64, &BatchShape { height, width, .. }: &BatchShape) -> Rect {
        let area = random.uniform(0.0, self.max_share) * (height * width) as f64 / count as f64;
        let aspect = random.uniform(MIN_ASPECT.ln(), -MIN_ASPECT.ln()).exp();
        let mut side = |square: f64, all: usize| {
            let own = square.sqrt().round_ties_even() as usize;
            let at = random.below(all.saturating_sub(own) as u64 + 1) as usize;
            (at, own.min(all))
        };
        let ((top, height), (left, width)) = (side(area * aspect, height), side(area / aspect, width));
        Rect { top, left, height, width }
    }
}

fn fill(image: &mut [f32], image_width: usize, Rect { top, left, height, width }: Rect, noise: &mut Stream) {
    let lines = image.chunks_exact_mut(CHANNELS * image_width).skip(top).take(height);
    lines.for_each(|line| noise.normals(&mut line[CHANNELS * left..][..CHANNELS * width]));
}
