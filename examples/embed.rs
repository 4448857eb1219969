//! A program with a model in it: classifies image files on worker threads that share one set of weights.
//!
//! ```text
//! cargo run --release --example embed -- MODEL.safetensors IMAGE…
//! ```
//!
//! A program of your own needs `handgrad = { version = "…", default-features = false, features = ["image"] }`, or the
//! feature `infer` alone where it decodes images itself.

use std::sync::Mutex;
use std::time::Instant;

use handgrad::infer::Model;
use ndarray::{Array2, Array4};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: embed MODEL.safetensors IMAGE…")?;
    let model = Model::load(path)?;
    let (height, width) = model.size();
    println!("{} classes, images of {height}×{width} pixels", model.classes().len());

    // The convenience: one image at a time, from any thread. The weights are shared, the work happens where it is
    // called and on the current rayon pool.
    let images = Mutex::new(arguments.collect::<Vec<_>>().into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = images.lock().map_or(None, |mut images| images.next());
                    let Some(path) = next else { break };
                    match model.predict_path(&path) {
                        Ok(prediction) => {
                            let top: Vec<_> = prediction.top(3).iter().map(|c| (&c.name, c.probability)).collect();
                            println!("{path}: {top:?}");
                        }
                        Err(error) => eprintln!("{error}"),
                    }
                }
            });
        }
    });

    // The fast way: memory for a batch once, then no allocation at all.
    let mut session = model.session(32)?;
    let batch = Array4::<u8>::from_elem((32, height, width, 3), 128);
    let mut probabilities = Array2::zeros((32, model.classes().len()));
    session.predict_into(batch.view(), probabilities.view_mut())?;
    let start = Instant::now();
    for _ in 0..10 {
        session.predict_into(batch.view(), probabilities.view_mut())?;
    }
    println!("batches of 32: {:.0} images/s", 320.0 / start.elapsed().as_secs_f64());
    Ok(())
}
