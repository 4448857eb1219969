//! Changes of whole batches, against their formulas.

use super::*;
use crate::resample::Rect;

const SHAPE: BatchShape = BatchShape { batch: 12, height: 40, width: 30, outputs: 12 };

/// Image i is i everywhere, its target is one-hot.
fn batch(shape: &BatchShape) -> (Vec<f32>, Vec<f32>) {
    let len = shape.image_len();
    let targets = (0..shape.batch * shape.outputs).map(|i| f32::from(i / shape.outputs == i % shape.outputs));
    ((0..shape.batch * len).map(|i| (i / len) as f32).collect(), targets.collect())
}

/// The batch of `key`, changed.
fn changed(augment: Augment, key: Key) -> (Vec<f32>, Vec<f32>) {
    let (mut images, mut targets) = batch(&SHAPE);
    let (mut kept, mut mixer) = (vec![0.0; SHAPE.image_len()], Mixer::default());
    mixer.reserve(SHAPE.batch, SHAPE.outputs);
    let rows = Rows { n: SHAPE.batch, images: &mut images, targets: &mut targets };
    augment.change_batch(key, &SHAPE, rows, &mut kept, &mut mixer);
    (images, targets)
}

fn key(i: u64) -> Key {
    Key::new(12).with(i)
}

/// The other image that each target has a part of, and the own part.
fn partners(targets: &[f32]) -> Vec<(usize, f32)> {
    let rows = targets.chunks_exact(SHAPE.outputs).enumerate();
    let partner = |(i, row): (usize, &[f32])| {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        let others: Vec<usize> = (0..row.len()).filter(|&c| c != i && row[c] > 0.0).collect();
        assert!(others.len() <= 1, "{row:?}");
        (others.first().copied().unwrap_or(i), row[i])
    };
    rows.map(partner).collect()
}

fn assert_permutation(partners: &[(usize, f32)]) {
    let mut order: Vec<usize> = partners.iter().map(|&(partner, _)| partner).collect();
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..SHAPE.batch), "{order:?}");
}

#[test]
fn mixup_mixes_images_as_it_mixes_targets() {
    let mut shares = Vec::new();
    let mut moved = 0i32;
    for i in 0..400 {
        let (images, targets) = changed(Augment { mixup: 1.0, ..Augment::NONE }, key(i));
        let partners = partners(&targets);
        for (own, (&(partner, share), image)) in partners.iter().zip(images.chunks_exact(SHAPE.image_len())).enumerate()
        {
            let expected = share * own as f32 + (1.0 - share) * partner as f32;
            assert!(image.iter().all(|v| (v - expected).abs() < 1e-5), "{own}: {} for {expected}", image[0]);
            if partner != own {
                moved += 1;
                shares.push(f64::from(share));
            }
        }
        // λ could be so near 1 that the partner does not show; with α = 1 it never is in these draws.
        assert_permutation(&partners);
    }
    // A permutation of 12 leaves one in place on average.
    assert!((400 * 12 - moved - 400).abs() < 100, "{moved}");
    // max(λ, 1 − λ) of a uniform λ is uniform over ½..1, anew for each image.
    shares.sort_by(f64::total_cmp);
    for p in [0.1, 0.5, 0.9] {
        let quantile = shares[(p * shares.len() as f64) as usize];
        assert!((quantile - 0.5 - p / 2.0).abs() < 0.015, "{p}: {quantile}");
    }
    assert!(shares[0] >= 0.5 && shares.windows(2).filter(|w| w[0] == w[1]).count() < 10);
}

/// The box of another image in each one, and its area's share, checked to be the same for all.
fn pasted(images: &[f32], targets: &[f32]) -> Option<(Rect, f32)> {
    let mut found = None;
    for (own, (image, (partner, share))) in images.chunks_exact(SHAPE.image_len()).zip(partners(targets)).enumerate() {
        let other = |y: usize, x: usize| (0..3).all(|c| image[(y * SHAPE.width + x) * 3 + c] == partner as f32);
        let part = |y: usize, x: usize| (0..3).all(|c| image[(y * SHAPE.width + x) * 3 + c] == own as f32);
        if partner == own {
            assert!(image.iter().all(|&v| v == own as f32));
            continue;
        }
        let places: Vec<(usize, usize)> = (0..SHAPE.height)
            .flat_map(|y| (0..SHAPE.width).map(move |x| (y, x)))
            .filter(|&(y, x)| other(y, x))
            .collect();
        let (top, left) = (places.iter().map(|p| p.0).min()?, places.iter().map(|p| p.1).min()?);
        let (bottom, right) = (places.iter().map(|p| p.0).max()?, places.iter().map(|p| p.1).max()?);
        let rect = Rect { top, left, height: bottom + 1 - top, width: right + 1 - left };
        assert_eq!(places.len(), rect.height * rect.width, "a box");
        let rest = (0..SHAPE.height).flat_map(|y| (0..SHAPE.width).map(move |x| (y, x))).filter(|&(y, x)| part(y, x));
        assert_eq!(rest.count() + places.len(), SHAPE.height * SHAPE.width);
        let area = places.len() as f32 / (SHAPE.height * SHAPE.width) as f32;
        assert!((1.0 - share - area).abs() < 1e-6, "{share} for {area}");
        assert!(found.is_none_or(|(before, _)| before == rect), "{found:?} and {rect:?}");
        found = Some((rect, area));
    }
    found
}

#[test]
fn cutmix_pastes_one_box_and_weighs_targets_by_its_area() {
    let mut areas = Vec::new();
    let n = 3000;
    for i in 0..n {
        let (images, targets) = changed(Augment { cutmix: 1.0, ..Augment::NONE }, key(i));
        let Some((rect, area)) = pasted(&images, &targets) else { continue };
        assert_permutation(&partners(&targets));
        areas.push(f64::from(area));
        let (y, x) = (rect.top > 0 && rect.top + rect.height < 40, rect.left > 0 && rect.left + rect.width < 30);
        if y && x {
            // Away from the edges it has the image's shape, and even sides.
            assert!(rect.height % 2 == 0 && rect.width % 2 == 0, "{rect:?}");
            assert!((rect.height as f64 / 40.0 - rect.width as f64 / 30.0).abs() <= 2.5 / 30.0, "{rect:?}");
        }
    }
    // With λ uniform, u = 1 − λ, and a side of √u cut at the edges: E(√u − u/4)² = ½ − 1/5 + 1/48.
    let mean = areas.iter().sum::<f64>() / n as f64;
    assert!((mean - (0.5 - 0.2 + 1.0 / 48.0)).abs() < 0.025, "{mean}");
    assert!(areas.iter().any(|a| *a > 0.8) && areas.iter().any(|a| *a < 0.02));
}

#[test]
fn mixup_and_cutmix_take_half_of_the_batches_each() {
    let both = Augment { mixup: 1.0, cutmix: 1.0, ..Augment::NONE };
    let mixed = (0..1000).filter(|&i| {
        let one = changed(both, key(i));
        let mixup = one == changed(Augment { cutmix: 0.0, ..both }, key(i));
        let cutmix = one == changed(Augment { mixup: 0.0, ..both }, key(i));
        assert!(mixup != cutmix, "{i}");
        mixup
    });
    assert!((430..570).contains(&mixed.count()));
}

#[test]
fn erasing_fills_the_same_boxes_of_all_images_with_new_noise() {
    let erase = Erase { p: 0.5, max_share: 0.3, max_count: 3 };
    let augment = Augment { erase: Some(erase), ..Augment::NONE };
    let (mut changes, mut noise) = (0, Vec::new());
    for i in 0..300 {
        let (images, targets) = changed(augment, key(i));
        assert_eq!(targets, batch(&SHAPE).1);
        let boxes: Vec<Rect> = erase.boxes(key(i).with_name("erase"), &SHAPE).collect();
        changes += usize::from(!boxes.is_empty());
        for (own, image) in images.chunks_exact(SHAPE.image_len()).enumerate() {
            for (at, &value) in image.iter().enumerate() {
                let (y, x) = (at / 3 / SHAPE.width, at / 3 % SHAPE.width);
                let within = |start: usize, len: usize, at: usize| (start..start + len).contains(&at);
                let erased = boxes.iter().any(|b| within(b.top, b.height, y) && within(b.left, b.width, x));
                assert!(erased || value == own as f32);
                if erased {
                    noise.push(f64::from(value));
                }
            }
        }
    }
    assert!((120..180).contains(&changes), "{changes}");
    let n = noise.len() as f64;
    let mean = noise.iter().sum::<f64>() / n;
    let variance = noise.iter().map(|v| v * v).sum::<f64>() / n;
    assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.01, "{mean} {variance} of {n}");
    // New for each image, channel and pixel: no number occurs twice but by chance.
    noise.sort_by(f64::total_cmp);
    let twice = noise.windows(2).filter(|w| w[0] == w[1]).count() as f64;
    assert!(twice < 0.03 * n, "{twice} of {n}");
}

#[test]
fn boxes_have_the_published_count_area_and_shape() {
    let shape = BatchShape { height: 200, width: 200, ..SHAPE };
    let erase = Erase { p: 1.0, max_share: 0.3, max_count: 3 };
    let mut counts = [0; 4];
    let (mut areas, mut aspects, mut tops) = (Vec::new(), Vec::new(), [0; 4]);
    for i in 0..6000 {
        let boxes: Vec<Rect> = erase.boxes(key(i), &shape).collect();
        counts[boxes.len()] += 1;
        for b in &boxes {
            assert!(b.top + b.height <= 200 && b.left + b.width <= 200, "{b:?}");
            areas.push((b.height * b.width * boxes.len()) as f64 / 40_000.0);
            if b.height * b.width > 200 {
                aspects.push((b.height as f64 / b.width as f64).ln());
            }
            if (b.height, b.width) <= (150, 150) {
                tops[(4 * b.top / (201 - b.height)).min(3)] += 1;
            }
        }
    }
    assert!(counts[0] == 0 && counts[1..].iter().all(|n| (1850..2150).contains(n)), "{counts:?}");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!((mean(&areas) - 0.15).abs() < 0.003, "{}", mean(&areas));
    assert!(areas.iter().all(|a| *a < 0.31) && areas.iter().any(|a| *a > 0.29));
    // U(log .3, log 1/.3): mean 0, variance log²(1/.3)/3.
    let edge = (1.0f64 / 0.3).ln();
    let spread = mean(&aspects.iter().map(|a| a * a).collect::<Vec<_>>());
    assert!(mean(&aspects).abs() < 0.02 && (spread / (edge * edge / 3.0) - 1.0).abs() < 0.04, "{spread}");
    let all: i32 = tops.iter().sum();
    assert!(tops.iter().all(|n| (n * 4 - all).abs() < all / 8), "{tops:?}");
    assert_eq!(Erase { p: 0.0, ..erase }.boxes(key(1), &shape).count(), 0);
    assert!((0..50).all(|i| Erase { max_share: 0.0, ..erase }.boxes(key(i), &shape).count() == 0));
}
