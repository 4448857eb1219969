//! burn's rates on the models that handgrad's benches measure, on its fastest CPU backend.
//!
//!     burn-bench MODEL BATCH SECONDS
//!
//! prints one JSON object: images per second of training (forward, backward, SGD with momentum) and of inference at
//! the batch, and the median latency of a batch of one in milliseconds. RAYON_NUM_THREADS sets the threads.

mod models;

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig, momentum::MomentumConfig};
use burn::tensor::{Device, Distribution, Int, Tensor};
use models::{ConvNet2, Net, ResNet2, SimpleNet};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &args[..] {
        [model, batch, seconds] => batch.parse::<usize>().ok().zip(seconds.parse::<f64>().ok()).map(|n| (model, n)),
        _ => None,
    };
    let Some((model, (batch, seconds))) = parsed else {
        eprintln!("usage: burn-bench simplenet|convnet2|resnet2 BATCH SECONDS");
        std::process::exit(2);
    };
    let device = Device::flex().autodiff();
    let time = Duration::from_secs_f64(seconds);
    match model.as_str() {
        "simplenet" => measure(SimpleNet::new(&device), &device, batch, time),
        "convnet2" => measure(ConvNet2::new(&device), &device, batch, time),
        "resnet2" => measure(ResNet2::new(&device), &device, batch, time),
        other => {
            eprintln!("unknown model {other}");
            std::process::exit(2);
        }
    }
}

fn images(batch: usize, device: &Device) -> Tensor<4> {
    Tensor::random([batch, 3, 32, 32], Distribution::Normal(0.0, 1.0), device)
}

fn measure<N: Net + Module>(net: N, device: &Device, batch: usize, time: Duration) {
    let x = images(batch, device);
    let targets = Tensor::<1, Int>::arange(0..batch as i64, device).remainder_scalar(10);
    let loss = CrossEntropyLossConfig::new().init(device);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
    // A tiny learning rate does the same work and keeps the numbers ordinary however long this runs.
    let mut trained = Some(net.clone());
    let step = || {
        let net = trained.take().expect("the step before put it back");
        let gradients = loss.forward(net.forward(x.clone(), true), targets.clone()).backward();
        let gradients = GradientsParams::from_grads(gradients, &net);
        trained = Some(optimizer.step(1e-9, net, gradients));
    };
    let train = batch as f64 / median_seconds(time, step);

    let net = net.valid();
    let plain = device.clone().inner();
    let infer = |batch: usize| {
        let x = images(batch, &plain);
        median_seconds(time, || drop(net.forward(x.clone(), false).into_data()))
    };
    println!(
        r#"{{"train_images_per_second": {train:.1}, "infer_images_per_second": {:.1}, "latency_ms": {:.4}}}"#,
        batch as f64 / infer(batch),
        infer(1) * 1e3
    );
}

/// The median time of a call, over about `time` after a fifth of that to warm up; at least five calls.
fn median_seconds(time: Duration, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    while start.elapsed() < time / 5 {
        call();
    }
    let (start, mut seconds) = (Instant::now(), Vec::new());
    while start.elapsed() < time || seconds.len() < 5 {
        let start = Instant::now();
        call();
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
