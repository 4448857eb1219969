//! What Pillow and torchvision make of images (tests/fixtures/make_pixels.py).

use handgrad::infer::framed;
use handgrad::resample::{Frame, Framing, Rect, Resampler, Tone};
use ndarray::Array3;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::golden::hash;

const FILE: &[u8] = include_bytes!("../fixtures/pixels.safetensors");

struct Pixels {
    tensors: SafeTensors<'static>,
    settings: Value,
}

impl Pixels {
    fn load() -> Self {
        let (_, metadata) = SafeTensors::read_metadata(FILE).unwrap();
        let settings = &metadata.metadata().as_ref().unwrap()["pixels"];
        Pixels { tensors: SafeTensors::deserialize(FILE).unwrap(), settings: serde_json::from_str(settings).unwrap() }
    }

    fn bytes(&self, name: &str) -> Array3<u8> {
        let tensor = self.tensors.tensor(name).unwrap();
        let [h, w, c] = tensor.shape() else { panic!("{name}: {:?}", tensor.shape()) };
        Array3::from_shape_vec((*h, *w, *c), tensor.data().to_vec()).unwrap()
    }
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

/// The image that the script and this test share.
fn image(name: &str, size: &Value) -> Array3<u8> {
    let size = numbers(size);
    let pixels = (0..size[0] * size[1] * 3).map(|i| (hash(name, i) >> 56) as u8).collect();
    Array3::from_shape_vec((size[0], size[1], 3), pixels).unwrap()
}

fn rect(value: &Value) -> Rect {
    let [top, left, height, width] = numbers(value)[..] else { panic!("{value}") };
    Rect { top, left, height, width }
}

/// Pillow rounds to a byte between its two passes and after them; we do not. The median of the differences must be
/// what one rounding leaves, so that a shift of all pixels by one is no pass.
fn within_one(name: &str, ours: impl Iterator<Item = f32>, theirs: &Array3<u8>) {
    let mut off: Vec<f32> = ours.zip(theirs).map(|(a, &b)| (a - f32::from(b)).abs()).collect();
    assert_eq!(off.len(), theirs.len(), "{name}");
    off.sort_by(f32::total_cmp);
    assert!(off[off.len() - 1] <= 1.0 && off[off.len() / 2] <= 0.5, "{name}: up to {}", off[off.len() - 1]);
}

#[test]
fn frames_are_pillows() {
    let pixels = Pixels::load();
    let frames = pixels.settings["frames"].as_object().unwrap();
    assert!(frames.len() >= 15);
    for (name, settings) in frames {
        let to = numbers(&settings[2]);
        let frame = Frame {
            crop: rect(&settings[1]),
            to: (to[0], to[1]),
            window: rect(&settings[3]),
            flip: settings[4].as_bool().unwrap(),
        };
        let (h, w) = frame.size();
        let mut out = Array3::zeros((h, w, 3));
        let source = image(name, &settings[0]);
        Resampler::new().unwrap().draw(source.view(), &frame, &Tone::BYTES, out.view_mut()).unwrap();
        within_one(name, out.into_iter(), &pixels.bytes(&format!("frame/{name}")));
    }
}

#[test]
fn framings_are_torchvisions() {
    let pixels = Pixels::load();
    let framings = pixels.settings["framings"].as_object().unwrap();
    assert!(framings.len() >= 6);
    for (name, settings) in framings {
        let framing = match &settings[1] {
            Value::Array(_) => Framing::Squash { to: (numbers(&settings[1])[0], numbers(&settings[1])[1]) },
            to => Framing::Shorter { to: to.as_u64().unwrap() as usize },
        };
        let size = settings[2].as_u64().unwrap() as usize;
        let ours = framed(image(name, &settings[0]).view(), framing, (size, size)).unwrap();
        within_one(name, ours.into_iter().map(f32::from), &pixels.bytes(&format!("framing/{name}")));
    }
}
