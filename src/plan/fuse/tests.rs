//! Every model of the zoo says and learns the same fused and unfused.

use std::ops::ControlFlow;

use ndarray::{Array2, Array4};

use crate::backend::{Cpu, Host, Real, Reference};
use crate::graph::{Graph, Shape};
use crate::models::{self, ModelOptions, TwistVersion};
use crate::ops::{Activation, AdaptivePool, Add, BatchNorm, Conv2d, Dropout, Flatten, Linear, Reduce};
use crate::params::Params;
use crate::plan::{Arena, Input, Mode, Plan};
use crate::rng::Key;

/// Parameters whose every scale, shift and running statistic matters.
fn params<E: Real>(graph: &Graph) -> Params<E> {
    let mut params = Params::new(graph, Key::new(1)).unwrap();
    let mut noise = Key::new(2).stream();
    let (table, states) = (params.table().to_vec(), params.state_table().to_vec());
    for info in table {
        let flat = info.layout.torch_shape().iter().filter(|&&d| d > 1).count() < 2;
        let values = &mut params.values_mut()[info.range()];
        match info.name.rsplit('.').next() {
            Some("weight" | "m") if flat => values.iter_mut().for_each(|v| *v = E::of(noise.uniform(0.5, 1.0))),
            Some("bias" | "a") => values.iter_mut().for_each(|v| *v = E::of(noise.uniform(-0.5, 0.5))),
            _ => {}
        }
    }
    for info in states {
        let variance = info.name.ends_with("_var");
        let (low, high) = if variance { (0.5, 2.0) } else { (-0.5, 0.5) };
        if variance || info.name.ends_with("_mean") {
            params.states_mut()[info.range()].iter_mut().for_each(|v| *v = E::of(noise.uniform(low, high)));
        }
    }
    params
}

fn images<E: Real>(n: usize, shape: Shape) -> Array4<E> {
    let mut noise = Key::new(3).stream();
    Array4::from_shape_simple_fn((n, shape.h, shape.w, shape.c), || E::of(noise.normal()))
}

/// The scores of a mode, all memory that is to be written holding NaN before.
fn scores<B: Host>(graph: &Graph, params: &mut Params<B::Elem>, images: &Array4<B::Elem>, mode: Mode) -> Vec<f64> {
    let n = images.dim().0;
    let plan = Plan::compile::<B>(graph, n, mode).unwrap();
    let mut arena = Arena::new(plan.arena_len()).unwrap();
    arena.all_mut().fill(B::Elem::of(f64::NAN));
    let targets = Array2::zeros((n, plan.classes()));
    let input = Input { images: images.view(), pixels: None, targets: Some(targets.view()), key: Key::new(0) };
    if mode == Mode::Infer {
        let prepared = plan.prepare::<B>(params).unwrap();
        let mut states = Arena::new(params.states().len()).unwrap();
        states.all_mut().copy_from_slice(params.states());
        plan.infer::<B>(input, (params, prepared.all()), &mut states, &mut arena);
    } else {
        plan.forward::<B>(input, params, &mut arena, |_, _| ControlFlow::Continue(()));
    }
    plan.logits(n, &arena).iter().map(|v| v.wide()).collect()
}

fn compare<B: Host>(name: &str, graph: &Graph, n: usize, tolerance: f64) {
    compare_with::<B>(name, graph, &mut params(graph), n, tolerance);
}

fn compare_with<B: Host>(name: &str, graph: &Graph, params: &mut Params<B::Elem>, n: usize, tolerance: f64) {
    let images = images(n, graph.shape(graph.images()));
    let apart = scores::<B>(graph, params, &images, Mode::Eval);
    let fused = scores::<B>(graph, params, &images, Mode::Infer);
    let largest = apart.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    assert!(largest.is_finite() && largest > 1e-6, "{name}: {largest}");
    for (a, b) in apart.iter().zip(&fused) {
        let close = (a - b).abs() <= tolerance * largest; // false for a NaN
        assert!(close, "{name}: {a} apart, {b} fused, of {largest}");
    }
}

fn zoo() -> Vec<(String, Graph)> {
    let mut zoo = Vec::new();
    for (name, _) in models::names() {
        let family = name.starts_with('x');
        let size = if family || name.starts_with("resnet1") || name.starts_with("mx") { 64 } else { 32 };
        // The deeper nets of the family are the same blocks once more.
        if family && !["18", "50", "18_deep"].iter().any(|depth| name.ends_with(&format!("t{depth}"))) {
            continue;
        }
        let options = ModelOptions { size, ..Default::default() };
        let graph = models::build(&name, &options).unwrap();
        zoo.push((name, graph));
    }
    let mish = ModelOptions { size: 64, act: Activation::Mish, sa: true, dropout: 0.3, ..Default::default() };
    for name in ["xse_resnext18", "xresnet18_deep", "mxresnet", "mxresnet-depthwise"] {
        zoo.push((format!("{name} with Mish"), models::build(name, &mish).unwrap()));
    }
    let twist = ModelOptions { twist: TwistVersion::Second, ..mish };
    zoo.push(("mxresnet with twist".into(), models::build("mxresnet", &twist).unwrap()));
    zoo
}

#[test]
fn every_model_says_the_same_fused() {
    for (name, graph) in zoo() {
        let mut params = params(&graph);
        for n in [1, 9] {
            compare_with::<Cpu>(&name, &graph, &mut params, n, 1e-5);
        }
    }
}

#[test]
fn in_f64_it_is_the_same_function() {
    for name in ["simplenet", "convnet2", "convbnnet2", "quickstart"] {
        compare::<Reference>(name, &models::build(name, &ModelOptions::default()).unwrap(), 2, 1e-13);
    }
}

#[test]
fn an_image_gives_the_same_bits_in_any_batch() {
    for name in ["convnet2", "resnet2", "quickstart", "resnet18", "xse_resnext18"] {
        let graph = models::build(name, &ModelOptions { size: 64, ..Default::default() }).unwrap();
        let mut params = params(&graph);
        let all = images(9, graph.shape(graph.images()));
        let together = scores::<Cpu>(&graph, &mut params, &all, Mode::Infer);
        for (i, image) in all.outer_iter().enumerate() {
            let image = image.insert_axis(ndarray::Axis(0)).to_owned();
            let alone = scores::<Cpu>(&graph, &mut params, &image, Mode::Infer);
            assert_eq!(alone[..], together[i * alone.len()..][..alone.len()], "{name}, image {i}");
        }
    }
}

#[test]
fn what_others_need_stays() {
    // A convolution with two readers, an activation that is the output, a sum of an input with its dropout, a Flatten
    // that no linear layer reads, a layer that is called like a chain.
    let mut g = Graph::new(Shape::new(6, 5, 3));
    let x = g.node("a", Conv2d::square(8, 3, 1, 1), &[g.images()]).unwrap();
    let y = g.node("b", Activation::Relu, &[x]).unwrap();
    let y = g.node("c", BatchNorm::running(), &[y]).unwrap();
    let x = g.node("d", Add, &[x, y]).unwrap();
    let y = g.node("e", Dropout { p: 0.5 }, &[x]).unwrap();
    let x = g.node("f", Add, &[x, y]).unwrap();
    let y = g.node("g", Flatten, &[x]).unwrap();
    let y = g.node("h", BatchNorm::running(), &[y]).unwrap();
    let y = g.node("i", Linear::new(8), &[y]).unwrap();
    let x = g.node("i + l + n", AdaptivePool::global(Reduce::Mean), &[x]).unwrap();
    let x = g.node("k", Linear::new(8), &[x]).unwrap();
    let x = g.node("l", Add, &[y, x]).unwrap();
    let x = g.node("m", Dropout { p: 0.5 }, &[x]).unwrap();
    g.node("n", Activation::Mish, &[x]).unwrap();
    compare::<Cpu>("odd", &g, 3, 1e-5);
    compare::<Reference>("odd", &g, 2, 1e-13);
    let plan = Plan::compile::<Cpu>(&g, 1, Mode::Infer).unwrap();
    let names: Vec<&str> = plan.graph().nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["images", "a", "b", "c", "d", "e", "f", "g", "h", "i + l + n", "k", "n"][..]);
}

/// What a training step on memory that holds NaN leaves: scores, losses, gradients, state; and its plan's memory.
fn train<B: Host>(graph: &Graph, plan: &Plan, n: usize) -> [Vec<f64>; 4] {
    let mut params = params::<B::Elem>(graph);
    let mut arena = Arena::new(plan.arena_len()).unwrap();
    arena.all_mut().fill(B::Elem::of(f64::NAN));
    let images = images(n, graph.shape(graph.images()));
    let classes = plan.classes();
    let targets = Array2::from_shape_fn((n, classes), |(i, c)| B::Elem::of(f64::from(i % classes == c)));
    let input = || Input { images: images.view(), pixels: None, targets: Some(targets.view()), key: Key::new(4) };
    plan.forward::<B>(input(), &mut params, &mut arena, |_, _| ControlFlow::Continue(()));
    plan.backward::<B>(input(), &mut params, &mut arena, 1.0 / n as f64, false);
    let wide = |values: &[B::Elem]| values.iter().map(|v| v.wide()).collect();
    let logits = plan.logits(n, &arena).iter().map(|v| v.wide()).collect();
    [logits, wide(plan.losses(n, &arena)), wide(params.grads()), wide(params.states())]
}

fn bits(values: &[Vec<f64>; 4]) -> Vec<u64> {
    values.iter().flatten().map(|v| v.to_bits()).collect()
}

#[test]
fn training_is_the_same_to_the_bit() {
    let mut fused = 0;
    // Those that take seconds have the blocks of others.
    let slow = |name: &str| ["50", "depthwise", "twist"].iter().any(|part| name.contains(part));
    for (name, graph) in zoo().into_iter().filter(|(name, _)| !slow(name)) {
        let apart = Plan::of::<Cpu>(&graph, 3, Mode::Train).unwrap();
        let together = Plan::compile::<Cpu>(&graph, 3, Mode::Train).unwrap();
        if together.steps() == apart.steps() {
            continue;
        }
        fused += 1;
        let [apart, together] = [apart, together].map(|plan| train::<Cpu>(&graph, &plan, 2));
        assert!(apart[2].iter().all(|g| g.is_finite()), "{name}");
        assert!(bits(&apart) == bits(&together), "{name}");
    }
    assert!(fused >= 6, "{fused} models have layers that train as one");
}

#[test]
fn training_in_f64_is_the_same_function() {
    let graph =
        models::build("xresnet18", &ModelOptions { size: 32, act: Activation::Mish, ..Default::default() }).unwrap();
    let plans = [Plan::of::<Reference>, Plan::compile::<Reference>].map(|plan| plan(&graph, 2, Mode::Train).unwrap());
    let [apart, together] = plans.map(|plan| train::<Reference>(&graph, &plan, 2));
    for (a, b) in apart.iter().flatten().zip(together.iter().flatten()) {
        assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{a} apart, {b} as one");
    }
}

#[test]
fn outputs_that_are_made_again_take_no_memory_between_the_passes() {
    let options = ModelOptions { size: 64, act: Activation::Mish, ..Default::default() };
    let graph = models::build("xresnet18", &options).unwrap();
    let apart = Plan::of::<Cpu>(&graph, 8, Mode::Train).unwrap();
    let together = Plan::compile::<Cpu>(&graph, 8, Mode::Train).unwrap();
    let share = together.arena_len() as f64 / apart.arena_len() as f64;
    assert!(share < 0.75, "{share} of the memory");
}

#[test]
fn what_others_read_of_a_normalisation_stays() {
    let mut g = Graph::new(Shape::new(6, 5, 3));
    let x = g.node("a", Conv2d::square(8, 3, 1, 1), &[g.images()]).unwrap();
    let both = g.node("b", BatchNorm::running(), &[x]).unwrap();
    let y = g.node("c", Activation::Mish, &[both]).unwrap();
    let x = g.node("d", Add, &[both, y]).unwrap();
    let y = g.node("e", BatchNorm::running(), &[x]).unwrap();
    let y = g.node("f", Activation::Tanh, &[y]).unwrap();
    let y = g.node("g", BatchNorm::last_batch(1e-5), &[y]).unwrap();
    let y = g.node("h", Activation::Relu, &[y]).unwrap();
    let x = g.node("g + h", Add, &[x, y]).unwrap();
    let x = g.node("j", Dropout { p: 0.5 }, &[x]).unwrap();
    let x = g.node("k", Flatten, &[x]).unwrap();
    g.node("l", Linear::new(4), &[x]).unwrap();
    let plans = [Plan::of::<Cpu>, Plan::compile::<Cpu>].map(|plan| plan(&g, 5, Mode::Train).unwrap());
    let names: Vec<&str> = plans[1].graph().nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(
        names,
        ["images", "a", "b", "c", "d", "e", "e + f", "g", "h", "g + h", "j", "k", "l", "targets", "loss"][..]
    );
    let [apart, together] = plans.map(|plan| train::<Cpu>(&g, &plan, 5));
    assert!(apart[2].iter().all(|g| g.is_finite()) && bits(&apart) == bits(&together));
}
