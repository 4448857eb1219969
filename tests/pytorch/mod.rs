//! What PyTorch computed (tests/fixtures), and a backend that has to come to the same: for the tests of all backends.

use handgrad::backend::{Backend, Real};
use handgrad::engine::Engine;
use handgrad::graph::{Graph, Shape};
use handgrad::models::{self, ModelOptions};
use handgrad::ops::{Activation, Conv2d, Flatten, Linear, MaxPool, Window};
use handgrad::optim::{Decay, Optimizer, ParamTable, Rates, Sgd, SgdConfig};
use handgrad::rng::fnv1a;
use ndarray::{Array2, Array4};
use safetensors::SafeTensors;
use serde_json::Value;

/// The progression and single ops, the larger nets, those with twists, the speed run.
pub const FILES: [&[u8]; 4] = [
    include_bytes!("../fixtures/golden.safetensors"),
    include_bytes!("../fixtures/models.safetensors"),
    include_bytes!("../fixtures/twisted.safetensors"),
    include_bytes!("../fixtures/airbench.safetensors"),
];
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The hash that the generating script and this test share: SplitMix64's finaliser.
pub fn hash(name: &str, i: usize) -> u64 {
    let z = fnv1a(name.as_bytes()).wrapping_add((i as u64).wrapping_mul(GOLDEN));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

pub fn uniform(name: &str, len: usize, scale: f64) -> Vec<f64> {
    (0..len).map(|i| ((hash(name, i) >> 11) as f64 * 2f64.powi(-53) * 2.0 - 1.0) * scale).collect()
}

pub struct Fixtures {
    tensors: SafeTensors<'static>,
    pub golden: Value,
}

impl Fixtures {
    /// The file that has this run.
    pub fn with_run(run: &str) -> Self {
        let all = FILES.map(Fixtures::read);
        all.into_iter().find(|file| file.golden["runs"].get(run).is_some()).unwrap_or_else(|| panic!("no run {run}"))
    }

    pub fn read(file: &'static [u8]) -> Self {
        let (_, metadata) = SafeTensors::read_metadata(file).unwrap();
        let golden = &metadata.metadata().as_ref().unwrap()["golden"];
        Fixtures { tensors: SafeTensors::deserialize(file).unwrap(), golden: serde_json::from_str(golden).unwrap() }
    }

    pub fn get(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// `|a − b| ≤ tolerance · scale` for every pair.
pub fn assert_close(what: &str, ours: &[f64], theirs: &[f64], scale: f64, tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        // Written so that a NaN fails.
        assert!((a - b).abs() <= tolerance * scale, "{what}[{i}]: {a}, PyTorch has {b} (scale {scale:e})");
    }
}

pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
}

fn projections(name: &str, values: &[f64]) -> Vec<f64> {
    let name = format!("sign.{name}");
    let sign = |i: usize, k: usize| if hash(&name, i) >> k & 1 == 1 { 1.0 } else { -1.0 };
    (0..4).map(|k| values.iter().enumerate().map(|(i, v)| sign(i, k) * v).sum()).collect()
}

/// (k − rot180 k)/2 of 3×3 kernels: what a twist uses of them.
fn antisymmetric(kernels: &[f64]) -> Vec<f64> {
    kernels.chunks(9).flat_map(|k| (0..9).map(|i| (k[i] - k[8 - i]) / 2.0)).collect()
}

fn build(settings: &Value) -> Graph {
    if let Some(options) = settings.get("options") {
        let options: ModelOptions = serde_json::from_value(options.clone()).unwrap();
        return models::build(settings["model"].as_str().unwrap(), &options).unwrap();
    }
    match settings["model"].as_str().unwrap() {
        "flatten-probe" => {
            let mut g = Graph::new(Shape::new(7, 9, 3));
            let x = g.node("conv", Conv2d::square(4, 3, 1, 0), &[g.images()]).unwrap();
            let x = g.node("relu", Activation::Relu, &[x]).unwrap();
            let x = g.node("pool", MaxPool { window: Window::square(2, 2, 0), ceil: false }, &[x]).unwrap();
            let x = g.node("flatten", Flatten, &[x]).unwrap();
            g.node("out", Linear::new(10), &[x]).unwrap();
            g
        }
        "resnet-fixed" => {
            let options = ModelOptions { published: false, norm_eps: Some(0.0), ..Default::default() };
            models::build("resnet", &options).unwrap()
        }
        name => models::build(name, &ModelOptions::default()).unwrap(),
    }
}

/// PyTorch's NCHW order to NHWC.
pub fn nhwc<E: Real>(values: &[f64], (n, c, h, w): (usize, usize, usize, usize)) -> Array4<E> {
    Array4::from_shape_fn((n, h, w, c), |(b, i, j, k)| E::of(values[((b * c + k) * h + i) * w + j]))
}

pub fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

pub fn wide<E: Real>(values: &[E]) -> Vec<f64> {
    values.iter().map(|v| v.wide()).collect()
}

/// Ten steps of a run, compared with PyTorch's in logits, losses, gradients, final weights and evaluation.
pub fn train_as_pytorch<B: Backend>(run: &str, tolerance: f64) {
    let fixtures = Fixtures::with_run(run);
    let settings = &fixtures.golden["runs"][run];
    let number = |key: &str| settings[key].as_f64().unwrap();
    let key = settings["key"].as_str().unwrap();
    let image = sizes(&settings["image"]);
    let n = fixtures.golden["batch"].as_u64().unwrap() as usize;

    let graph = build(settings);
    assert_eq!(graph.summary().total_params as u64, settings["parameters"].as_u64().unwrap(), "{run}");
    let mut engine = Engine::<B>::new(&graph, n, 0).unwrap();
    let names: Vec<String> = settings["names"].as_object().unwrap().keys().cloned().collect();
    let mut ours: Vec<String> = engine.params().table().iter().map(|info| info.name.clone()).collect();
    ours.sort();
    assert_eq!(ours, names, "{run}: parameter names");
    for name in &names {
        let shape = sizes(&settings["names"][name]);
        let info = engine.params().table().iter().find(|info| info.name == *name).unwrap();
        assert_eq!(info.layout.torch_shape(), shape, "{run} {name}");
        let len = shape.iter().product();
        let full = format!("{key}/{name}");
        let values: Vec<f64> = match name.rsplit('.').next().unwrap() {
            "gamma" => uniform(&full, len, 0.001),
            "weight" if shape.len() == 1 => uniform(&full, len, 0.2).iter().map(|v| 1.0 + v).collect(),
            "weight" | "weight_orig" => uniform(&full, len, (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
            "m" => uniform(&full, len, 0.2).iter().map(|v| 1.0 + v).collect(),
            "radii" => uniform(&full, len, 0.2).iter().map(|v| 0.5 + v).collect(),
            _ => uniform(&full, len, 0.1),
        };
        let values: Vec<B::Elem> = values.iter().map(|&v| B::Elem::of(v)).collect();
        engine.params_mut().set_from_torch(name, &values).unwrap();
    }

    // Unit vectors of a spectral norm.
    let buffers = settings.get("buffers").and_then(Value::as_object);
    for (name, shape) in buffers.into_iter().flatten() {
        let values = uniform(&format!("{key}/{name}"), sizes(shape).iter().product(), 1.0);
        let length = norm(&values);
        let values: Vec<B::Elem> = values.iter().map(|&v| B::Elem::of(v / length)).collect();
        engine.params_mut().set_from_torch(name, &values).unwrap();
    }

    let images = |name: &str| {
        let len = n * image.iter().product::<usize>();
        nhwc::<B::Elem>(&uniform(name, len, 1.5), (n, image[0], image[1], image[2]))
    };
    let smoothing = number("label_smoothing");
    let targets = |name: &str| {
        Array2::from_shape_fn((n, 10), |(i, class)| {
            let hit = if hash(name, i) % 10 == class as u64 { 1.0 - smoothing } else { 0.0 };
            B::Elem::of(hit + smoothing / 10.0)
        })
    };
    let table = ParamTable::of(engine.params(), &[]).unwrap();
    let config = SgdConfig {
        momentum: number("momentum"),
        nesterov: settings["nesterov"].as_bool().unwrap(),
        decay: Decay::Coupled(number("weight_decay")),
    };
    let mut sgd = Sgd::new(config, table).unwrap();
    let idle: Vec<&str> =
        settings["without_gradient"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let mut losses = Vec::new();
    for step in 0..settings["steps"].as_u64().unwrap() {
        let targets = targets(&format!("labels.step{step}"));
        let outcome = engine.train_step(images(&format!("images.step{step}")).view(), targets.view()).unwrap();
        losses.push(outcome.loss);
        if step == 0 {
            let scores: Vec<f64> = engine.train_scores(n).iter().map(|v| v.wide()).collect();
            let theirs = fixtures.get(&format!("{run}/logits"));
            assert_close(&format!("{run} logits"), &scores, &theirs, largest(&theirs), tolerance);
            for name in names.iter().filter(|name| !idle.contains(&name.as_str())) {
                let grad = wide(&engine.params().grad_to_torch(name).unwrap());
                let at = |what: &str| fixtures.get(&format!("{run}/grad/{name}/{what}"));
                let scale = at("norm")[0];
                assert!(scale > 0.0, "{run}: {name} has no gradient");
                let what = format!("{run} gradient of {name}");
                assert_close(&what, &[norm(&grad)], &at("norm"), scale, tolerance);
                let pick = format!("pick.{key}/{name}");
                let picked: Vec<f64> = (0..32).map(|j| grad[(hash(&pick, j) % grad.len() as u64) as usize]).collect();
                assert_close(&what, &picked, &at("entries"), scale, tolerance);
                let full = format!("{key}/{name}");
                // A projection sums numel signed entries: its rounding error grows with the square root of that.
                let spread = scale * (grad.len() as f64).sqrt();
                assert_close(&what, &projections(&full, &grad), &at("projections"), spread, tolerance);
            }
        }
        let rates = Rates::of(number("lr"));
        let (values, grads, _) = engine.params_mut().split_mut();
        sgd.step(values, grads, rates).unwrap();
    }
    let theirs = fixtures.get(&format!("{run}/losses"));
    assert_close(&format!("{run} losses"), &losses, &theirs, largest(&theirs), tolerance);
    // As published, a twist's y-kernel is overwritten with the x-kernel, turned; here it only exists.
    for name in names.iter().filter(|name| !(name.ends_with("conv_y.weight") && idle.contains(&name.as_str()))) {
        let mut value = wide(&engine.params().to_torch(name).unwrap());
        if name.ends_with("conv_x.weight") || name.ends_with("conv_y.weight") {
            value = antisymmetric(&value);
        }
        let at = |what: &str| fixtures.get(&format!("{run}/final/{name}/{what}"));
        let full = format!("{key}/{name}");
        let what = format!("{run}: {name} after ten steps");
        assert_close(&what, &[norm(&value)], &at("norm"), at("norm")[0], tolerance);
        let spread = at("norm")[0] * (value.len() as f64).sqrt();
        assert_close(&what, &projections(&full, &value), &at("projections"), spread, tolerance);
    }
    let targets = targets("labels.step0");
    engine.evaluate(images("images.eval").view(), targets.view()).unwrap();
    let scores: Vec<f64> = engine.eval_scores(n).iter().map(|v| v.wide()).collect();
    let theirs = fixtures.get(&format!("{run}/logits_eval"));
    assert_close(&format!("{run} evaluation"), &scores, &theirs, largest(&theirs), tolerance);
}
