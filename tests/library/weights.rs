//! Weights that others wrote, and what is done to weights before training; beside PyTorch (tests/fixtures/make_weights.py).

use handgrad::backend::{Cpu, Host, Real, Reference};
use handgrad::engine::Engine;
use handgrad::graph::{Graph, Param};
use handgrad::io::model_file::load_weights;
use handgrad::models::{self, ModelOptions};
use handgrad::ops::Layout;
use handgrad::optim::{Decay, GroupRule, Optimizer, ParamTable, Rates, Sgd, SgdConfig, clip_grad_norm};
use handgrad::rng::Key;
use handgrad::train::lsuv::{Scaled, lsuv};
use handgrad::{ErrorKind, ParamInfo, Params};
use ndarray::{Array2, Array4};
use serde_json::Value;

use crate::golden::{Fixtures, assert_close, largest, nhwc, norm, sizes, uniform, wide};
use crate::models as nets;

const FILE: &[u8] = include_bytes!("../fixtures/weights.safetensors");
const SMALL: &[u8] = include_bytes!("../fixtures/small.safetensors");
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
    let theirs = fixtures.get(&format!("lsuv/{name}/logits"));
    let ours = scores_with::<B>(&graph, engine.params());
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

/// What is frozen stays as it is, the rest is scaled around it.
#[test]
fn lsuv_leaves_frozen_parameters() {
    let mut graph = nets::build("convnet2");
    graph.freeze(|name| name.starts_with("layers.0.") || name == "layers.1.conv.bias");
    let mut engine = Engine::<Cpu>::new(&graph, IMAGES, 0).unwrap();
    let before = engine.params().values().to_vec();
    lsuv(&mut engine, images(&graph).view()).unwrap();
    for info in engine.params().table() {
        let same = engine.params().values()[info.range()] == before[info.range()];
        assert_eq!(same, info.frozen, "{}", info.name);
    }
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

/// A tensor of a state dict: its name, shape and values.
type Tensor = (String, Vec<usize>, Vec<f64>);

/// A plain safetensors file of F32 tensors, and counters of I64.
fn state_dict(tensors: &[Tensor], counters: &[String]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let start = data.len();
        data.extend(bytes);
        let place = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.to_owned(), place);
    };
    for (name, shape, values) in tensors {
        add(name, "F32", shape, values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect());
    }
    counters.iter().for_each(|name| add(name, "I64", &[], 7i64.to_le_bytes().to_vec()));
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// The state dict that the script fills for one of its nets.
fn described(name: &str, settings: &Value) -> (Vec<Tensor>, Vec<String>) {
    let tensors = settings["tensors"].as_object().unwrap().iter();
    let tensors = tensors.map(|(tensor, shape)| (tensor.clone(), sizes(shape), filled(name, tensor, &sizes(shape))));
    let counters = settings["counters"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    (tensors.collect(), counters.collect())
}

/// Loads a state dict into a new model, whose parameters this returns.
fn loaded<E: Real>(graph: &Graph, bytes: &[u8], new_head: bool) -> handgrad::Result<Params<E>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let mut params = Params::new(graph, Key::new(5)).unwrap();
    load_weights(&path)?.fill(graph, &mut params, new_head)?;
    Ok(params)
}

/// The first ten scores of each image with these parameters.
fn scores_with<B: Host>(graph: &Graph, params: &Params<B::Elem>) -> Vec<f64> {
    let mut engine = Engine::<B>::new(graph, IMAGES, 0).unwrap();
    engine.params_mut().values_mut().copy_from_slice(params.values());
    engine.params_mut().states_mut().copy_from_slice(params.states());
    scores(&mut engine, graph).outer_iter().flat_map(|row| row.iter().take(10).copied().collect::<Vec<_>>()).collect()
}

/// Every net scores as PyTorch's with the same weights does; fastai's names are those of the small one, below.
#[test]
fn state_dicts_of_torchvision_and_timm_load() {
    let fixtures = Fixtures::read(FILE);
    for (name, settings) in fixtures.golden["state_dicts"].as_object().unwrap() {
        let graph = build(settings);
        let (tensors, counters) = described(name, settings);
        assert!(!counters.is_empty());
        let params = loaded::<f32>(&graph, &state_dict(&tensors, &counters), false).unwrap();
        let theirs = fixtures.get(&format!("state/{name}/logits"));
        assert_close(name, &scores_with::<Cpu>(&graph, &params), &theirs, largest(&theirs), 1e-4);
    }
}

/// Names as DataParallel has them.
#[test]
fn a_wrapped_state_dict_loads() {
    let graph = models::build("convnet2", &ModelOptions::default()).unwrap();
    let tensor = |param: &Param| {
        let shape = param.spec.layout.torch_shape();
        (format!("module.{}", param.name), shape.clone(), filled("wrapped", &param.name, &shape))
    };
    let tensors: Vec<Tensor> = graph.params().iter().map(tensor).collect();
    let params = loaded::<f32>(&graph, &state_dict(&tensors, &[]), false).unwrap();
    for (name, _, values) in tensors {
        let ours = params.to_torch(name.trim_start_matches("module.")).unwrap();
        assert!(ours.iter().zip(&values).all(|(&ours, &value)| ours == value as f32), "{name}");
    }
}

/// Half precision and brain floats are widened, exactly.
#[test]
fn a_file_that_safetensors_wrote_in_several_types_loads() {
    let fixtures = Fixtures::read(FILE);
    let graph = build(&fixtures.golden["small"]);
    let theirs = fixtures.get("small/logits");
    let params = loaded::<f64>(&graph, SMALL, false).unwrap();
    assert_close("small", &scores_with::<Reference>(&graph, &params), &theirs, largest(&theirs), 1e-12);
    let params = loaded::<f32>(&graph, SMALL, false).unwrap();
    assert_close("small", &scores_with::<Cpu>(&graph, &params), &theirs, largest(&theirs), 1e-4);
}

#[test]
fn a_new_head_stays_as_it_is() {
    let fixtures = Fixtures::read(FILE);
    let settings = &fixtures.golden["small"];
    let mut options: ModelOptions = serde_json::from_value(settings["options"].clone()).unwrap();
    options.classes = 7;
    let graph = models::build("xresnet18", &options).unwrap();
    let error = loaded::<f32>(&graph, SMALL, false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Shape);
    let text = error.to_string();
    for part in ["2 tensors are of another shape", "9.weight [3, 8] instead of [7, 8]", "--new-head", "model.classes"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let (fresh, params) =
        (Params::<f32>::new(&graph, Key::new(5)).unwrap(), loaded::<f32>(&graph, SMALL, true).unwrap());
    assert!(fresh.states() != params.states());
    for (info, before) in params.table().iter().zip(fresh.table()) {
        let same = params.values()[info.range()] == fresh.values()[before.range()];
        assert_eq!(same, info.name.starts_with("9."), "{}", info.name);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let fixtures = Fixtures::read(FILE);
    let graph = build(&fixtures.golden["small"]);
    let name = "torchvision.resnet18";
    let (tensors, counters) = described(name, &fixtures.golden["state_dicts"][name]);
    let fails = |tensors: &[_], new_head, wanted: &[&str]| {
        let error = loaded::<f32>(&graph, &state_dict(tensors, &counters), new_head).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Shape);
        let text = error.to_string();
        assert!(text.len() < 1500 && wanted.iter().all(|part| text.contains(part)), "{text}");
    };
    fails(&tensors, false, &["missing (", "unexpected (", ", …)", "docs/models.md"]);
    let short = ("0.0.weight".to_owned(), vec![1], vec![0.5]);
    fails(&[short], true, &["44 tensors are missing", "0.0.weight [1] instead of [2, 3, 3, 3]", "docs/models.md"]);
    fails(&[], true, &["45 tensors are missing (0.0.weight, 0.1.weight"]);
    // A linear layer's name is no reason to load what is no tensor of numbers.
    let integers = state_dict(&[], &["0.0.weight".into()]);
    let text = loaded::<f32>(&graph, &integers, false).err().unwrap().to_string();
    assert!(text.contains("0.0.weight of integers"), "{text}");
    let mut cut = SMALL.to_vec();
    cut.pop();
    assert_eq!(loaded::<f32>(&graph, &cut, false).err().unwrap().kind(), ErrorKind::Format);
    assert_eq!(loaded::<f32>(&graph, b"", false).err().unwrap().kind(), ErrorKind::Format);
    let headless = models::build("linear", &ModelOptions { size: 2, ..Default::default() }).unwrap();
    assert_eq!(headless.head_params().collect::<Vec<_>>(), ["out.weight", "out.bias"]);
}

/// Bits of losses, parameters and state after three steps at a rate of 0 for what is frozen, with or without its gradients;
/// the plan; the gradients of the last step.
fn frozen_steps(name: &str, patterns: &[&str], skip: bool) -> (Vec<u64>, Vec<u32>, String, Params<f32>) {
    let n = 7;
    let rule = |pattern: &&str| GroupRule { pattern: (*pattern).into(), lr_scale: 0.0, weight_decay: None };
    let rules: Vec<GroupRule> = patterns.iter().map(rule).collect();
    let mut graph = nets::build(name);
    if skip {
        graph.freeze(|name| rules.iter().any(|rule| rule.matches(name)));
    }
    let mut engine = Engine::<Cpu>::new(&graph, n, 5).unwrap();
    let table = ParamTable::of(engine.params(), &rules).unwrap();
    let config = SgdConfig { momentum: 0.9, nesterov: false, decay: Decay::Coupled(1e-2) };
    let mut sgd = Sgd::<f32>::new(config, table).unwrap();
    let mut losses = Vec::new();
    for step in 0..3 {
        let (images, targets) = nets::batch(n, graph.shape(graph.images()).h, step);
        losses.push(engine.train_step(images.view(), targets.view()).unwrap().loss.to_bits());
        let (values, grads, _) = engine.params_mut().split_mut();
        clip_grad_norm(grads, sgd.table(), 0.5).unwrap();
        sgd.step(values, grads, Rates::of(0.05)).unwrap();
    }
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let all = [bits(engine.params().values()), bits(engine.params().states())].concat();
    let plan = engine.plan().to_string();
    (losses, all, plan, std::mem::replace(engine.params_mut(), Params::new(&graph, Key::new(0)).unwrap()))
}

/// Backward steps of a printed plan.
fn backward_steps(plan: &str) -> usize {
    plan.lines().filter(|line| line.contains(" ← ")).count()
}

/// What learns, learns to the bit the same; what is frozen stays, and takes no work.
#[test]
fn frozen_parameters_take_no_work_and_change_nothing_else() {
    for (name, patterns, upstream) in [
        ("resnet18", &["conv1.*", "bn1.*", "layer1.*", "layer2.*"][..], true),
        ("resnet18", &["layer3.*", "fc.bias"][..], false),
        ("xse_resnext18", &["0.*", "1.*", "2.*", "4.*", "5.*", "6.*", "7.*"][..], true),
        ("resnet2", &["layers*", "out.bias"][..], false),
    ] {
        let (with, without) = (frozen_steps(name, patterns, false), frozen_steps(name, patterns, true));
        assert!(with.0 == without.0 && with.1 == without.1, "{name} {patterns:?}");
        let (all, left) = (backward_steps(&with.2), backward_steps(&without.2));
        assert_eq!(left < all, upstream, "{name} {patterns:?}: {left} of {all} steps");
        let (params, fresh) = (without.3, Engine::<Cpu>::new(&nets::build(name), 7, 5).unwrap());
        for info in params.table() {
            let fixed = params.values()[info.range()] == fresh.params().values()[info.range()];
            let idle = params.grads()[info.range()].iter().all(|&g| g == 0.0);
            let frozen = patterns
                .iter()
                .any(|p| GroupRule { pattern: (*p).into(), lr_scale: 0.0, weight_decay: None }.matches(&info.name));
            assert_eq!((fixed, info.frozen), (frozen, frozen), "{name}: {}", info.name);
            // Normalisations get theirs by the way.
            let heavy = matches!(info.layout, Layout::Conv { .. } | Layout::Linear { .. });
            assert!(!heavy || idle == frozen, "{name}: gradient of {}", info.name);
        }
        // Statistics of frozen batch-norms move on.
        assert!(params.states() != fresh.params().states());
    }
    let mut graph = nets::build("convnet2");
    graph.freeze(|_| true);
    let mut engine = Engine::<Cpu>::new(&graph, 3, 5).unwrap();
    assert_eq!(backward_steps(&engine.plan().to_string()), 0);
    let (images, targets) = nets::batch(3, 32, 0);
    assert!(engine.train_step(images.view(), targets.view()).unwrap().loss.is_finite());
}
