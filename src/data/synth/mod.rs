//! The built-in dataset: ten kinds of things, drawn rather than photographed.
//!
//! Each image is a scene: a textured background, clutter behind the object, the object (its class is the label) with
//! two paints, relief shading and a cast shadow, perhaps something in front of it, uneven light, blur, sensor noise.
//! Colours, brightness of object against background, place, size, tilt and mirror image are random, so that neither
//! colour nor a pixel's value tells the class: edges and their arrangement do. That is what separates a linear model
//! from a perceptron, and a perceptron from a convolutional net.
//!
//! An image is a pure function of (seed, split, index). Its arithmetic is +, −, ×, ÷, √ and floor in f32 and f64,
//! without fused multiply-add or library functions, so it is the same to the bit on every machine.

mod file;
mod paint;
mod shapes;

pub use file::write;

use crate::rng::{Key, Stream};
use crate::{Error, ErrorKind, Result};
use paint::{Paint, Rgb, colour, direction, luma, mix, scale, smooth, uniform};
use shapes::{Part, Point, Variant, capsule, dot, ellipse, object, polygon, ring, sub};

/// Changes whenever a change of this module changes an image: part of a cached file's name.
pub const VERSION: u32 = 1;

/// Names of the classes; a label is an index into it.
pub const CLASSES: [&str; 10] = ["ball", "box", "fish", "heart", "house", "key", "moon", "mug", "star", "tree"];

/// Which images to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthConfig {
    /// Number of training images.
    pub train: usize,
    /// Number of validation images.
    pub valid: usize,
    /// Width and height in pixels.
    pub size: usize,
    /// Another seed, other images.
    pub seed: u64,
}

impl Default for SynthConfig {
    fn default() -> Self {
        SynthConfig { train: 20_000, valid: 5_000, size: 32, seed: 0 }
    }
}

/// Draws image `index` of `split` (0 training, 1 validation) into `pixels` (`[size, size, 3]`, RGB, rows from the top)
/// and returns its label, which is `index % 10`: every run of ten images has each class once.
///
/// Neither `train` nor `valid` matters here: any index has an image.
///
/// # Errors
/// [`ErrorKind::Shape`] if `pixels` is not `size · size · 3` long or `size` is 0.
pub fn draw(config: &SynthConfig, split: u8, index: u64, pixels: &mut [u8]) -> Result<u32> {
    let expected = config.size.checked_mul(config.size).and_then(|n| n.checked_mul(3)).filter(|&n| n > 0);
    if expected != Some(pixels.len()) {
        return Err(Error::new(ErrorKind::Shape, "synth::draw", format!("a buffer of {} bytes", pixels.len()))
            .expected(format!("size · size · 3 bytes for images of {0} × {0} pixels", config.size)));
    }
    let label = (index % CLASSES.len() as u64) as u32;
    let key = Key::new(config.seed).with_name("synth").with(u64::from(split)).with(index);
    let scene = Scene::new(key, label, 2.0 / config.size as f32);
    let mut image: Vec<Rgb> = (0..config.size * config.size)
        .map(|i| scene.at([centre(i % config.size, config.size), centre(i / config.size, config.size)]))
        .collect();
    blur(&mut image, config.size, scene.blur);
    let noise = key.with_name("sensor");
    for (i, (out, &value)) in pixels.iter_mut().zip(image.as_flattened()).enumerate() {
        let value = value + scene.noise * bell(noise.at(i as u64));
        *out = (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
    }
    Ok(label)
}

/// The coordinate of a pixel's centre; the image spans [-1, 1].
fn centre(pixel: usize, size: usize) -> f32 {
    (2 * pixel + 1) as f32 / size as f32 - 1.0
}

/// About normal, standard deviation 1: the sum of four 16-bit numbers, which no two machines round differently.
fn bell(bits: u64) -> f32 {
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xFFFF).sum();
    (sum as f32 / 65_535.0 - 2.0) * 1.732_050_8
}

/// Where and how large an object stands, and which of its kind it is.
struct Pose {
    place: Point,
    /// Cosine and sine of the tilt.
    turn: Point,
    /// Half its width and half its height; a negative width mirrors it.
    half: Point,
    variant: Variant,
}

impl Pose {
    fn new(stream: &mut Stream) -> Self {
        let size = uniform(stream, 0.55, 0.86);
        let slack = 1.12 - size;
        let place = [uniform(stream, -slack, slack), uniform(stream, -slack, slack)].map(|x| x * 0.6);
        let turn = direction(uniform(stream, -0.17, 0.17));
        let stretch = uniform(stream, 0.88, 1.12);
        let mirror = if stream.chance(0.5) { -1.0 } else { 1.0 };
        let half = [size * stretch * mirror, size / stretch];
        let variant = [0; 3].map(|_| uniform(stream, 0.0, 1.0));
        Pose { place, turn, half, variant }
    }

    /// From the image to the object's own square.
    fn local(&self, p: Point) -> Point {
        let q = sub(p, self.place);
        let turned = [dot(q, self.turn), q[1] * self.turn[0] - q[0] * self.turn[1]];
        [turned[0] / self.half[0], turned[1] / self.half[1]]
    }

    /// The object's distance in units of the image; far away just a number beyond every shadow.
    fn hit(&self, label: u32, p: Point) -> (f32, Part) {
        let local = self.local(p);
        if local[0].abs().max(local[1].abs()) > 1.5 {
            return (1.0, Part::Main);
        }
        let (distance, part) = object(label, local, self.variant);
        (distance * self.half[0].abs().min(self.half[1]), part)
    }
}

/// A shape that belongs to no class, behind or in front of the object.
struct Clutter {
    kind: u64,
    place: Point,
    axis: Point,
    size: f32,
    thin: f32,
    paint: Paint,
}

impl Clutter {
    fn new(stream: &mut Stream, place: Point, size: f32, paint: Paint) -> Self {
        let axis = paint::any_direction(stream);
        Clutter { kind: stream.below(4), place, axis, size, thin: uniform(stream, 0.12, 0.35), paint }
    }

    fn distance(&self, p: Point) -> f32 {
        let q = sub(p, self.place);
        let q = [dot(q, self.axis) / self.size, (q[1] * self.axis[0] - q[0] * self.axis[1]) / self.size];
        self.size
            * match self.kind {
                0 => capsule(q, [-1.0, 0.0], [1.0, 0.0], 0.6 * self.thin),
                1 => ellipse(q, [0.0, 0.0], [1.0, 1.5 * self.thin]),
                2 => polygon(q, &[[-0.9, -self.thin], [1.0, 0.0], [-0.7, 2.0 * self.thin]]),
                // An open arc: half of a flat ring.
                _ => ring(q, [0.0, 0.0], [1.0, 0.5], 0.4 * self.thin).max(q[1]),
            }
    }
}

/// Everything that decides an image's pixels but sensor noise.
struct Scene {
    label: u32,
    pose: Pose,
    /// Main, second, dark, light.
    paints: [Paint; 4],
    ground: [Paint; 2],
    /// Where the second ground begins: a line through the image, or beyond it.
    horizon: (Point, f32),
    behind: Vec<Clutter>,
    front: Option<Clutter>,
    /// Towards the light, in the image's plane.
    light: Point,
    relief: f32,
    shadow: f32,
    exposure: f32,
    falloff: Point,
    cast: Rgb,
    blur: f32,
    noise: f32,
    pixel: f32,
}

impl Scene {
    fn new(key: Key, label: u32, pixel: f32) -> Self {
        let mut stream = key.stream();
        let s = &mut stream;
        let pose = Pose::new(s);
        let ground_light = uniform(s, 0.2, 0.8);
        let ground = [0; 2].map(|_| {
            let [a, b] = [0; 2].map(|_| {
                let (light, saturation) = (ground_light + uniform(s, -0.2, 0.2), uniform(s, 0.05, 0.35));
                colour(s, light, saturation)
            });
            Paint::new(s, [a, b], 1.0)
        });
        let level = if s.chance(0.5) { uniform(s, -0.3, 0.7) } else { 9.0 };
        let tilt = direction(uniform(s, -0.08, 0.08));
        let horizon = ([-tilt[1], tilt[0]], level);
        let paints = object_paints(s, luma(ground[0].mean()));
        let behind = (0..1 + s.below(4)).map(|_| background_clutter(s, ground_light)).collect();
        let front = s.chance(0.3).then(|| occluder(s, &pose));
        let light = direction(uniform(s, -0.6, 0.6));
        Scene {
            label,
            pose,
            paints,
            ground,
            horizon,
            behind,
            front,
            // Mostly from above.
            light: [light[1], -light[0]],
            relief: uniform(s, 0.1, 0.45),
            shadow: uniform(s, 0.0, 0.5),
            exposure: uniform(s, 0.75, 1.2),
            falloff: [uniform(s, -0.2, 0.2), uniform(s, -0.2, 0.2)],
            cast: [0; 3].map(|_| uniform(s, 0.9, 1.1)),
            blur: uniform(s, 0.0, 0.2),
            noise: uniform(s, 0.005, 0.03),
            pixel,
        }
    }

    /// The colour at a point, before blur and sensor noise.
    fn at(&self, p: Point) -> Rgb {
        let mut c = self.background(p);
        let shaded = [p[0] + 0.1 * self.light[0], p[1] + 0.1 * self.light[1]];
        let shadow = 1.0 - smooth(-0.08, 0.14, self.pose.hit(self.label, shaded).0);
        c = scale(c, 1.0 - self.shadow * shadow);
        let (distance, part) = self.pose.hit(self.label, p);
        let cover = self.cover(distance);
        if cover > 0.0 {
            c = mix(c, self.surface(p, distance, part), cover);
        }
        if let Some(front) = &self.front {
            let cover = self.cover(front.distance(p));
            if cover > 0.0 {
                c = mix(c, front.paint.at(p), cover);
            }
        }
        let light = self.exposure * (1.0 + dot(p, self.falloff));
        [0, 1, 2].map(|i| (c[i] * light * self.cast[i]).clamp(0.0, 1.0))
    }

    fn background(&self, p: Point) -> Rgb {
        let (normal, level) = self.horizon;
        let below = self.cover(level - dot(p, normal));
        let mut c = match below {
            0.0 => self.ground[0].at(p),
            1.0 => self.ground[1].at(p),
            _ => mix(self.ground[0].at(p), self.ground[1].at(p), below),
        };
        for clutter in &self.behind {
            let cover = self.cover(clutter.distance(p));
            if cover > 0.0 {
                c = mix(c, clutter.paint.at(p), cover);
            }
        }
        c
    }

    /// How much of a pixel lies inside an edge at `distance` from its centre.
    fn cover(&self, distance: f32) -> f32 {
        (0.5 - distance / self.pixel).clamp(0.0, 1.0)
    }

    /// The object's colour: its paint, lit as if it rose from its edge like a pillow.
    fn surface(&self, p: Point, distance: f32, part: Part) -> Rgb {
        const STEP: f32 = 0.02;
        let slope = |q: Point| (self.pose.hit(self.label, q).0 - distance) / STEP;
        let outward = [slope([p[0] + STEP, p[1]]), slope([p[0], p[1] + STEP])];
        let steepness = 1.0 - smooth(0.0, 0.35, -distance);
        let shade = 1.0 + self.relief * steepness * dot(outward, self.light).clamp(-1.2, 1.2);
        scale(self.paints[part as usize].at(self.pose.local(p)), shade)
    }
}

/// The object's paints: its main one differs from the ground's mean lightness by a fifth or more, either way.
fn object_paints(s: &mut Stream, ground: f32) -> [Paint; 4] {
    let room = [ground - 0.05, 0.95 - ground];
    let brighter = if room[0] < 0.3 || room[1] < 0.3 { room[1] > room[0] } else { s.chance(0.5) };
    let away = uniform(s, 0.22, 0.22_f32.max(room[usize::from(brighter)].min(0.5)));
    let main = if brighter { ground + away } else { ground - away };
    let second = if brighter == s.chance(0.8) { main - 0.15 } else { main + 0.15 };
    [(main, 0.06), (second, 0.05), (main * 0.45, 0.0), ((main * 1.3 + 0.1).min(0.95), 0.0)].map(
        |(lightness, spread)| {
            let saturation = uniform(s, 0.05, 0.4);
            let a = colour(s, lightness.clamp(0.02, 0.97), saturation);
            let b = a.map(|x| (x + uniform(s, -spread, spread)).clamp(0.0, 1.0));
            Paint::new(s, [a, b], 0.5)
        },
    )
}

fn background_clutter(s: &mut Stream, ground: f32) -> Clutter {
    let place = [uniform(s, -1.1, 1.1), uniform(s, -1.1, 1.1)];
    let size = uniform(s, 0.15, 0.55);
    let paint = clutter_paint(s, ground);
    Clutter::new(s, place, size, paint)
}

/// Something that covers an edge of the object, never its middle.
fn occluder(s: &mut Stream, pose: &Pose) -> Clutter {
    let side = paint::any_direction(s);
    let away = uniform(s, 0.75, 1.0);
    let place = [0, 1].map(|i| pose.place[i] + side[i] * away * pose.half[i].abs());
    let (size, ground) = (uniform(s, 0.25, 0.45), uniform(s, 0.2, 0.8));
    let paint = clutter_paint(s, ground);
    Clutter::new(s, place, size, paint)
}

fn clutter_paint(s: &mut Stream, ground: f32) -> Paint {
    let lightness = (ground + uniform(s, -0.35, 0.35)).clamp(0.05, 0.95);
    let saturation = uniform(s, 0.05, 0.35);
    let a = colour(s, lightness, saturation);
    let b = a.map(|x| (x + uniform(s, -0.1, 0.1)).clamp(0.0, 1.0));
    Paint::new(s, [a, b], 0.5)
}

/// Blurs rows, then columns, with the kernel [w, 1 − 2w, w]; the edge's pixels repeat beyond it.
fn blur(image: &mut [Rgb], size: usize, w: f32) {
    let mut line = vec![[0.0; 3]; size];
    for (step, stride) in [(1, size), (size, 1)] {
        for start in 0..size {
            let at = |i: usize| start * stride + i * step;
            for (i, out) in line.iter_mut().enumerate() {
                let (before, after) = (image[at(i.saturating_sub(1))], image[at((i + 1).min(size - 1))]);
                *out = mix(image[at(i)], mix(before, after, 0.5), 2.0 * w);
            }
            for (i, value) in line.iter().enumerate() {
                image[at(i)] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(seed: u64, split: u8, index: u64) -> (Vec<u8>, u32) {
        let config = SynthConfig { seed, ..SynthConfig::default() };
        let mut pixels = vec![0; 32 * 32 * 3];
        let label = draw(&config, split, index, &mut pixels).unwrap();
        (pixels, label)
    }

    #[test]
    fn an_image_depends_on_seed_split_and_index_and_on_nothing_else() {
        let first = image(1, 0, 7);
        assert_eq!(first, image(1, 0, 7));
        for other in [image(2, 0, 7), image(1, 1, 7), image(1, 0, 17)] {
            assert_eq!(other.1, 7);
            assert_ne!(other.0, first.0);
        }
    }

    #[test]
    fn every_class_comes_once_in_ten() {
        let labels: Vec<u32> = (30..40).map(|i| image(0, 0, i).1).collect();
        assert_eq!(labels, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn pixels_are_lit_varied_and_alike_in_every_class() {
        let (mut mean, mut square, n) = ([0.0; 10], 0.0, 100);
        for index in 0..10 * n {
            let (pixels, label) = image(3, 0, index);
            let values = pixels.iter().map(|&v| f64::from(v) / 255.0);
            let m = values.clone().sum::<f64>() / pixels.len() as f64;
            let deviation = (values.map(|v| (v - m) * (v - m)).sum::<f64>() / pixels.len() as f64).sqrt();
            assert!(deviation > 0.02, "image {index} is almost flat: {deviation}");
            mean[label as usize] += m / n as f64;
            square += m * m / (10 * n) as f64;
        }
        let all = mean.iter().sum::<f64>() / 10.0;
        assert!((0.3..0.6).contains(&all), "{all}");
        assert!((square - all * all).sqrt() > 0.08, "images are equally bright");
        assert!(mean.iter().all(|m| (m - all).abs() < 0.06), "brightness tells the class: {mean:?}");
    }

    /// Drawn again on another machine it must be this; a change of any image needs another [`VERSION`].
    #[test]
    fn images_of_this_version_are_known() {
        let mut bytes = Vec::new();
        for index in 0..20 {
            bytes.extend(image(0, 0, index).0);
        }
        assert_eq!(crate::rng::fnv1a(&bytes), 17_111_849_007_986_480_239, "VERSION {VERSION}");
    }

    #[test]
    fn any_size_can_be_drawn_and_a_wrong_buffer_is_an_error() {
        for size in [1, 2, 7, 64] {
            let config = SynthConfig { size, ..SynthConfig::default() };
            assert!(draw(&config, 1, u64::MAX, &mut vec![0; size * size * 3]).is_ok());
        }
        for (size, length) in [(0, 0), (32, 3071), (usize::MAX, 3)] {
            let config = SynthConfig { size, ..SynthConfig::default() };
            let error = draw(&config, 0, 0, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Shape);
        }
    }

    #[test]
    fn blur_keeps_the_mean_and_a_flat_image() {
        let mut image: Vec<Rgb> = (0..25).map(|i| [if i == 12 { 1.0 } else { 0.0 }, 0.5, 0.25]).collect();
        blur(&mut image, 5, 0.2);
        assert!((image.iter().map(|c| c[0]).sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((image[12][0] - 0.36).abs() < 1e-6 && (image[6][0] - 0.04).abs() < 1e-6);
        assert!(image.iter().all(|c| (c[1] - 0.5).abs() < 1e-6));
    }
}
