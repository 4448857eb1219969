//! Products on tensor cores: that a model trains on them, and how far from f32.

use std::collections::BTreeSet;

use handgrad::backend::{Backend, Cuda, CudaTf32};
use handgrad::engine::Engine;
use handgrad::graph::{Graph, Shape};
use handgrad::ops::{Activation, AdaptivePool, Conv2d, Linear, Reduce};
use handgrad::optim::{Decay, Optimizer, ParamTable, Rates, Sgd, SgdConfig};
use handgrad::rng::Key;
use ndarray::{Array2, Array4};

use super::double::on_double_with;

const REPORT: &str = "DRIVER_DOUBLE_REPORT";
const BATCH: usize = 8;
const STEPS: usize = 10;
/// By how much tf32 may be off a number, relative to it: half of its last bit.
const ROUNDING: f64 = 1.0 / 2048.0;
/// How many of these a result may be off. Each layer, on its way forward and back, rounds two operands of every product: by less
/// than half a rounding on average and to either side, so that a layer adds about one to what reaches it, and errors of several
/// layers add up as their squares do. The net is smooth and without batch-norms: nothing magnifies them.
const MOST: f64 = 4.0;

/// Losses of ten steps, and each parameter's first gradient.
struct Trained {
    losses: Vec<f64>,
    gradients: Vec<(String, Vec<f64>)>,
}

/// Convolutions from 3 channels over 20 and 40 to 80, the later ones strided, and two linear layers.
fn net() -> handgrad::Result<Graph> {
    let mut g = Graph::new(Shape::new(16, 16, 3));
    let mut x = g.images();
    for (i, (channels, stride)) in [(20, 1), (40, 2), (80, 2)].into_iter().enumerate() {
        x = g.node(&format!("layers.{i}"), Conv2d::square(channels, 3, stride, 1), &[x])?;
        x = g.node(&format!("layers.{i}.act"), Activation::Mish, &[x])?;
    }
    x = g.node("pool", AdaptivePool::global(Reduce::Mean), &[x])?;
    x = g.node("hidden", Linear::new(40), &[x])?;
    g.node("out", Linear::new(10), &[x])?;
    Ok(g)
}

fn train<B: Backend<Elem = f32>>() -> Trained {
    let mut engine = Engine::<B>::new(&net().unwrap(), BATCH, 1).unwrap();
    let config = SgdConfig { momentum: 0.9, nesterov: false, decay: Decay::Coupled(1e-3) };
    let mut sgd = Sgd::new(config, ParamTable::of(engine.params(), &[]).unwrap()).unwrap();
    let (mut stream, mut losses, mut gradients) = (Key::new(3).stream(), Vec::new(), Vec::new());
    let images = Array4::from_shape_simple_fn((BATCH, 16, 16, 3), || stream.normal() as f32);
    let targets = Array2::from_shape_fn((BATCH, 10), |(i, j)| f32::from(i % 10 == j));
    for step in 0..STEPS {
        losses.push(engine.train_step(images.view(), targets.view()).unwrap().loss);
        if step == 0 {
            let gradient =
                |name: &str| engine.params().grad_to_torch(name).unwrap().into_iter().map(f64::from).collect();
            let names = engine.params().table().iter().map(|info| info.name.clone());
            gradients = names.map(|name| (name.clone(), gradient(&name))).collect();
        }
        let (values, grads, _) = engine.params_mut().split_mut();
        sgd.step(values, grads, Rates::of(0.02)).unwrap();
    }
    Trained { losses, gradients }
}

/// The kernels of convolutions that were launched after the first `read` bytes of the report.
fn launched(read: &mut usize) -> BTreeSet<String> {
    let text = std::fs::read_to_string(std::env::var_os(REPORT).unwrap()).unwrap();
    let of =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["kernel"].as_str().unwrap().to_owned();
    let kernels = text[*read..].lines().map(of).filter(|kernel| kernel.starts_with("conv_")).collect();
    *read = text.len();
    kernels
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn a_net_trains_on_tensor_cores_as_in_f32_but_for_the_rounding_of_operands() {
    const TEST: &str = "tensor_cores::a_net_trains_on_tensor_cores_as_in_f32_but_for_the_rounding_of_operands";
    let folder = tempfile::tempdir().unwrap();
    on_double_with(TEST, &[(REPORT, folder.path().join("report.jsonl").as_os_str())], || {
        let mut read = 0;
        let exact = train::<Cuda>();
        let kernels = launched(&mut read);
        assert!(!kernels.iter().any(|kernel| kernel.contains("tf32")), "{kernels:?}");
        let rounded = train::<CudaTf32>();
        let kernels = launched(&mut read);
        for pass in ["conv_tf32_forward_", "conv_tf32_dx_", "conv_tf32_dw_", "conv_forward_any_"] {
            assert!(kernels.iter().any(|kernel| kernel.starts_with(pass)), "no {pass}: {kernels:?}");
        }
        let first = rounded.gradients.iter().zip(&exact.gradients).map(|((name, ours), (_, theirs))| {
            let apart = norm(ours.iter().zip(theirs).map(|(a, b)| a - b));
            (name.clone(), apart / norm(theirs.iter().copied()))
        });
        let losses = rounded.losses.iter().zip(&exact.losses).enumerate();
        let losses = losses.map(|(step, (ours, theirs))| (format!("loss {step}"), (ours - theirs).abs() / theirs));
        for (what, apart) in first.chain(losses) {
            let roundings = apart / ROUNDING;
            println!("{what}: {roundings:.2} roundings apart");
            // Rounding does happen.
            assert!(0.0 < roundings && roundings <= MOST, "{what}: {roundings} roundings apart");
        }
        assert!(rounded.losses[STEPS - 1] < 0.99 * rounded.losses[0], "nothing was learnt: {:?}", rounded.losses);
    });
}
