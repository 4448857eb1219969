//! Whole models: their sizes, that every parameter learns, that threads do not change a bit.

use handgrad::ErrorKind;
use handgrad::backend::Cpu;
use handgrad::engine::Engine;
use handgrad::graph::{Graph, Source};
use handgrad::models::{self, ModelOptions, Swap};
use handgrad::ops::{Activation, OpSpec, TwistGradient};
use handgrad::optim::{Decay, Optimizer, ParamTable, Rates, Sgd, SgdConfig};
use handgrad::rng::Key;
use ndarray::{Array2, Array4};

/// A model with dropout where it has that, the large families narrow enough for a test.
pub fn build(name: &str) -> Graph {
    let family = name.starts_with('x') || name.starts_with("mxresnet");
    // Deep nets halve their maps often: below this size a 3×3 convolution would see one pixel and zeros.
    let size = if family || name == "bag-of-tricks" { 64 } else { 32 };
    let options = ModelOptions {
        size,
        dropout: if name == "resnet2" || family { 0.2 } else { 0.0 },
        sa: family,
        act: if family { Activation::Mish } else { Activation::Relu },
        // Groups have to divide the channels.
        widen: if family { if name.contains("next") { 0.5 } else { 0.25 } } else { 1.0 },
        ..Default::default()
    };
    models::build(name, &options).unwrap()
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

/// The same of the larger nets as they are published: name, image size, classes, parameters, FLOPs.
const LARGE: [(&str, usize, usize, usize, &str); 7] = [
    ("xresnet18", 128, 10, 11_200_874, "1.341e9"),
    ("xresnet34", 128, 10, 21_309_034, ""),
    ("xresnet50", 128, 10, 23_547_754, "2.826e9"),
    ("xse_resnext18_deep", 128, 10, 15_756_938, "1.499e9"),
    ("xse_resnext50", 128, 10, 25_550_618, ""),
    ("resnet18", 224, 1000, 11_689_512, "3.628e9"),
    ("bag-of-tricks", 128, 10, 469_658, "1.180e8"),
];

#[test]
fn large_sizes_are_the_published_ones() {
    for (name, size, classes, total, flops) in LARGE {
        let summary = models::build(name, &ModelOptions { size, classes, ..Default::default() }).unwrap().summary();
        assert_eq!((summary.total_params, summary.used_params), (total, total), "{name}");
        assert!(flops.is_empty() || format!("{:.3e}", summary.flops as f64) == flops, "{name}: {}", summary.flops);
    }
}

#[test]
fn an_option_that_a_model_lacks_is_refused() {
    let options = ModelOptions { dropout: 0.5, ..Default::default() };
    let error = models::build("convnet", &options).unwrap_err().to_string();
    assert!(error.contains("convnet") && error.contains("dropout"), "{error}");
    let error = models::build("resnet2", &ModelOptions { widen: 2.0, ..options }).unwrap_err().to_string();
    assert!(error.contains("widen") && error.contains("norm_eps"), "{error}");
}

#[test]
fn numbers_that_no_model_has_are_refused() {
    let options = ModelOptions::default();
    for (name, options) in [
        ("xresnet18", ModelOptions { widen: f64::INFINITY, ..options.clone() }),
        ("xresnet18", ModelOptions { layers: Some(vec![usize::MAX]), ..options.clone() }),
        ("xresnet18", ModelOptions { stem: Some([usize::MAX, 1, 1]), ..options.clone() }),
        ("mxresnet-depthwise", ModelOptions { multiplier: usize::MAX, ..options.clone() }),
    ] {
        assert_eq!(models::build(name, &options).unwrap_err().kind(), ErrorKind::Usage, "{options:?}");
    }
}

/// The share of a parameter's elements that can get a gradient: on a map smaller than its kernel, a convolution has cells
/// that only ever lie on padding.
fn reach(graph: &Graph, parameter: &str) -> f64 {
    let named = |p: &usize| graph.params()[*p].name == parameter;
    let node = graph.nodes().iter().find(|node| node.params.iter().any(named));
    let Some((node, Source::Op(OpSpec::Conv2d(conv)))) = node.map(|node| (node, &node.source)) else { return 1.0 };
    if !parameter.ends_with(".weight") {
        return 1.0;
    }
    let (input, window) = (graph.shape(node.inputs[0]), &conv.window);
    let (kh, kw) = window.kernel;
    let rows = (0..kh).filter(|&k| (0..node.shape.h).any(|o| window.row(o, k, input).is_some())).count();
    let columns = (0..kw).filter(|&k| (0..node.shape.w).any(|o| window.column(o, k, input).is_some())).count();
    (rows * columns) as f64 / (kh * kw) as f64
}

/// Parameters that a model has but never uses: published ResNet's forward pass runs its third layers in place of these.
fn is_idle(model: &str, parameter: &str) -> bool {
    model == "resnet" && parameter.starts_with("layers2.")
}

/// As published, a twist layer's y-kernels are overwritten and get no gradient.
#[test]
fn every_parameter_of_twisted_nets_learns() {
    for (swap, gradient) in [(Swap::Published, TwistGradient::Published), (Swap::Spatial, TwistGradient::Tied)] {
        let (size, act) = (64, Activation::Mish);
        let options =
            ModelOptions { size, act, sa: true, widen: 0.5, swap, twist_gradient: gradient, ..Default::default() };
        let graph = models::build("xse_resnext18", &options).unwrap();
        let mut engine = randomised(&graph, 12);
        let (images, targets) = batch(12, size, 0);
        engine.train_step(images.view(), targets.view()).unwrap();
        let params = engine.params();
        let mut overwritten = 0;
        for info in params.table() {
            let gradients = params.grads()[info.range()].iter().filter(|&&g| g != 0.0).count();
            if info.name.ends_with("conv_y.weight") {
                assert_eq!(gradients, 0, "{}", info.name);
                overwritten += 1;
            } else {
                // On the single pixel of squeeze-excitation, projected kernels meet it with their middle, which is 0: what
                // would be twisted is 0, wherever the mask lies.
                let masks = ["radii", "center_x", "center_y"].iter().any(|name| info.name.ends_with(name));
                let single = info.name.contains(".layers.");
                assert_eq!(gradients > 0, !(single && masks), "{}: {gradients} of {}", info.name, info.len);
            }
        }
        assert!(overwritten > 0);
    }
}

/// Images and one-hot targets of a step, random.
pub fn batch(n: usize, size: usize, step: u64) -> (Array4<f32>, Array2<f32>) {
    let key = Key::new(step);
    let mut pixels = key.with_name("pixels").stream();
    let images = Array4::from_shape_simple_fn((n, size, size, 3), || pixels.normal() as f32);
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
            "radii" => (0.5, 0.1),
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
        let graph = build(&name);
        let mut engine = randomised(&graph, n);
        let (images, targets) = batch(n, graph.shape(graph.images()).h, 0);
        engine.train_step(images.view(), targets.view()).unwrap();
        let before = engine.params().values().to_vec();
        let mut sgd = optimizer(&engine);
        let (values, grads, table) = engine.params_mut().split_mut();
        sgd.step(values, grads, Rates::of(0.1)).unwrap();
        for info in table {
            let elements = || info.range();
            let idle = is_idle(&name, &info.name);
            assert_eq!(info.used, !idle, "{name}: {}", info.name);
            let moved = elements().filter(|&i| values[i].to_bits() != before[i].to_bits()).count();
            let gradients = elements().filter(|&i| grads[i] != 0.0).count();
            if idle {
                assert_eq!((moved, gradients), (0, 0), "{name}: {} is never used", info.name);
            } else {
                // A few units are dead on so small a batch.
                let enough = |count: usize| count as f64 >= 0.9 * reach(&graph, &info.name) * info.len as f64;
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
    let graph = build(name);
    let mut engine = Engine::<Cpu>::new(&graph, n, 5).unwrap();
    let mut sgd = optimizer(&engine);
    let mut losses = Vec::new();
    for step in 0..3 {
        let (images, targets) = batch(n, graph.shape(graph.images()).h, step);
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
    for name in ["convnet2", "resnet2", "quickstart", "xse_resnext18", "resnet18"] {
        let [one, two, five] = pools.each_ref().map(|pool| pool.install(|| three_steps(name)));
        assert_eq!(one.0, two.0, "{name}: losses with 1 and 2 threads");
        assert_eq!(one.0, five.0, "{name}: losses with 1 and 5 threads");
        assert!(one.1 == two.1 && one.1 == five.1, "{name}: parameters or state depend on the number of threads");
        assert!(one.0[0] != one.0[2], "{name} learns");
    }
}
