//! Whole models: their sizes, that every parameter learns, that threads do not change a bit.

use handgrad::backend::Cpu;
use handgrad::engine::Engine;
use handgrad::graph::Graph;
use handgrad::models::{self, ModelOptions};
use handgrad::optim::{Decay, Optimizer, ParamTable, Rates, Sgd, SgdConfig};
use handgrad::rng::Key;
use ndarray::{Array2, Array4};

fn build(name: &str) -> Graph {
    models::build(name, &ModelOptions { dropout: 0.2, ..Default::default() }).unwrap()
}

/// Published sizes: name, parameters, those that get gradients, FLOPs of one image's forward pass to four digits.
const SIZES: [(&str, usize, usize, &str); 7] = [
    ("simplenet", 123_330, 123_330, "2.466e5"),
    ("convnet", 37_490, 37_490, "1.469e6"),
    ("convnet2", 37_490, 37_490, "2.121e6"),
    ("convbnnet", 155_970, 155_970, "5.226e6"),
    ("convbnnet2", 462_570, 462_570, "1.260e7"),
    ("resnet", 769_170, 462_570, "1.997e7"),
    ("resnet2", 1_836_826, 1_836_826, "9.242e7"),
];

#[test]
fn sizes_are_the_published_ones() {
    for (name, total, used, flops) in SIZES {
        let summary = build(name).summary();
        assert_eq!((summary.total_params, summary.used_params), (total, used), "{name}");
        let products: u64 = summary.layers.iter().map(|layer| layer.flops).sum();
        assert_eq!((format!("{products:.3e}"), products), (flops.to_owned(), summary.flops), "{name}");
    }
}

/// Parameters that a model has but never uses: published ResNet's forward pass runs its third layers in place of these.
fn is_idle(model: &str, parameter: &str) -> bool {
    model == "resnet" && parameter.starts_with("layers2.")
}

/// Images and one-hot targets of a step, random.
fn batch(n: usize, step: u64) -> (Array4<f32>, Array2<f32>) {
    let key = Key::new(step);
    let mut pixels = key.with_name("pixels").stream();
    let images = Array4::from_shape_simple_fn((n, 32, 32, 3), || pixels.normal() as f32);
    let targets = Array2::from_shape_fn((n, 10), |(i, class)| {
        f32::from(u8::from(key.with_name("labels").at(i as u64) % 10 == class as u64))
    });
    (images, targets)
}

/// An engine with every parameter drawn at random, those too that start as zeros or ones.
fn randomised(graph: &Graph, n: usize) -> Engine<Cpu> {
    let mut engine = Engine::<Cpu>::new(graph, n, 1).unwrap();
    let (values, _, table) = engine.params_mut().split_mut();
    for info in table {
        let shape = info.layout.torch_shape();
        // Products get variance 2/fan-in, scales of norms lie around one, what is added lies around zero.
        let (centre, spread) = match info.name.rsplit('.').next().unwrap() {
            "weight" if shape.len() > 1 => (0.0, (2.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
            "weight" | "m" => (1.0, 0.3),
            _ => (0.0, 0.3),
        };
        let mut stream = Key::new(3).with_name(&info.name).stream();
        values[info.range()].iter_mut().for_each(|value| *value = (centre + spread * stream.normal()) as f32);
    }
    engine
}

fn optimizer(engine: &Engine<Cpu>) -> Sgd<f32> {
    let table = ParamTable::of(engine.params(), &[]).unwrap();
    Sgd::new(SgdConfig { momentum: 0.9, nesterov: false, decay: Decay::Coupled(1e-3) }, table).unwrap()
}

#[test]
fn every_parameter_learns() {
    let n = 12;
    for (name, _) in models::names() {
        let mut engine = randomised(&build(name), n);
        let (images, targets) = batch(n, 0);
        engine.train_step(images.view(), targets.view()).unwrap();
        let before = engine.params().values().to_vec();
        let mut sgd = optimizer(&engine);
        let (values, grads, table) = engine.params_mut().split_mut();
        sgd.step(values, grads, Rates::of(0.1)).unwrap();
        for info in table {
            let elements = || info.range();
            let idle = is_idle(name, &info.name);
            assert_eq!(info.used, !idle, "{name}: {}", info.name);
            let moved = elements().filter(|&i| values[i].to_bits() != before[i].to_bits()).count();
            let gradients = elements().filter(|&i| grads[i] != 0.0).count();
            if idle {
                assert_eq!((moved, gradients), (0, 0), "{name}: {} is never used", info.name);
            } else {
                // A few units are dead on so small a batch.
                let enough = |count: usize| count * 10 >= info.len * 9;
                let what = format!("{name}: {}, of {} elements", info.name, info.len);
                assert!(enough(gradients), "{what} {gradients} have a gradient");
                assert!(enough(moved), "{what} {moved} moved");
            }
        }
    }
}

/// Bits of losses, parameters and state after three steps.
fn three_steps(name: &str) -> (Vec<u64>, Vec<u32>) {
    let n = 21;
    let mut engine = Engine::<Cpu>::new(&build(name), n, 5).unwrap();
    let mut sgd = optimizer(&engine);
    let mut losses = Vec::new();
    for step in 0..3 {
        let (images, targets) = batch(n, step);
        losses.push(engine.train_step(images.view(), targets.view()).unwrap().loss.to_bits());
        let (values, grads, _) = engine.params_mut().split_mut();
        sgd.step(values, grads, Rates::of(0.05)).unwrap();
    }
    let params = engine.params();
    (losses, params.values().iter().chain(params.states()).map(|v| v.to_bits()).collect())
}

#[test]
fn threads_do_not_change_a_bit() {
    let pools = [1, 2, 5].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    for name in ["convnet2", "resnet2", "quickstart"] {
        let [one, two, five] = pools.each_ref().map(|pool| pool.install(|| three_steps(name)));
        assert_eq!(one.0, two.0, "{name}: losses with 1 and 2 threads");
        assert_eq!(one.0, five.0, "{name}: losses with 1 and 5 threads");
        assert!(one.1 == two.1 && one.1 == five.1, "{name}: parameters or state depend on the number of threads");
        assert!(one.0[0] != one.0[2], "{name} learns");
    }
}
