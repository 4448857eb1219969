//! Random rotations, shifts, scales and shears.

use serde::Serialize;

use crate::data::format::CHANNELS;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// A random affine map of the image about its middle, sampled bilinearly without antialiasing (torchvision's RandomAffine).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Affine {
    /// The probability that an image is mapped at all.
    pub p: f64,
    /// Turns by U(−degrees, degrees), clockwise where positive.
    pub degrees: f64,
    /// Moves by whole pixels, round U(−translate·side, translate·side), columns and rows each.
    pub translate: f64,
    /// Scales by a factor between these.
    pub scale: [f64; 2],
    /// Shears along the rows by U(−shear, shear) degrees.
    pub shear: f64,
    /// What is beyond the edges.
    #[serde(flatten)]
    pub outside: Outside,
}

/// What an image continues as beyond its edges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "outside", rename_all = "lowercase")]
pub enum Outside {
    /// Its mirror image, the edge repeated.
    Reflect,
    /// One colour.
    Fill {
        /// Red, green, blue, 0 to 1: before normalisation.
        fill: [f64; 3],
    },
}

impl Default for Affine {
    /// Every image; no change, mirrored edges.
    fn default() -> Self {
        Affine { p: 1.0, degrees: 0.0, translate: 0.0, scale: [1.0; 2], shear: 0.0, outside: Outside::Reflect }
    }
}

impl Affine {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for a number outside its range.
    pub fn check(&self) -> Result<()> {
        let Affine { p, degrees, translate, scale: [least, largest], shear, outside } = *self;
        let shares = (0.0..=1.0).contains(&p) && (0.0..=1.0).contains(&translate);
        let angles = (0.0..=180.0).contains(&degrees) && (0.0..=80.0).contains(&shear);
        let scales = (0.01..=100.0).contains(&least) && least <= largest && largest <= 100.0;
        let colour = match outside {
            Outside::Reflect => true,
            Outside::Fill { fill } => fill.iter().all(|value| (0.0..=1.0).contains(value)),
        };
        if shares && angles && scales && colour {
            return Ok(());
        }
        let e = Error::new(ErrorKind::Usage, "affine map", format!("{self:?}"));
        Err(e
            .expected("shares and colours of 0 to 1, degrees up to 180, shear up to 80, scales of .01 to 100 in order"))
    }

    /// The map of the image of `key`, if there is to be one.
    pub(crate) fn draw(&self, key: Key, (height, width): (usize, usize)) -> Option<Map> {
        let mut random = key.with_name("affine").stream();
        if !random.chance(self.p) {
            return None;
        }
        let degrees = random.uniform(-self.degrees, self.degrees);
        let mut pixels = |side: usize| {
            let most = self.translate * side as f64;
            random.uniform(-most, most).round_ties_even()
        };
        let translate = [pixels(width), pixels(height)];
        let scale = random.uniform(self.scale[0], self.scale[1]);
        let shear = random.uniform(-self.shear, self.shear);
        Some(Map::new(degrees, translate, scale, shear))
    }
}

/// From output to source positions, both counted from the middle, x before y: source = m·(output − translation).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Map {
    m: [[f32; 2]; 2],
    translate: [f32; 2],
}

impl Map {
    /// The inverse of: shear x by −tan(shear)·y, scale, turn, move.
    pub fn new(degrees: f64, translate: [f64; 2], scale: f64, shear: f64) -> Map {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let tan = shear.to_radians().tan();
        let entry = |value: f64| (value / scale) as f32;
        let m = [[entry(cos - sin * tan), entry(cos * tan + sin)], [entry(-sin), entry(cos)]];
        Map { m, translate: translate.map(|t| t as f32) }
    }

    /// Writes the mapped `source` to `out`, both `[h][w][3]`.
    pub fn apply(&self, source: &[f32], (h, w): (usize, usize), outside: Outside, out: &mut [f32]) {
        let source = source.as_chunks::<CHANNELS>().0;
        let out = out.as_chunks_mut::<CHANNELS>().0;
        let middle = [(w as f32 - 1.0) / 2.0, (h as f32 - 1.0) / 2.0];
        let [[xx, xy], [yx, yy]] = self.m;
        for (row, line) in out.chunks_exact_mut(w).enumerate() {
            let y = row as f32 - middle[1] - self.translate[1];
            for (column, pixel) in line.iter_mut().enumerate() {
                let x = column as f32 - middle[0] - self.translate[0];
                let at = (xx * x + xy * y + middle[0], yx * x + yy * y + middle[1]);
                *pixel = match outside {
                    Outside::Reflect => mix(source, w, Tap::mirrored(at.0, w), Tap::mirrored(at.1, h)),
                    Outside::Fill { fill } => filled(source, (h, w), at, fill.map(|value| value as f32)),
                };
            }
        }
    }
}

/// Two neighbouring positions of an axis and the weight of the second.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    share: f32,
}

impl Tap {
    /// Position `at` of an axis of `n` pixels that is mirrored at its edges, half a pixel beyond the outer middles.
    fn mirrored(at: f32, n: usize) -> Tap {
        let last = (n - 1) as f32;
        let inside = if at >= 0.0 && at <= last {
            at
        } else {
            let from_edge = (at + 0.5).rem_euclid(2.0 * n as f32);
            (from_edge.min(2.0 * n as f32 - from_edge) - 0.5).clamp(0.0, last)
        };
        let first = inside as usize;
        Tap { first, second: (first + 1).min(n - 1), share: inside - first as f32 }
    }
}

fn mix(source: &[[f32; CHANNELS]], w: usize, x: Tap, y: Tap) -> [f32; CHANNELS] {
    let (upper, lower) = (&source[y.first * w..][..w], &source[y.second * w..][..w]);
    let (a, b, c, d) = (&upper[x.first], &upper[x.second], &lower[x.first], &lower[x.second]);
    std::array::from_fn(|i| {
        let (top, bottom) = (a[i] + x.share * (b[i] - a[i]), c[i] + x.share * (d[i] - c[i]));
        top + y.share * (bottom - top)
    })
}

/// The pixel at (x, y), its neighbours beyond the edges being `fill`.
fn filled(source: &[[f32; CHANNELS]], (h, w): (usize, usize), (x, y): (f32, f32), fill: [f32; 3]) -> [f32; CHANNELS] {
    let (left, top) = (x.floor(), y.floor());
    let value = |x: f32, y: f32| {
        let inside = x >= 0.0 && y >= 0.0 && x < w as f32 && y < h as f32;
        if inside { source[y as usize * w + x as usize] } else { fill }
    };
    let (a, b) = (value(left, top), value(left + 1.0, top));
    let (c, d) = (value(left, top + 1.0), value(left + 1.0, top + 1.0));
    std::array::from_fn(|i| {
        let (upper, lower) = (a[i] + (x - left) * (b[i] - a[i]), c[i] + (x - left) * (d[i] - c[i]));
        upper + (y - top) * (lower - upper)
    })
}
