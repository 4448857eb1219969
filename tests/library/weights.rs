//! Weights that others wrote, and what is done to weights before training; beside PyTorch (tests/fixtures/make_weights.py).

use handgrad::backend::{Cpu, Host, Real, Reference};
use handgrad::engine::Engine;
use handgrad::graph::Graph;
use handgrad::models::{self, ModelOptions};
use handgrad::train::lsuv::{Scaled, lsuv};
use handgrad::{ErrorKind, ParamInfo};
use ndarray::{Array2, Array4};
use serde_json::Value;

use crate::golden::{Fixtures, assert_close, largest, nhwc, norm, sizes, uniform, wide};

const FILE: &[u8] = include_bytes!("../fixtures/weights.safetensors");
const IMAGES: usize = 4;

fn build(settings: &Value) -> Graph {
    let options: ModelOptions = serde_json::from_value(settings["options"].clone()).unwrap();
    models::build(settings["model"].as_str().unwrap(), &options).unwrap()
}

/// The script's `fill`: values by name, in the order of PyTorch's files.
fn filled(prefix: &str, name: &str, shape: &[usize]) -> Vec<f64> {
    let (key, len) = (format!("{prefix}/{name}"), shape.iter().product());
    if shape.len() > 1 {
        return uniform(&key, len, (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt());
    }
    if name.ends_with("weight") || name.ends_with("running_var") {
        return uniform(&key, len, 0.2).iter().map(|v| 1.0 + v).collect();
    }
    uniform(&key, len, 0.1)
}

fn images<E: Real>(graph: &Graph) -> Array4<E> {
    let size = graph.shape(graph.images()).h;
    nhwc(&uniform("images", IMAGES * 3 * size * size, 1.5), (IMAGES, 3, size, size))
}

/// The scores `[n, outputs]` of the images, in evaluation.
fn scores<B: Host>(engine: &mut Engine<B>, graph: &Graph) -> Array2<f64> {
    let outputs = graph.shape(graph.output()).c;
    engine.evaluate(images(graph).view(), Array2::zeros((IMAGES, outputs)).view()).unwrap();
    engine.eval_scores(IMAGES).mapv(|v| v.wide())
}

fn lsuv_as_published<B: Host>(name: &str, tolerance: f64) {
    let fixtures = Fixtures::read(FILE);
    let settings = &fixtures.golden["lsuv"][name];
    let graph = build(settings);
    // The images come in two parts.
    let mut engine = Engine::<B>::new(&graph, 3, 0).unwrap();
    for (tensor, shape) in settings["tensors"].as_object().unwrap() {
        let values: Vec<B::Elem> =
            filled(&format!("lsuv.{name}"), tensor, &sizes(shape)).iter().map(|&v| B::Elem::of(v)).collect();
        engine.params_mut().set_from_torch(tensor, &values).unwrap();
    }
    let scaled = lsuv(&mut engine, images(&graph).view()).unwrap();
    let layers = engine.params().table().iter().filter(|info| info.layout.torch_shape().len() > 1).count();
    assert_eq!(scaled.len(), layers, "{name}");
    for ParamInfo { name: param, .. } in engine.params().table() {
        let ours = wide(&engine.params().to_torch(param).unwrap());
        let theirs = fixtures.get(&format!("lsuv/{name}/{param}"));
        assert_close(&format!("{name}: {param}"), &[norm(&ours), ours[0]], &theirs, theirs[0], tolerance);
    }
    let mut whole = Engine::<B>::new(&graph, IMAGES, 0).unwrap();
    let (params, states) = (engine.params().values(), engine.params().states());
    whole.params_mut().values_mut().copy_from_slice(params);
    whole.params_mut().states_mut().copy_from_slice(states);
    let theirs = fixtures.get(&format!("lsuv/{name}/logits"));
    let ours: Vec<f64> = scores(&mut whole, &graph).into_iter().collect();
    assert_close(&format!("{name}: logits"), &ours, &theirs, largest(&theirs), tolerance);
}

#[test]
fn lsuv_is_the_published_one() {
    for name in ["bag-of-tricks", "convnet2"] {
        lsuv_as_published::<Reference>(name, 1e-9);
        lsuv_as_published::<Cpu>(name, 1e-4);
    }
}

/// A weight that two layers share is scaled once.
#[test]
fn lsuv_scales_a_shared_weight_once() {
    let graph = models::build("resnet", &ModelOptions { norm_eps: Some(1e-3), ..Default::default() }).unwrap();
    let mut engine = Engine::<Cpu>::new(&graph, IMAGES, 0).unwrap();
    let scaled = lsuv(&mut engine, images(&graph).view()).unwrap();
    let names: Vec<&str> = scaled.iter().map(|layer| layer.layer.as_str()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("layers2.")), "{names:?}");
}

/// What is done to a parameter of some name.
type Change = dyn Fn(&str, &mut [f32]);

#[test]
fn lsuv_names_the_layer_that_it_cannot_scale() {
    let graph = models::build("convnet2", &ModelOptions::default()).unwrap();
    let attempt = |change: &Change| {
        let mut engine = Engine::<Cpu>::new(&graph, IMAGES, 0).unwrap();
        let (values, _, table) = engine.params_mut().split_mut();
        table.iter().for_each(|info| change(&info.name, &mut values[info.range()]));
        lsuv(&mut engine, images(&graph).view())
    };
    let scaled: Vec<Scaled> = attempt(&|_, _| {}).unwrap();
    assert_eq!(scaled.len(), 4);
    let flat = |name: &str, values: &mut [f32]| {
        if name == "layers.1.conv.weight" || name == "layers.1.conv.bias" {
            values.fill(0.0);
        }
    };
    let spread = |name: &str, values: &mut [f32]| {
        if name == "layers.2.conv.bias" {
            values.iter_mut().enumerate().for_each(|(i, value)| *value = i as f32);
        }
    };
    let broken = |name: &str, values: &mut [f32]| {
        if name == "layers.0.conv.weight" {
            values[0] = f32::NAN;
        }
    };
    let cases: [(&Change, _); 3] = [
        (&flat, ["layers.1.conv", "deviation of 0"]),
        (&spread, ["layers.2.conv", "after 100 steps"]),
        (&broken, ["layers.0.conv", "not finite"]),
    ];
    for (change, texts) in cases {
        let error = attempt(change).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NonFinite);
        assert!(texts.iter().all(|text| error.to_string().contains(text)), "{error}");
    }
    let mut engine = Engine::<Cpu>::new(&graph, IMAGES, 0).unwrap();
    let loss = graph.with_loss().unwrap().output();
    assert_eq!(engine.look(images(&graph).view(), loss, |_| {}).unwrap_err().kind(), ErrorKind::Usage);
}
