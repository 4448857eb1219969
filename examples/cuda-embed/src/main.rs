//! Trains a small net on the GPU where there is one, else on the CPU: one program for both.
//!
//! ```text
//! cd examples/cuda-embed && cargo run --release
//! ```

use handgrad::backend::cuda::devices;
use handgrad::backend::{Backend, Cpu, Cuda};
use handgrad::engine::Engine;
use handgrad::models;
use handgrad::optim::{Decay, ParamTable, Rates, Sgd, SgdConfig, Update};
use handgrad::rng::Key;
use ndarray::{Array2, Array4};

const BATCH: usize = 32;
const STEPS: usize = 30;

/// Noise, brighter in the rows of its class.
fn batch(key: Key) -> (Array4<f32>, Array2<f32>) {
    let mut noise = key.stream();
    let class = |i: usize| i % 10;
    let images = Array4::from_shape_fn((BATCH, 32, 32, 3), |(i, row, ..)| {
        let bright = row / 3 == class(i);
        (if bright { 1.0 } else { 0.0 } + 0.5 * noise.normal()) as f32
    });
    (images, Array2::from_shape_fn((BATCH, 10), |(i, j)| f32::from(class(i) == j)))
}

fn train<B: Backend<Elem = f32>>() -> handgrad::Result<()> {
    let graph = models::build("simplenet", &Default::default())?;
    let mut engine = Engine::<B>::new(&graph, BATCH, 42)?;
    // Nothing of the parameters is read before the end.
    engine.keep_on_device(true);
    let config = SgdConfig { momentum: 0.9, nesterov: true, decay: Decay::Coupled(1e-4) };
    let mut sgd = Sgd::new(config, ParamTable::of(engine.params(), &[])?)?;
    for step in 0..STEPS {
        let (images, targets) = batch(Key::new(7).with(step as u64));
        let outcome = engine.train_step(images.view(), targets.view())?;
        let rates = Rates::of(0.02);
        engine.update(Update { optimizer: &mut sgd, rates, clip_norm: None, ema: None, last: false })?;
        if step % 5 == 0 || step + 1 == STEPS {
            println!("step {step:>2}  loss {:.4}  {} of {BATCH} right", outcome.loss, outcome.correct);
        }
    }
    engine.fetch()?;
    let parameters: usize = engine.params().table().iter().map(|info| info.len).sum();
    println!("{parameters} parameters are back on the host");
    Ok(())
}

fn main() -> handgrad::Result<()> {
    match devices() {
        Ok(found) => {
            println!("on {}", found[0].name);
            train::<Cuda>()
        }
        Err(why) => {
            println!("on the CPU, since {why}");
            train::<Cpu>()
        }
    }
}
