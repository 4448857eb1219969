//! A training loop of your own, made of the library's pieces: data, engine, optimizer, schedule, model file.
//!
//! ```text
//! cargo run --release --example training_loop
//! ```
//!
//! The task is small enough for a second: tell horizontal stripes, vertical stripes and checkers apart.

use handgrad::backend::Cpu;
use handgrad::engine::Engine;
use handgrad::graph::{Graph, Shape};
use handgrad::infer::{Model, in_pool};
use handgrad::io::model_file::{self, Extra, ModelInfo, Preprocessing};
use handgrad::ops::{Activation, AdaptivePool, Conv2d, Linear, Reduce};
use handgrad::optim::{Decay, Optimizer, ParamTable, Rates, Sgd, SgdConfig};
use handgrad::rng::Key;
use ndarray::{Array2, Array3, Array4, Axis};

const CLASSES: [&str; 3] = ["horizontal", "vertical", "checkers"];
const SIZE: usize = 12;
const BATCH: usize = 32;
const STEPS: u64 = 150;
const MEAN: f64 = 0.5;
const STD: f64 = 0.25;

/// A noisy picture of one class; its width of stripes and its phase are random.
fn picture(key: Key) -> (Array3<u8>, usize) {
    let mut random = key.stream();
    let class = random.below(3) as usize;
    let period = 2 + random.below(3) as usize;
    let (dx, dy) = (random.below(8) as usize, random.below(8) as usize);
    let pixels = Array3::from_shape_fn((SIZE, SIZE, 3), |(y, x, _)| {
        let (row, column) = ((y + dy) / period % 2, (x + dx) / period % 2);
        let bright = [row, column, (row + column) % 2][class] == 1;
        (if bright { 170.0 } else { 80.0 } + 25.0 * random.normal()).clamp(0.0, 255.0) as u8
    });
    (pixels, class)
}

/// A batch: normalised images `[n, h, w, 3]` and one-hot targets `[n, classes]`.
fn batch(key: Key) -> (Array4<f32>, Array2<f32>) {
    let mut images = Array4::zeros((BATCH, SIZE, SIZE, 3));
    let mut targets = Array2::zeros((BATCH, CLASSES.len()));
    for i in 0..BATCH {
        let (pixels, class) = picture(key.with(i as u64));
        images.index_axis_mut(Axis(0), i).assign(&pixels.mapv(|p| ((f64::from(p) / 255.0 - MEAN) / STD) as f32));
        targets[[i, class]] = 1.0;
    }
    (images, targets)
}

fn network() -> handgrad::Result<Graph> {
    let mut g = Graph::new(Shape::new(SIZE, SIZE, 3));
    let x = g.node("conv1", Conv2d::square(16, 3, 1, 1), &[g.images()])?;
    let x = g.node("relu1", Activation::Relu, &[x])?;
    let x = g.node("conv2", Conv2d::square(32, 3, 2, 1), &[x])?;
    let x = g.node("relu2", Activation::Relu, &[x])?;
    let x = g.node("pool", AdaptivePool::global(Reduce::Mean), &[x])?;
    g.node("out", Linear::new(CLASSES.len()), &[x])?;
    Ok(g)
}

fn optimizer(engine: &Engine<Cpu>) -> handgrad::Result<Sgd<f32>> {
    let table = ParamTable::of(engine.params(), &[])?;
    Sgd::new(SgdConfig { momentum: 0.9, nesterov: true, decay: Decay::Coupled(1e-4) }, table)
}

fn train(graph: &Graph) -> handgrad::Result<Engine<Cpu>> {
    let mut engine = Engine::<Cpu>::new(graph, BATCH, 42)?;
    let mut sgd = optimizer(&engine)?;
    let data = Key::new(7);
    for step in 0..STEPS {
        let (images, targets) = batch(data.with_name("train").with(step));
        let outcome = engine.train_step(images.view(), targets.view())?;
        // A schedule is any function of the step: linear to zero here.
        let lr = 0.1 * (1.0 - step as f64 / STEPS as f64);
        let (values, grads, _) = engine.params_mut().split_mut();
        sgd.step(values, grads, Rates::of(lr))?;
        if step % 25 == 0 {
            println!("step {step:>3}  loss {:.4}  {} of {BATCH} right", outcome.loss, outcome.correct);
        }
    }
    let (images, targets) = batch(data.with_name("valid"));
    let outcome = engine.evaluate(images.view(), targets.view())?;
    println!("new pictures: loss {:.4}, {} of {BATCH} right", outcome.loss, outcome.correct);
    Ok(engine)
}

fn main() -> handgrad::Result<()> {
    let graph = network()?;
    // Inside one pool for the whole run: entering the global pool at every step would cost more.
    let engine = in_pool(0, || train(&graph))??;

    let path = std::env::temp_dir().join("handgrad-stripes.safetensors");
    let preprocessing = Preprocessing::new((SIZE, SIZE), [MEAN; 3], [STD; 3]);
    let info = ModelInfo::new(CLASSES, preprocessing);
    model_file::save(&path, &graph, engine.params(), &info, &Extra::default())?;
    println!("model: {}", path.display());

    let model = Model::load(&path)?;
    let (pixels, class) = picture(Key::new(99));
    let prediction = model.predict(&pixels.view())?;
    println!("a picture of {}: {:?}", CLASSES[class], prediction.best());
    Ok(())
}
