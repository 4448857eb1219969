//! What a probe sees of a layer, and the gradient of a class score there.

use handgrad::backend::{Cpu, Host, Real, Reference};
use handgrad::engine::Engine;
use handgrad::graph::{Graph, Shape};
use handgrad::models;
use handgrad::ops::{
    Activation, AdaptivePool, BatchNorm, Conv2d, DropPath, Dropout, Linear, MaxPool, Reduce, Scale, SelfAttention,
    Twist, Window,
};
use handgrad::probe::Probe;
use handgrad::rng::Key;
use handgrad::{ErrorKind, Params};
use ndarray::{Array2, Array4, Axis};

const IMAGES: usize = 2;
const CLASSES: usize = 5;

/// A net of all layers that differ between training and evaluation, and of some that save for their backward pass. Its
/// first layer hands the images on, so that a gradient there is one by the images.
fn net() -> Graph {
    let mut g = Graph::new(Shape::new(9, 7, 3));
    let x = g.node("in", Scale { factor: 1.0 }, &[g.images()]).unwrap();
    let x = g.node("twist", Twist::published(6, 1), &[x]).unwrap();
    let x = g.node("bn", BatchNorm::running(), &[x]).unwrap();
    let x = g.node("act", Activation::Relu, &[x]).unwrap();
    let x = g.node("sa", SelfAttention { sym: false }, &[x]).unwrap();
    let x = g.node("pool", MaxPool { window: Window::square(3, 2, 1), ceil: false }, &[x]).unwrap();
    let x = g.node("conv", Conv2d::square(4, 3, 1, 1), &[x]).unwrap();
    let x = g.node("norm", BatchNorm::last_batch(0.1), &[x]).unwrap();
    let x = g.node("path", DropPath { p: 0.5 }, &[x]).unwrap();
    let x = g.node("drop", Dropout { p: 0.5 }, &[x]).unwrap();
    let x = g.node("mean", AdaptivePool::global(Reduce::Mean), &[x]).unwrap();
    g.node("out", Linear::new(CLASSES), &[x]).unwrap();
    g
}

fn noise<E: Real>(dim: (usize, usize, usize, usize), seed: u64) -> Array4<E> {
    let mut stream = Key::new(seed).stream();
    Array4::from_shape_simple_fn(dim, || E::of(stream.normal()))
}

fn images_for<E: Real>(graph: &Graph) -> Array4<E> {
    let shape = graph.shape(graph.images());
    noise((IMAGES, shape.h, shape.w, shape.c), 5)
}

/// The net after some training steps, which move statistics and the attention's scale away from where they start.
fn trained<B: Host>(graph: &Graph) -> Engine<B> {
    let mut engine = Engine::<B>::new(graph, IMAGES, 1).unwrap();
    let classes = graph.shape(graph.output()).c;
    let targets = Array2::from_shape_fn((IMAGES, classes), |(i, c)| B::Elem::of(f64::from(i == c)));
    for seed in 0..3 {
        let images: Array4<B::Elem> = images_for(graph);
        let images = &images + &noise(images.dim(), seed);
        engine.train_step(images.view(), targets.view()).unwrap();
        let (values, grads, _) = engine.params_mut().split_mut();
        values.iter_mut().zip(grads).for_each(|(value, grad)| *value -= B::Elem::of(0.1) * *grad);
    }
    engine
}

fn score(probe: &mut Probe<Reference>, params: &Params<f64>, images: &Array4<f64>, classes: [usize; IMAGES]) -> f64 {
    let seen = probe.explain(params, images.view(), |i, _| classes[i]).unwrap();
    classes.iter().enumerate().map(|(i, &class)| seen.scores[[i, class]]).sum()
}

#[test]
fn its_gradient_is_that_of_the_score_of_evaluation() {
    let graph = net();
    let engine = trained::<Reference>(&graph);
    let (params, images) = (engine.params(), images_for::<f64>(&graph));
    let mut probe = Probe::<Reference>::new(&graph, "in", IMAGES).unwrap();
    let classes = [3, 1];
    let gradient = probe.explain(params, images.view(), |i, _| classes[i]).unwrap().gradient.to_owned();
    let scale = gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
    assert!(scale > 1e-3, "{scale}");
    let h = 1e-6;
    for (at, gradient) in gradient.indexed_iter() {
        let mut at_distance = |h: f64| {
            let mut moved = images.clone();
            moved[at] += h;
            score(&mut probe, params, &moved, classes)
        };
        let numeric = (at_distance(h) - at_distance(-h)) / (2.0 * h);
        assert!((numeric - gradient).abs() < 1e-6 * scale, "{at:?}: {gradient}, by differences {numeric}");
    }
}

#[test]
fn it_sees_what_evaluation_computes() {
    let graph = net();
    let mut engine = trained::<Cpu>(&graph);
    let images = images_for::<f32>(&graph);
    let mut probe = Probe::<Cpu>::new(&graph, "bn", IMAGES).unwrap();
    let before = probe.output(engine.params(), images.view()).unwrap().to_owned();
    let seen = probe.explain(engine.params(), images.view(), |_, _| 0).unwrap();
    assert_eq!(seen.output, before);
    let scores = seen.scores.to_owned();
    engine.evaluate(images.view(), Array2::zeros((IMAGES, CLASSES)).view()).unwrap();
    assert_eq!(scores, engine.eval_scores(IMAGES));
    // What works in place behind the layer does not overwrite it.
    let mut probe = Probe::<Cpu>::new(&graph, "act", IMAGES).unwrap();
    let after = probe.output(engine.params(), images.view()).unwrap();
    assert_eq!(after, before.mapv(|x| x.max(0.0)));
    assert!(before.iter().any(|&x| x < 0.0));
}

#[test]
fn backends_agree() {
    let graph = net();
    let engine = trained::<Reference>(&graph);
    let images = images_for::<f64>(&graph);
    let mut own = Params::<f32>::zeros(&graph).unwrap();
    let narrow = |to: &mut [f32], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, &v)| *to = v as f32);
    narrow(own.values_mut(), engine.params().values());
    narrow(own.states_mut(), engine.params().states());
    for layer in ["twist", "act", "pool", "norm", "drop"] {
        let mut reference = Probe::<Reference>::new(&graph, layer, IMAGES).unwrap();
        let mut cpu = Probe::<Cpu>::new(&graph, layer, IMAGES).unwrap();
        let truth = reference.explain(engine.params(), images.view(), |i, _| i).unwrap();
        let ours = cpu.explain(&own, images.mapv(|v| v as f32).view(), |i, _| i).unwrap();
        for (truth, ours) in [(truth.output, ours.output), (truth.gradient, ours.gradient)] {
            let scale = truth.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
            let apart = truth.iter().zip(&ours).fold(0.0, |m: f64, (t, o)| m.max((t - f64::from(*o)).abs()));
            assert!(apart < 2e-5 * scale, "{layer}: {apart} of {scale}");
        }
    }
}

/// Behind a global mean and a linear layer the gradient is the class's weights, spread over the pixels: so Grad-CAM's
/// map is h·w times smaller than that of CAM (Zhou et al. 2016).
#[test]
fn behind_a_global_mean_it_is_the_weights_of_the_class() {
    let graph = models::build("xresnet18", &models::ModelOptions { size: 64, ..Default::default() }).unwrap();
    let engine = trained::<Reference>(&graph);
    let images = images_for::<f64>(&graph);
    let layer = graph.last_map().unwrap();
    let shape = layer.shape;
    assert!((shape.h, shape.w) == (2, 2), "{shape}");
    let mut probe = Probe::<Reference>::new(&graph, &layer.name, IMAGES).unwrap();
    let seen = probe.explain(engine.params(), images.view(), |i, _| 4 + i).unwrap();
    let weights = engine.params().to_torch("11.weight").unwrap();
    for (i, gradient) in seen.gradient.axis_iter(Axis(0)).enumerate() {
        for ((_, _, c), gradient) in gradient.indexed_iter() {
            let expected = weights[(4 + i) * shape.c + c] / (shape.h * shape.w) as f64;
            assert!((gradient - expected).abs() < 1e-12, "{gradient} {expected}");
        }
    }
}

#[test]
fn what_cannot_be_looked_at_is_an_error() {
    let graph = net();
    let kind = |layer| Probe::<Cpu>::new(&graph, layer, 1).err().map(|e| e.kind());
    assert_eq!(kind("nowhere"), Some(ErrorKind::Usage));
    assert_eq!(kind("images"), Some(ErrorKind::Usage));
    // The published ResNet never runs the layers of its second stage.
    let published = models::build("resnet", &Default::default()).unwrap();
    let alive = published.alive();
    let idle = published.nodes().iter().zip(alive).find(|(_, alive)| !alive).unwrap().0;
    assert_eq!(Probe::<Cpu>::new(&published, &idle.name, 1).err().map(|e| e.kind()), Some(ErrorKind::Usage));

    let mut probe = Probe::<Cpu>::new(&graph, "bn", 1).unwrap();
    let params = Params::<f32>::new(&graph, Key::new(1)).unwrap();
    let foreign = Params::<f32>::new(&published, Key::new(1)).unwrap();
    let one = Array4::<f32>::zeros((1, 9, 7, 3));
    let two = Array4::<f32>::zeros((2, 9, 7, 3));
    assert_eq!(probe.output(&params, two.view()).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(probe.output(&foreign, one.view()).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(probe.explain(&params, one.view(), |_, _| CLASSES).unwrap_err().kind(), ErrorKind::Usage);
}
