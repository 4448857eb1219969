//! The random changes of training images.

mod affine;
#[cfg(test)]
mod batch_tests;
mod crop;
mod erase;
mod flip;
mod jitter;
mod mix;
#[cfg(test)]
mod pixel_tests;
mod place;

use serde::Serialize;

pub use affine::{Affine, Outside};
pub use crop::RandomCrop;
pub use erase::Erase;
pub use flip::Flip;
pub use jitter::Jitter;
pub(crate) use mix::{Mixer, Rows};
pub(crate) use place::{PixelTable, Placement, place};

use super::batch::BatchShape;
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

    /// Factor and summand of each channel, for pixels of 0 to 1.
    pub(crate) fn as_line(&self) -> [[f32; 2]; 3] {
        std::array::from_fn(|c| [1.0 / self.std[c], -self.mean[c] / self.std[c]])
    }
}

/// The random changes of training images, in this order.
///
/// Each image, as a function of (seed, run, epoch, sample): `crop`, or what the framing gives; `pad` or `translate`; `flip`;
/// `affine`; `jitter`; normalisation. Then the batch, as a function of (seed, run, epoch, number of the batch): `erase`; `mixup` or
/// `cutmix`.
///
/// ```
/// use handgrad::data::{Augment, Flip, RandomCrop};
/// let crop = RandomCrop { min_scale: 0.35, ..RandomCrop::default() };
/// let augment = Augment { crop: Some(crop), flip: Flip::Random, mixup: 0.4, ..Augment::NONE };
/// assert!(augment.check().is_ok());
/// assert!(Augment { pad: 4, ..augment }.check().is_err()); // one crop is enough
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Augment {
    /// Pad each side by this many pixels, reflected with the edge repeated (c b a | a b c), then cut the original
    /// size at a random offset in `0..2·pad` (rows and columns independently). 0: no crop. The published CIFAR-10
    /// progression pads by 4, and never draws the offset 8.
    pub pad: usize,
    /// Move by whole pixels, up to so many either way, rows and columns independently; beyond the edges lies the mirror
    /// image, the edge not repeated (c b | a b c): airbench94's translation. 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub translate: usize,
    /// Mirror left and right.
    pub flip: Flip,
    /// α of MixUp: each image is mixed with another one by λ ~ Beta(α, α), as their targets are; the larger of λ and 1 − λ
    /// is its own share (fastai). 0: none.
    pub mixup: f64,
    /// α of CutMix: one box of each image is that of another one, 1 − λ of its area, λ ~ Beta(α, α) and the box being
    /// the batch's; targets are mixed by the true areas (fastai). 0: none. With MixUp, half of the batches take either.
    pub cutmix: f64,
    /// Train on a random part of the image, brought to the batch's size, instead of on what the framing gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<RandomCrop>,
    /// Turn, move, scale and shear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affine: Option<Affine>,
    /// Change the colours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Replace boxes by noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erase: Option<Erase>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Augment {
    /// No change.
    pub const NONE: Augment = Augment {
        pad: 0,
        translate: 0,
        flip: Flip::Never,
        mixup: 0.0,
        cutmix: 0.0,
        crop: None,
        affine: None,
        jitter: None,
        erase: None,
    };
    /// Pad by 4, crop, flip: what the published CIFAR-10 progression trains with.
    pub const CIFAR: Augment = Augment { pad: 4, flip: Flip::Random, ..Augment::NONE };

    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for a number outside its range, and for more than one of `crop`, `pad` and `translate`.
    pub fn check(&self) -> Result<()> {
        if self.crop.is_some() && self.pad > 0 {
            let e = Error::new(ErrorKind::Usage, "augmentation", format!("crop and pad = {}", self.pad));
            return Err(e.expected("one of them: each cuts at random"));
        }
        if self.translate > 0 && (self.crop.is_some() || self.pad > 0) {
            let other = if self.pad > 0 { format!("pad = {}", self.pad) } else { "crop".into() };
            let found = format!("translate = {} and {other}", self.translate);
            return Err(
                Error::new(ErrorKind::Usage, "augmentation", found).expected("one of them: each moves at random")
            );
        }
        for (name, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            // A smaller α has shares of all or nothing, whose logarithms end in no number.
            if alpha != 0.0 && !(mix::MIN_ALPHA..=mix::MAX_ALPHA).contains(&alpha) {
                let e = Error::new(ErrorKind::Usage, "augmentation", format!("{name} = {alpha}"));
                return Err(e.expected(format!("α of 0 (none), or {} to {}", mix::MIN_ALPHA, mix::MAX_ALPHA)));
            }
        }
        self.crop.as_ref().map_or(Ok(()), RandomCrop::check)?;
        self.affine.as_ref().map_or(Ok(()), Affine::check)?;
        self.jitter.as_ref().map_or(Ok(()), Jitter::check)?;
        self.erase.as_ref().map_or(Ok(()), Erase::check)
    }

    /// Without what changes a batch as one: the rest, also where an image is to keep its class.
    #[must_use]
    pub fn of_images(self) -> Augment {
        Augment { mixup: 0.0, cutmix: 0.0, erase: None, ..self }
    }

    /// Whether pixels of 0 to 1 are changed before they are normalised.
    pub(crate) fn changes_pixels(&self) -> bool {
        self.affine.is_some() || self.jitter.is_some()
    }

    /// Whether images are mixed with each other.
    pub(crate) fn mixes(&self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }

    /// Changes the `n` images and targets of the batch that `key` names. `kept` has room for an image where images are
    /// mixed.
    pub(crate) fn change_batch(
        &self,
        key: Key,
        shape: &BatchShape,
        batch: Rows<'_>,
        kept: &mut [f32],
        mixer: &mut Mixer,
    ) {
        if let Some(erase) = &self.erase {
            erase.apply(key, shape, batch.images);
        }
        let chosen = key.with_name("mixup or cutmix").stream().chance(0.5);
        if self.mixup > 0.0 && (self.cutmix == 0.0 || chosen) {
            mix::mixup(self.mixup, key, batch, kept, mixer);
        } else if self.cutmix > 0.0 {
            mix::cutmix(self.cutmix, key, shape, batch, kept, mixer);
        }
    }

    /// Whether images move by whole pixels.
    pub(crate) fn moves(&self) -> bool {
        self.pad > 0 || self.translate > 0
    }

    /// Where pad, translation and flip put a sample. `key` names it in this epoch, `sample` in all of them.
    pub(crate) fn draw(&self, key: Key, sample: Key, epoch: u64) -> Placement {
        let flip = self.flip.draw(key, sample, epoch);
        if self.translate > 0 {
            let mut draw = key.with_name("translate").stream();
            let mut offset = || draw.below(2 * self.translate as u64 + 1) as isize - self.translate as isize;
            let (top, left) = (offset(), offset());
            return Placement { top, left, flip, edge_once: true };
        }
        let mut crop = key.with_name("crop").stream();
        let mut offset = || crop.below(2 * self.pad as u64) as isize - self.pad as isize;
        let (top, left) = (offset(), offset());
        Placement { top, left, flip, edge_once: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_cover_the_published_range_evenly() {
        let (mut rows, mut columns, mut flips) = ([0; 8], [0; 8], 0);
        for i in 0..8000 {
            let place = Augment::CIFAR.draw(Key::new(5).with(i), Key::new(6), 0);
            rows[(place.top + 4) as usize] += 1;
            columns[(place.left + 4) as usize] += 1;
            flips += usize::from(place.flip);
        }
        assert!(rows.iter().chain(&columns).all(|n| (850..1150).contains(n)), "{rows:?} {columns:?}");
        assert!((3800..4200).contains(&flips), "{flips}");
        assert_eq!(Augment::NONE.draw(Key::new(5), Key::new(6), 0), Placement::default());
    }

    #[test]
    fn translations_are_even_and_mirror_without_the_edge() {
        let (mut rows, mut columns) = ([0; 5], [0; 5]);
        for i in 0..5000 {
            let place = Augment { translate: 2, ..Augment::NONE }.draw(Key::new(5).with(i), Key::new(6), 0);
            assert!(place.edge_once && !place.flip);
            rows[(place.top + 2) as usize] += 1;
            columns[(place.left + 2) as usize] += 1;
        }
        assert!(rows.iter().chain(&columns).all(|n| (880..1120).contains(n)), "{rows:?} {columns:?}");
    }

    #[test]
    fn an_image_moves_in_one_way() {
        let crop = Some(RandomCrop::default());
        for augment in [
            Augment { pad: 1, translate: 1, ..Augment::NONE },
            Augment { crop, translate: 1, ..Augment::NONE },
            Augment { crop, pad: 1, ..Augment::NONE },
        ] {
            assert_eq!(augment.check().unwrap_err().kind(), ErrorKind::Usage);
        }
    }
}
