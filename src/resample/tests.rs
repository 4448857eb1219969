//! The loops against the formula written out, at every SIMD level.

use ndarray::Array3;

use super::*;
use crate::backend::cpu::simd::levels_available;
use crate::rng::Key;

fn noise(h: usize, w: usize) -> Array3<u8> {
    let mut random = Key::new((h * 1000 + w) as u64).stream();
    Array3::from_shape_simple_fn((h, w, 3), || random.u64() as u8)
}

/// The weight of source pixel `x` of `from` in output pixel `o` of `to`.
fn weight(x: usize, from: usize, o: usize, to: usize) -> f64 {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let at = (o as f64 + 0.5) * scale - 0.5;
    let raw = |x: usize| (1.0 - (x as f64 - at).abs() / reach).max(0.0);
    raw(x) / (0..from).map(raw).sum::<f64>()
}

fn formula(image: &Array3<u8>, frame: &Frame) -> Array3<f64> {
    let Frame { crop, to, window, flip } = *frame;
    Array3::from_shape_fn((window.height, window.width, 3), |(y, x, c)| {
        let x = if flip { window.width - 1 - x } else { x };
        let mut sum = 0.0;
        for i in 0..crop.height {
            let wy = weight(i, crop.height, window.top + y, to.0);
            for j in 0..crop.width {
                let wx = weight(j, crop.width, window.left + x, to.1);
                sum += wy * wx * f64::from(image[[crop.top + i, crop.left + j, c]]);
            }
        }
        sum
    })
}

#[test]
fn every_frame_is_the_formula_with_the_same_bits_at_every_level() {
    let mut random = Key::new(8).stream();
    let mut side = |low: u64, high: u64| (low + random.below(high - low)) as usize;
    for case in 0..120 {
        let (h, w) = if case % 10 == 0 { (1, side(1, 40)) } else { (side(1, 50), side(1, 50)) };
        let (height, width) = (side(1, h as u64 + 1), side(1, w as u64 + 1));
        let (top, left) = (side(0, (h - height) as u64 + 1), side(0, (w - width) as u64 + 1));
        let to = (side(1, 30), side(1, 30));
        let (rows, columns) = (side(1, to.0 as u64 + 1), side(1, to.1 as u64 + 1));
        let window = Rect {
            top: side(0, (to.0 - rows) as u64 + 1),
            left: side(0, (to.1 - columns) as u64 + 1),
            height: rows,
            width: columns,
        };
        let frame = Frame { crop: Rect { top, left, height, width }, to, window, flip: case % 2 == 1 };
        let image = noise(h, w);
        let expected = formula(&image, &frame);
        let mut first: Option<Array3<f32>> = None;
        for level in levels_available() {
            let mut out = Array3::from_elem((rows, columns, 3), f32::NAN);
            let tone = Tone::normalised([0.2, 0.5, 0.8], [0.25, 0.5, 2.0]);
            let mut resampler = Resampler::at(level);
            resampler.reserve((h, w), (rows, columns));
            let held = |r: &Resampler| [r.rows.weights.capacity(), r.columns.weights.capacity(), r.line.capacity()];
            let before = held(&resampler);
            resampler.draw(image.view(), &frame, &tone, out.view_mut()).unwrap();
            assert_eq!(held(&resampler), before, "{frame:?}: the reserve does not suffice");
            for (c, (mean, std)) in [(0.2, 0.25), (0.5, 0.5), (0.8, 2.0)].into_iter().enumerate() {
                for ((y, x), byte) in expected.slice(ndarray::s![.., .., c]).indexed_iter() {
                    let (value, wanted) = (f64::from(out[[y, x, c]]), (byte / 255.0 - mean) / std);
                    assert!((value - wanted).abs() < 2e-5, "{frame:?} at {y} {x} {c}: {value} {wanted}");
                }
            }
            assert_eq!(*first.get_or_insert_with(|| out.clone()), out, "{level:?}");
        }
    }
}

#[test]
fn a_resampler_is_none_the_wiser_from_earlier_images() {
    let (small, large) = (noise(9, 7), noise(90, 70));
    let draw = |resampler: &mut Resampler, image: &Array3<u8>, to| {
        let mut out = Array3::zeros((5, 6, 3));
        let frame = Framing::Squash { to }.frame((image.dim().0, image.dim().1), (5, 6)).unwrap();
        resampler.draw(image.view(), &frame, &Tone::BYTES, out.view_mut()).unwrap();
        out
    };
    let mut shared = Resampler::new().unwrap();
    for (image, to) in [(&large, (5, 6)), (&small, (20, 20)), (&large, (7, 6)), (&small, (5, 6))] {
        assert_eq!(draw(&mut shared, image, to), draw(&mut Resampler::new().unwrap(), image, to));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let image = noise(6, 8);
    let whole = Frame::of(Rect::whole((6, 8)), (4, 4));
    let kind = |image: ndarray::ArrayView3<'_, u8>, frame: &Frame, out: (usize, usize, usize)| {
        let mut out = Array3::zeros(out);
        Resampler::new().unwrap().draw(image, frame, &Tone::BYTES, out.view_mut()).map_err(|e| e.kind())
    };
    assert_eq!(kind(image.view(), &whole, (4, 4, 3)), Ok(()));
    let shape = Err(ErrorKind::Shape);
    assert_eq!(kind(image.view(), &whole, (4, 5, 3)), shape);
    assert_eq!(kind(image.view(), &whole, (4, 4, 1)), shape);
    assert_eq!(kind(image.view().reversed_axes(), &whole, (4, 4, 3)), shape);
    assert_eq!(kind(image.slice(ndarray::s![.., ..;2, ..]), &whole, (4, 4, 3)), shape);
    let rect = |top, left, height, width| Rect { top, left, height, width };
    for crop in [rect(1, 0, 6, 8), rect(0, 0, 6, 0), rect(usize::MAX, 0, 6, 8), rect(0, 3, 6, 6)] {
        assert_eq!(kind(image.view(), &Frame { crop, ..whole }, (4, 4, 3)), shape, "{crop:?}");
    }
    for window in [rect(1, 0, 4, 4), rect(0, 0, 0, 4)] {
        assert_eq!(kind(image.view(), &Frame { window, ..whole }, (4, 4, 3)), shape, "{window:?}");
    }
    let huge = Frame { window: rect(0, 0, 4, 4), ..Frame::of(Rect::whole((6, 8)), (usize::MAX, 4)) };
    assert_eq!(kind(image.view(), &huge, (4, 4, 3)), shape);
}
