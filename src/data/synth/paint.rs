//! Colours, and the surfaces that they cover: clouds, stripes, checks, gradients.

use super::shapes::{Point, dot};
use crate::rng::{Key, Stream};

/// Red, green, blue; 0 is black and 1 white, but a bright light may exceed it.
pub(super) type Rgb = [f32; 3];

/// Weights of the eye's sensitivity (ITU-R BT.709).
pub(super) fn luma(c: Rgb) -> f32 {
    0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]
}

pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * t)
}

pub(super) fn scale(c: Rgb, by: f32) -> Rgb {
    c.map(|x| x * by)
}

/// 0 below `low`, 1 above `high`, a smooth curve between.
pub(super) fn smooth(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Uniform in `[low, high)`.
pub(super) fn uniform(stream: &mut Stream, low: f32, high: f32) -> f32 {
    stream.uniform(f64::from(low), f64::from(high)) as f32
}

/// A colour of random hue with a given lightness; `saturation` is the largest distance of a channel from grey.
pub(super) fn colour(stream: &mut Stream, lightness: f32, saturation: f32) -> Rgb {
    let raw = [0; 3].map(|_| uniform(stream, -1.0, 1.0));
    let grey = luma(raw);
    let widest = raw.iter().fold(1e-3_f32, |m, x| m.max((x - grey).abs()));
    raw.map(|x| (lightness + (x - grey) / widest * saturation).clamp(0.0, 1.0))
}

/// A direction: the unit vector with tan(angle / 2) = `t`, which needs no sine.
pub(super) fn direction(t: f32) -> Point {
    let norm = 1.0 + t * t;
    [(1.0 - t * t) / norm, 2.0 * t / norm]
}

/// Any direction, about evenly.
pub(super) fn any_direction(stream: &mut Stream) -> Point {
    let [x, y] = direction(uniform(stream, -1.0, 1.0));
    if stream.chance(0.5) { [x, y] } else { [-x, -y] }
}

/// Value noise: random numbers on a lattice, smoothly interpolated, summed over octaves of halving size and weight.
#[derive(Clone, Copy)]
struct Noise {
    key: Key,
    frequency: f32,
    octaves: u32,
}

impl Noise {
    /// In [0, 1].
    fn at(&self, p: Point) -> f32 {
        let (mut sum, mut weights, mut weight, mut frequency) = (0.0, 0.0, 1.0, self.frequency);
        for octave in 0..self.octaves {
            sum += weight * self.octave(octave, p[0] * frequency, p[1] * frequency);
            weights += weight;
            weight *= 0.55;
            frequency *= 2.0;
        }
        sum / weights
    }

    fn octave(&self, octave: u32, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (tx, ty) = (smooth(0.0, 1.0, x - left), smooth(0.0, 1.0, y - top));
        let value = |dx: i64, dy: i64| {
            let (column, row) = (left as i64 + dx, top as i64 + dy);
            let cell = ((column + 0x8000) as u64 & 0xFFFF) << 16 | ((row + 0x8000) as u64 & 0xFFFF);
            (self.key.at(u64::from(octave) << 32 | cell) >> 40) as f32 / (1 << 24) as f32
        };
        let upper = value(0, 0) + (value(1, 0) - value(0, 0)) * tx;
        let lower = value(0, 1) + (value(1, 1) - value(0, 1)) * tx;
        upper + (lower - upper) * ty
    }
}

#[derive(Clone, Copy)]
enum Pattern {
    /// Noise.
    Clouds,
    /// Stripes with a wobble, as of planks or cloth.
    Stripes,
    /// Two sets of stripes.
    Checks,
    /// From one side to the other, with some noise.
    Gradient,
}

/// A surface: two colours and the pattern in which they change.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    colours: [Rgb; 2],
    pattern: Pattern,
    noise: Noise,
    axis: Point,
    frequency: f32,
}

impl Paint {
    /// A random pattern of two colours. `busy` (0 to 1) limits how fine it may be.
    pub(super) fn new(stream: &mut Stream, colours: [Rgb; 2], busy: f32) -> Self {
        let pattern = match stream.below(8) {
            0..=2 => Pattern::Clouds,
            3..=5 => Pattern::Gradient,
            6 => Pattern::Stripes,
            _ => Pattern::Checks,
        };
        let noise = Noise {
            key: Key::new(stream.u64()),
            frequency: uniform(stream, 0.8, 1.5 + 4.0 * busy),
            octaves: 1 + stream.below(3) as u32,
        };
        let frequency = uniform(stream, 0.8, 1.5 + 3.0 * busy);
        Paint { colours, pattern, noise, axis: any_direction(stream), frequency }
    }

    /// The mean of its colours.
    pub(super) fn mean(&self) -> Rgb {
        mix(self.colours[0], self.colours[1], 0.5)
    }

    pub(super) fn at(&self, p: Point) -> Rgb {
        let noise = self.noise.at(p);
        let along = dot(p, self.axis);
        let across = p[1] * self.axis[0] - p[0] * self.axis[1];
        let t = match self.pattern {
            Pattern::Clouds => smooth(0.2, 0.8, noise),
            Pattern::Gradient => (0.5 + 0.4 * along + 0.5 * (noise - 0.5)).clamp(0.0, 1.0),
            Pattern::Stripes => 0.75 * stripe(along * self.frequency + 0.3 * noise) + 0.25 * noise,
            Pattern::Checks => {
                let both = stripe(along * self.frequency) + stripe(across * self.frequency);
                0.35 * both + 0.3 * noise
            }
        };
        mix(self.colours[0], self.colours[1], t)
    }
}

/// A smooth wave of period 1 between 0 and 1.
fn stripe(x: f32) -> f32 {
    smooth(0.15, 0.85, 2.0 * (x - x.floor() - 0.5).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_stays_between_its_colours_and_uses_both() {
        let mut stream = Key::new(5).stream();
        for _ in 0..200 {
            let paint = Paint::new(&mut stream, [[0.2, 0.5, 0.0], [0.8, 0.5, 1.0]], 1.0);
            let values: Vec<Rgb> =
                (0..400).map(|i| paint.at([(i % 20) as f32 / 10.0 - 1.0, (i / 20) as f32 / 10.0 - 1.0])).collect();
            assert!(values.iter().all(|c| (0.2..=0.8).contains(&c[0]) && c[1] == 0.5 && (0.0..=1.0).contains(&c[2])));
            let reds = values.iter().map(|c| c[0]);
            let range = reds.clone().fold(f32::MIN, f32::max) - reds.fold(f32::MAX, f32::min);
            assert!(range > 0.05, "{range}");
        }
    }

    #[test]
    fn colours_have_the_lightness_they_were_asked_for() {
        let mut stream = Key::new(6).stream();
        for _ in 0..200 {
            let c = colour(&mut stream, 0.5, 0.4);
            assert!((luma(c) - 0.5).abs() < 1e-5, "{c:?}");
        }
    }

    #[test]
    fn directions_have_length_one_and_go_everywhere() {
        let mut stream = Key::new(7).stream();
        let mut quadrants = [0; 4];
        for _ in 0..400 {
            let d = any_direction(&mut stream);
            assert!((dot(d, d) - 1.0).abs() < 1e-5);
            quadrants[usize::from(d[0] > 0.0) + 2 * usize::from(d[1] > 0.0)] += 1;
        }
        assert!(quadrants.iter().all(|&n| n > 60), "{quadrants:?}");
    }
}
