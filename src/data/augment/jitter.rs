//! Random brightness, contrast, saturation and hue.

use serde::Serialize;

use crate::data::format::CHANNELS;
use crate::rng::{Key, Stream};
use crate::{Error, ErrorKind, Result};

/// Changes of an image's colours by random amounts in a random order (torchvision's ColorJitter on pixels of 0 to 1).
///
/// Brightness: f·x. Contrast: f·x + (1 − f)·m, m the mean of the image's grey. Saturation: f·x + (1 − f)·grey, grey
/// .2989·r + .587·g + .114·b. Each factor f is U(max(0, 1 − amount), 1 + amount), and what leaves 0..1 is cut off. Hue: a
/// turn by U(−amount, amount) of a whole turn, lightest and darkest channel kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Jitter {
    /// The probability that an image is changed at all.
    pub p: f64,
    /// 0: as it is.
    pub brightness: f64,
    /// 0: as it is.
    pub contrast: f64,
    /// 0: as it is.
    pub saturation: f64,
    /// At most ½; 0: as it is.
    pub hue: f64,
}

impl Default for Jitter {
    /// Every image; no amount of anything.
    fn default() -> Self {
        Jitter { p: 1.0, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 }
    }
}

/// One change of an image's colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    /// In whole turns.
    Hue(f32),
}

impl Jitter {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for a number outside its range.
    pub fn check(&self) -> Result<()> {
        let Jitter { p, brightness, contrast, saturation, hue } = *self;
        let factors = [brightness, contrast, saturation].iter().all(|amount| (0.0..=100.0).contains(amount));
        if (0.0..=1.0).contains(&p) && factors && (0.0..=0.5).contains(&hue) {
            return Ok(());
        }
        let found = format!("p {p}, brightness {brightness}, contrast {contrast}, saturation {saturation}, hue {hue}");
        let e = Error::new(ErrorKind::Usage, "colour jitter", found);
        Err(e.expected("a probability, three amounts from 0 to 100, and a hue from 0 to .5"))
    }

    /// Changes the image of `key`, pixels of 0 to 1.
    pub(crate) fn apply(&self, key: Key, image: &mut [f32]) {
        let mut random = key.with_name("jitter").stream();
        if random.chance(self.p) {
            self.draw(&mut random).iter().flatten().for_each(|change| change.apply(image));
        }
    }

    /// The changes in their order.
    pub(super) fn draw(&self, random: &mut Stream) -> [Option<Change>; 4] {
        let mut factor = |amount: f64| {
            let drawn = random.uniform((1.0 - amount).max(0.0), 1.0 + amount) as f32;
            Some(drawn).filter(|_| amount > 0.0)
        };
        let mut changes = [
            factor(self.brightness).map(Change::Brightness),
            factor(self.contrast).map(Change::Contrast),
            factor(self.saturation).map(Change::Saturation),
            Some(Change::Hue(random.uniform(-self.hue, self.hue) as f32)).filter(|_| self.hue > 0.0),
        ];
        random.shuffle(&mut changes);
        changes
    }
}

impl Change {
    pub(super) fn apply(self, image: &mut [f32]) {
        let pixels = image.as_chunks_mut::<CHANNELS>().0;
        match self {
            Change::Brightness(f) => pixels.iter_mut().for_each(|pixel| blend(pixel, f, 0.0)),
            Change::Contrast(f) => {
                let sum: f64 = pixels.iter().map(|pixel| f64::from(grey(pixel))).sum();
                let mean = (sum / pixels.len() as f64) as f32;
                pixels.iter_mut().for_each(|pixel| blend(pixel, f, mean));
            }
            Change::Saturation(f) => pixels.iter_mut().for_each(|pixel| blend(pixel, f, grey(pixel))),
            Change::Hue(turn) => pixels.iter_mut().for_each(|pixel| *pixel = turned(*pixel, 6.0 * turn)),
        }
    }
}

fn grey(&[r, g, b]: &[f32; CHANNELS]) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

/// f·pixel + (1 − f)·other, within 0..1.
fn blend(pixel: &mut [f32; CHANNELS], f: f32, other: f32) {
    pixel.iter_mut().for_each(|value| *value = (f * *value + (1.0 - f) * other).clamp(0.0, 1.0));
}

/// A pixel whose hue is `by` sixths of a turn further: at most 3 either way.
///
/// With h in sixths, c the range of the channels and k = (5, 3, 1 for red, green, blue) + h modulo 6, each channel is
/// max − c·min(k, 4 − k, 1), no less than max − c and no more than max.
fn turned([r, g, b]: [f32; CHANNELS], by: f32) -> [f32; CHANNELS] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let range = max - min;
    let per = if range > 0.0 { 1.0 / range } else { 0.0 };
    let (of_r, of_g, of_b) = ((g - b) * per, 2.0 + (b - r) * per, 4.0 + (r - g) * per);
    let h = by
        + if max == r {
            of_r
        } else if max == g {
            of_g
        } else {
            of_b
        };
    let channel = |n: f32| {
        // n + h is above −4: 6 more makes the conversion round down.
        let k = n + h + 6.0;
        let k = k - 6.0 * ((k / 6.0) as i32) as f32;
        max - range * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}
