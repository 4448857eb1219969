//! The random changes of training images.

mod crop;
mod place;

use serde::Serialize;

pub use crop::RandomCrop;
pub(crate) use place::{PixelTable, Placement, place};

use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// Per-channel `(pixel/255 − mean)/std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalise {
    /// In units of the full range: 0..1.
    pub mean: [f32; 3],
    /// In units of the full range; positive.
    pub std: [f32; 3],
}

impl Normalise {
    /// Pixels from 0 to 1, as they are.
    pub const NONE: Normalise = Normalise { mean: [0.0; 3], std: [1.0; 3] };
    /// The statistics of ImageNet's training images that most published networks use.
    pub const IMAGENET: Normalise = Normalise { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
}

/// The random changes of a training image. Each is a function of (seed, run, epoch, sample).
///
/// ```
/// use handgrad::data::{Augment, RandomCrop};
/// let crop = RandomCrop { min_scale: 0.35, ..RandomCrop::default() };
/// let augment = Augment { crop: Some(crop), flip: true, ..Augment::NONE };
/// assert!(augment.check().is_ok());
/// assert!(Augment { pad: 4, ..augment }.check().is_err()); // one crop is enough
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Augment {
    /// Pad each side by this many pixels, reflected with the edge repeated (c b a | a b c), then cut the original
    /// size at a random offset in `0..2·pad` (rows and columns independently). 0: no crop. The published CIFAR-10
    /// progression pads by 4, and never draws the offset 8.
    pub pad: usize,
    /// Mirror left and right with probability ½.
    pub flip: bool,
    /// Train on a random part of the image, brought to the batch's size, instead of on what the framing gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<RandomCrop>,
}

impl Augment {
    /// No change.
    pub const NONE: Augment = Augment { pad: 0, flip: false, crop: None };
    /// Pad by 4, crop, flip: what the published CIFAR-10 progression trains with.
    pub const CIFAR: Augment = Augment { pad: 4, flip: true, ..Augment::NONE };

    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for a number outside its range, and for two crops.
    pub fn check(&self) -> Result<()> {
        if self.crop.is_some() && self.pad > 0 {
            let e = Error::new(ErrorKind::Usage, "augmentation", format!("crop and pad = {}", self.pad));
            return Err(e.expected("one of them: each cuts at random"));
        }
        self.crop.as_ref().map_or(Ok(()), RandomCrop::check)
    }

    /// Where pad and flip put the sample that `key` names.
    pub(crate) fn draw(&self, key: Key) -> Placement {
        let mut crop = key.with_name("crop").stream();
        let mut offset = || crop.below(2 * self.pad as u64) as isize - self.pad as isize;
        let (top, left) = (offset(), offset());
        Placement { top, left, flip: self.flip && key.with_name("flip").stream().chance(0.5) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_cover_the_published_range_evenly() {
        let (mut rows, mut columns, mut flips) = ([0; 8], [0; 8], 0);
        for i in 0..8000 {
            let place = Augment::CIFAR.draw(Key::new(5).with(i));
            rows[(place.top + 4) as usize] += 1;
            columns[(place.left + 4) as usize] += 1;
            flips += usize::from(place.flip);
        }
        assert!(rows.iter().chain(&columns).all(|n| (850..1150).contains(n)), "{rows:?} {columns:?}");
        assert!((3800..4200).contains(&flips), "{flips}");
        assert_eq!(Augment::NONE.draw(Key::new(5)), Placement::default());
    }
}
