//! What PyTorch's and fastai's optimizers do (tests/fixtures/make_optim.py), from the text of a recipe on.

use handgrad::Params;
use handgrad::backend::Real;
use handgrad::graph::{Graph, Shape};
use handgrad::ops::{Activation, BatchNorm, Conv2d, Flatten, Linear};
use handgrad::optim::{ParamTable, Rates};
use handgrad::recipe::Recipe;
use handgrad::train::lr_find::{LrPoint, LrRule, Suggestions};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::golden::{assert_close, uniform};

const FILE: &[u8] = include_bytes!("../fixtures/optim.safetensors");

/// The net of the script; its parameters come in the script's order.
fn net() -> Graph {
    let mut g = Graph::new(Shape::new(4, 4, 3));
    let x = g.node("conv1", Conv2d::square(2, 2, 2, 0), &[g.images()]).unwrap();
    let x = g.node("norm", BatchNorm::running(), &[x]).unwrap();
    let x = g.node("conv2", Conv2d::square(4, 3, 1, 1), &[x]).unwrap();
    let x = g.node("relu", Activation::Relu, &[x]).unwrap();
    let x = g.node("flatten", Flatten, &[x]).unwrap();
    let x = g.node("wide", Linear::new(5), &[x]).unwrap();
    let x = g.node("tall", Linear::new(7), &[x]).unwrap();
    g.node("out", Linear::new(3), &[x]).unwrap();
    g
}

/// Where a run of the script leads here.
fn trained<E: Real>(run: &Value, steps: u64) -> Params<E> {
    let graph = net();
    let mut params = Params::<E>::zeros(&graph).unwrap();
    let names: Vec<(String, usize)> = params.table().iter().map(|info| (info.name.clone(), info.len)).collect();
    let values = |name: &str, len, scale| uniform(name, len, scale).into_iter().map(E::of).collect::<Vec<E>>();
    for (name, len) in &names {
        params.set_from_torch(name, &values(&format!("optim/{name}"), *len, 0.5)).unwrap();
    }
    let text = run["recipe"].as_str().unwrap();
    let text = format!("model = \"x\"\n[data]\ndataset = \"x\"\n[optimizer]\n{text}\n[[phase]]\nlr = 1\nepochs = 1");
    let recipe = Recipe::parse(&text, "fixture.toml").unwrap();
    let mut optimizer =
        recipe.optimizer.build::<E>(ParamTable::of(&params, &[]).unwrap(), params.states().len()).unwrap();
    let moves = run["moving_momentum"].as_bool().unwrap();
    let mut grads = Params::<E>::zeros(&graph).unwrap();
    for t in 0..steps {
        for (i, (name, len)) in names.iter().enumerate() {
            let scale = if name == "tall.bias" && t < 3 { 0.0 } else { 10f64.powi(i as i32 % 4 - 2) };
            grads.set_from_torch(name, &values(&format!("optim/{name}.grad{t}"), *len, scale)).unwrap();
        }
        let lr = run["lr"].as_f64().unwrap() * (1 + t % 3) as f64;
        let momentum = moves.then_some(0.95 - 0.02 * (t % 4) as f64);
        optimizer.step(params.values_mut(), grads.values(), Rates { momentum, ..Rates::of(lr) }).unwrap();
    }
    params
}

/// A tensor of the file.
fn stored(name: &str) -> Vec<f64> {
    let tensors = SafeTensors::deserialize(FILE).unwrap();
    let data = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data();
    data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn compare<E: Real>(tolerance: f64) {
    let (_, metadata) = SafeTensors::read_metadata(FILE).unwrap();
    let metadata: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["optim"]).unwrap();
    let runs = metadata["runs"].as_object().unwrap();
    assert!(runs.len() > 20);
    for (name, run) in runs {
        let params = trained::<E>(run, metadata["steps"].as_u64().unwrap());
        for info in params.table() {
            let theirs = stored(&format!("{name}/{}", info.name));
            let ours: Vec<f64> = params.to_torch(&info.name).unwrap().into_iter().map(E::wide).collect();
            assert_close(&format!("{name}: {}", info.name), &ours, &theirs, 1.0, tolerance);
        }
    }
}

#[test]
fn optimizers_lead_where_pytorch_and_fastai_do() {
    compare::<f64>(1e-12);
}

/// Rounding stays far below a step, which is 1e-3 and more.
#[test]
fn optimizers_lead_there_in_f32_too() {
    compare::<f32>(1e-5);
}

#[test]
fn the_finder_suggests_what_fastai_and_torch_lr_finder_do() {
    for i in 0..6 {
        let at = |what: &str| stored(&format!("finder {i}/{what}"));
        let points: Vec<LrPoint> =
            at("lrs").into_iter().zip(at("losses")).map(|(lr, loss)| LrPoint { lr, loss }).collect();
        let ours = |rule: LrRule| rule.suggest(&points).unwrap();
        let Suggestions { minimum, steep, valley } = ours(LrRule::Fastai);
        let found = [minimum, steep, valley, ours(LrRule::Torch).steep];
        assert_close(&format!("finder {i}"), &found, &at("suggestions"), 1e-12, 1.0);
        assert_eq!(ours(LrRule::E1), ours(LrRule::Fastai));
    }
}
