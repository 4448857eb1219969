//! `[data.augment]`: the random changes of training images.

use std::ops::Bound::{Excluded, Included};

use super::reader::Section;
use crate::data::{Affine, Augment, Erase, Flip, Jitter, Outside, RandomCrop};
use crate::{Error, Result};

/// Random changes to training images: `"none"`, `"cifar"`, or a section of its own.
pub(super) fn read_augment(data: &mut Section<'_>) -> Result<Augment> {
    if !data.is_table("augment") {
        return data.choice("augment", Augment::NONE, &[("none", Augment::NONE), ("cifar", Augment::CIFAR)]);
    }
    let mut s = data.section("augment")?;
    let augment = Augment {
        pad: s.count("pad", 0, 0..=4096)? as usize,
        translate: s.count("translate", 0, 0..=4096)? as usize,
        flip: read_flip(&mut s)?,
        mixup: s.number("mixup", 0.0, 0.0..=100.0)?,
        cutmix: s.number("cutmix", 0.0, 0.0..=100.0)?,
        crop: part(&mut s, "crop", read_crop)?,
        affine: part(&mut s, "affine", read_affine)?,
        jitter: part(&mut s, "jitter", read_jitter)?,
        erase: part(&mut s, "erase", read_erase)?,
    };
    augment.check().map_err(|e| refused(data, "augment", &e))?;
    s.finish()?;
    Ok(augment)
}

/// Whether images are mirrored: a truth, or a name.
fn read_flip(augment: &mut Section<'_>) -> Result<Flip> {
    if !augment.is_text("flip") {
        return augment.flag("flip", false).map(Flip::from);
    }
    augment.choice("flip", Flip::Never, &[("alternating", Flip::Alternating)])
}

/// What `read` makes of a section, where there is one.
fn part<T>(
    augment: &mut Section<'_>,
    key: &'static str,
    read: impl FnOnce(&mut Section<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if !augment.has(key) {
        return Ok(None);
    }
    let mut s = augment.section(key)?;
    let found = read(&mut s)?;
    s.finish()?;
    Ok(Some(found))
}

fn read_crop(s: &mut Section<'_>) -> Result<RandomCrop> {
    let default = RandomCrop::default();
    let share = (Excluded(0.0), Included(1.0));
    let crop = RandomCrop {
        min_scale: s.number("min_scale", default.min_scale, share)?,
        max_scale: s.number("max_scale", default.max_scale, share)?,
        ratio: s.optional_pair("ratio", 1e-3..=1e3)?.unwrap_or(default.ratio),
    };
    crop.check().map_err(|e| refused(s, "", &e))?;
    Ok(crop)
}

fn read_affine(s: &mut Section<'_>) -> Result<Affine> {
    let default = Affine::default();
    let black = Outside::Fill { fill: [0.0; 3] };
    let outside = match s.choice("outside", default.outside, &[("reflect", Outside::Reflect), ("fill", black)])? {
        Outside::Fill { fill } => Outside::Fill { fill: s.optional_triple("fill", 0.0..=1.0)?.unwrap_or(fill) },
        reflect => reflect,
    };
    let affine = Affine {
        p: s.number("p", default.p, 0.0..=1.0)?,
        degrees: s.number("degrees", default.degrees, 0.0..=180.0)?,
        translate: s.number("translate", default.translate, 0.0..=1.0)?,
        scale: s.optional_pair("scale", 0.01..=100.0)?.unwrap_or(default.scale),
        shear: s.number("shear", default.shear, 0.0..=80.0)?,
        outside,
    };
    affine.check().map_err(|e| refused(s, "", &e))?;
    Ok(affine)
}

fn read_jitter(s: &mut Section<'_>) -> Result<Jitter> {
    Ok(Jitter {
        p: s.number("p", 1.0, 0.0..=1.0)?,
        brightness: s.number("brightness", 0.0, 0.0..=100.0)?,
        contrast: s.number("contrast", 0.0, 0.0..=100.0)?,
        saturation: s.number("saturation", 0.0, 0.0..=100.0)?,
        hue: s.number("hue", 0.0, 0.0..=0.5)?,
    })
}

fn read_erase(s: &mut Section<'_>) -> Result<Erase> {
    let default = Erase::default();
    Ok(Erase {
        p: s.number("p", default.p, 0.0..=1.0)?,
        max_share: s.number("max_share", default.max_share, 0.0..=1.0)?,
        max_count: s.count("max_count", default.max_count, 1..=100)?,
    })
}

/// What numbers that are each within their range get wrong together.
fn refused(section: &Section<'_>, key: &str, why: &Error) -> Error {
    section.error(key, why)
}
