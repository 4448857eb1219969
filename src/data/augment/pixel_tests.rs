//! Changes of single images: as torchvision makes them (tests/fixtures/make_pixels.py), and on numbers that can be worked
//! out by hand.

use safetensors::SafeTensors;
use serde_json::Value;

use super::affine::Map;
use super::jitter::Change;
use super::*;
use crate::data::format::CHANNELS;
use crate::rng::fnv1a;

const FILE: &[u8] = include_bytes!("../../../tests/fixtures/pixels.safetensors");

/// The settings of the script, and a tensor of its file.
fn fixtures() -> (Value, impl Fn(&str) -> Vec<f32>) {
    let (_, metadata) = SafeTensors::read_metadata(FILE).unwrap();
    let settings = &metadata.metadata().as_ref().unwrap()["pixels"];
    let tensors = SafeTensors::deserialize(FILE).unwrap();
    let tensor = move |name: &str| {
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    (serde_json::from_str(settings).unwrap(), tensor)
}

/// The image that the script and these tests share, 0 to 1.
fn shared_image(name: &str, (h, w): (usize, usize)) -> Vec<f32> {
    let hash = |i: usize| {
        let z = fnv1a(name.as_bytes()).wrapping_add((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..h * w * CHANNELS).map(|i| (hash(i) >> 56) as f32 / 255.0).collect()
}

fn size(value: &Value) -> (usize, usize) {
    (value[0].as_u64().unwrap() as usize, value[1].as_u64().unwrap() as usize)
}

/// The largest difference.
fn off(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A change's name in the file.
type Kind = (&'static str, fn(f32) -> Change);

#[test]
fn colours_are_torchvisions() {
    let (settings, tensor) = fixtures();
    let image = shared_image("colour", size(&settings["colour_size"]));
    let kinds: [Kind; 4] = [
        ("brightness", Change::Brightness),
        ("contrast", Change::Contrast),
        ("saturation", Change::Saturation),
        ("hue", Change::Hue),
    ];
    for (kind, change) in kinds {
        for (i, factor) in settings["colours"][kind].as_array().unwrap().iter().enumerate() {
            let mut ours = image.clone();
            change(factor.as_f64().unwrap() as f32).apply(&mut ours);
            let off = off(&ours, &tensor(&format!("colour/{kind}/{i}")));
            assert!(off < 5e-6, "{kind} by {factor}: {off}");
        }
    }
}

#[test]
fn affine_maps_are_torchvisions() {
    let (settings, tensor) = fixtures();
    let turns = settings["turns"].as_object().unwrap();
    assert!(turns.len() >= 7);
    for (name, turn) in turns {
        let number = |i: usize| turn[i].as_f64().unwrap();
        let translate = [turn[1][0].as_f64().unwrap(), turn[1][1].as_f64().unwrap()];
        let map = Map::new(number(0), translate, number(2), number(3));
        let outside = if turn[4] == "reflect" { Outside::Reflect } else { Outside::Fill { fill: [0.0; 3] } };
        let size = size(&settings["turn_size"]);
        let image = shared_image(name, size);
        let mut ours = vec![f32::NAN; image.len()];
        map.apply(&image, size, outside, &mut ours);
        let off = off(&ours, &tensor(&format!("turn/{name}")));
        assert!(off < 5e-5, "{name}: {off}");
    }
}

fn noise(name: &str, len: usize) -> Vec<f32> {
    let mut stream = Key::new(8).with_name(name).stream();
    (0..len).map(|_| stream.f64() as f32).collect()
}

fn changed(change: Change, pixel: [f32; 3]) -> [f32; 3] {
    let mut pixel = pixel;
    change.apply(&mut pixel);
    pixel
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6)
}

#[test]
fn a_third_of_a_turn_makes_green_of_red() {
    for (from, to) in [([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]), ([0.8, 0.3, 0.4], [0.4, 0.8, 0.3])] {
        assert!(near(&changed(Change::Hue(1.0 / 3.0), from), &to));
        assert!(near(&changed(Change::Hue(-1.0 / 3.0), to), &from));
        assert!(near(&changed(Change::Hue(0.5), changed(Change::Hue(0.5), from)), &from));
    }
    assert!(near(&changed(Change::Hue(0.3), [0.4; 3]), &[0.4; 3]));
}

#[test]
fn factors_are_drawn_within_their_limits() {
    let jitter = Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, ..Jitter::default() };
    let image = noise("image", 5 * 5 * CHANNELS);
    let apply = |jitter: Jitter, i: u64| {
        let mut image = image.clone();
        jitter.apply(Key::new(1).with(i), &mut image);
        image
    };
    assert_eq!(apply(jitter, 3), apply(jitter, 3));
    assert_ne!(apply(jitter, 3), apply(jitter, 4));
    assert_eq!(apply(Jitter { p: 0.0, ..jitter }, 3), image);
    assert_eq!(apply(Jitter::default(), 3), image);
    let half = (0..2000).filter(|&i| apply(Jitter { p: 0.5, ..jitter }, i) != image).count();
    assert!((900..1100).contains(&half), "{half}");
    // Brightness alone: the factor's range and mean.
    let bright = Jitter { brightness: 0.4, ..Jitter::default() };
    let dark: Vec<f32> = image.iter().map(|v| v / 2.0).collect();
    let factors: Vec<f64> = (0..4000)
        .map(|i| {
            let mut image = dark.clone();
            bright.apply(Key::new(2).with(i), &mut image);
            f64::from(image[0] / dark[0])
        })
        .collect();
    let mean = factors.iter().sum::<f64>() / 4000.0;
    assert!((mean - 1.0).abs() < 0.015 && factors.iter().all(|f| (0.599..1.401).contains(f)), "{mean}");
    assert!(factors.iter().any(|f| *f < 0.62) && factors.iter().any(|f| *f > 1.38));
}

#[test]
fn every_change_of_colour_comes_at_every_place() {
    let jitter = Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, ..Jitter::default() };
    let mut places = [[0; 4]; 4];
    for i in 0..4000 {
        for (place, change) in jitter.draw(&mut Key::new(3).with(i).stream()).into_iter().enumerate() {
            let kind = match change.unwrap() {
                Change::Brightness(f) => (0, f, 0.6..1.4),
                Change::Contrast(f) => (1, f, 0.6..1.4),
                Change::Saturation(f) => (2, f, 0.6..1.4),
                Change::Hue(turn) => (3, turn, -0.1..0.1),
            };
            assert!(kind.2.contains(&kind.1), "{kind:?}");
            places[kind.0][place] += 1;
        }
    }
    assert!(places.iter().flatten().all(|n| (880..1120).contains(n)), "{places:?}");
}

#[test]
fn a_quarter_turn_moves_each_pixel_to_its_place() {
    let (n, source) = (5, noise("turn", 5 * 5 * CHANNELS));
    let pixel = |image: &[f32], y: usize, x: usize| image[(y * n + x) * CHANNELS..][..CHANNELS].to_vec();
    for outside in [Outside::Reflect, Outside::Fill { fill: [0.5; 3] }] {
        let mut out = vec![f32::NAN; source.len()];
        Map::new(90.0, [0.0; 2], 1.0, 0.0).apply(&source, (n, n), outside, &mut out);
        for y in 0..n {
            for x in 0..n {
                // Clockwise: what was at the left is at the top.
                assert!(near(&pixel(&out, x, n - 1 - y), &pixel(&source, y, x)), "{y} {x} {outside:?}");
            }
        }
    }
}

#[test]
fn a_shift_shows_what_is_outside() {
    let (h, w) = (4, 6);
    let source = noise("shift", h * w * CHANNELS);
    let pixel = |image: &[f32], y: usize, x: usize| image[(y * w + x) * CHANNELS..][..CHANNELS].to_vec();
    let map = Map::new(0.0, [2.0, -1.0], 1.0, 0.0);
    let mut filled = vec![f32::NAN; source.len()];
    map.apply(&source, (h, w), Outside::Fill { fill: [0.1, 0.2, 0.3] }, &mut filled);
    let mut mirrored = filled.clone();
    map.apply(&source, (h, w), Outside::Reflect, &mut mirrored);
    for y in 0..h {
        for x in 0..w {
            let inside = x >= 2 && y + 1 < h;
            let moved = if inside { pixel(&source, y + 1, x - 2) } else { vec![0.1, 0.2, 0.3] };
            assert!(near(&pixel(&filled, y, x), &moved), "{y} {x}");
            let (from_y, from_x) = ((y + 1).min(2 * h - 2 - y), if x < 2 { 1 - x } else { x - 2 });
            assert!(near(&pixel(&mirrored, y, x), &pixel(&source, from_y, from_x)), "{y} {x}");
        }
    }
}

#[test]
fn maps_are_drawn_within_their_limits() {
    let affine = Affine { degrees: 30.0, translate: 0.25, scale: [0.5, 2.0], shear: 10.0, ..Affine::default() };
    let map = |affine: Affine, i| affine.draw(Key::new(4).with(i), (20, 40));
    assert_eq!(map(Affine::default(), 1), Some(Map::new(0.0, [0.0; 2], 1.0, 0.0)));
    assert_eq!(map(affine, 5), map(affine, 5));
    assert_ne!(map(affine, 5), map(affine, 6));
    let none = (0..2000).filter(|&i| map(Affine { p: 0.25, ..affine }, i).is_none()).count();
    assert!((1400..1600).contains(&none), "{none}");
    // Far maps of tiny images stay inside.
    let far = Affine { degrees: 180.0, translate: 1.0, scale: [0.01, 0.02], shear: 80.0, ..affine };
    for outside in [Outside::Reflect, Outside::Fill { fill: [1.0; 3] }] {
        for (h, w) in [(1, 1), (1, 7), (3, 2)] {
            let mut out = vec![f32::NAN; h * w * CHANNELS];
            let source = noise("far", out.len());
            for i in 0..200 {
                far.draw(Key::new(6).with(i), (h, w)).unwrap().apply(&source, (h, w), outside, &mut out);
                assert!(out.iter().all(|v| (-1e-6..1.000001).contains(v)), "{h}×{w} {outside:?}");
            }
        }
    }
}

#[test]
fn amounts_outside_their_ranges_are_errors() {
    let base = Augment::NONE;
    let (jitter, affine, erase) = (Jitter::default(), Affine::default(), Erase::default());
    for wrong in [
        Augment { mixup: -0.1, ..base },
        Augment { cutmix: 1e-310, ..base },
        Augment { cutmix: f64::NAN, ..base },
        Augment { mixup: 101.0, ..base },
        Augment { jitter: Some(Jitter { hue: 0.6, ..jitter }), ..base },
        Augment { jitter: Some(Jitter { contrast: -1.0, ..jitter }), ..base },
        Augment { jitter: Some(Jitter { p: 1.1, ..jitter }), ..base },
        Augment { affine: Some(Affine { degrees: 181.0, ..affine }), ..base },
        Augment { affine: Some(Affine { scale: [0.0, 1.0], ..affine }), ..base },
        Augment { affine: Some(Affine { scale: [2.0, 1.0], ..affine }), ..base },
        Augment { affine: Some(Affine { shear: 81.0, ..affine }), ..base },
        Augment { affine: Some(Affine { translate: f64::INFINITY, ..affine }), ..base },
        Augment { affine: Some(Affine { outside: Outside::Fill { fill: [0.0, 0.0, 2.0] }, ..affine }), ..base },
        Augment { erase: Some(Erase { max_share: 1.5, ..erase }), ..base },
        Augment { erase: Some(Erase { max_count: 0, ..erase }), ..base },
    ] {
        assert_eq!(wrong.check().unwrap_err().kind(), ErrorKind::Usage, "{wrong:?}");
    }
    let all =
        Augment { jitter: Some(jitter), affine: Some(affine), erase: Some(erase), mixup: 1.0, cutmix: 1.0, ..base };
    assert!(all.check().is_ok());
}
