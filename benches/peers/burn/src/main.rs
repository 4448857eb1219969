//! burn's rates on the models that handgrad's benches measure, on its fastest CPU backend.
//!
//!     burn-bench MODEL EXPORTED BATCH SIZE STEPS RATE SECONDS
//!
//! prints one JSON object: images per second of training (forward, loss, backward, SGD with momentum) and of inference at
//! the batch, the median latency of one image in milliseconds, and the losses of the first and of the last step. Weights,
//! images and targets are those that `handgrad bench --export` wrote; STEPS at RATE come before the timed ones.
//! RAYON_NUM_THREADS sets the threads.

mod exported;
mod models;

use std::time::Instant;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig, momentum::MomentumConfig};
use burn::tensor::{Device, Int, Tensor};
use exported::Exported;
use models::{ConvNet2, Net, ResNet2, SimpleNet, XResNet18};

/// The work is the same, and the weights stay where they are.
const TINY_RATE: f64 = 1e-9;
/// Calls of a measurement at least, unless they take so many times as long as it should.
const CALLS: usize = 5;
const PATIENCE: f64 = 4.0;

/// What the command line says besides the model and the file.
struct Settings {
    batch: usize,
    size: usize,
    steps: usize,
    rate: f64,
    seconds: f64,
}

fn settings(texts: &[String]) -> Option<Settings> {
    let [batch, size, steps, rate, seconds] = texts else { return None };
    Some(Settings {
        batch: batch.parse().ok()?,
        size: size.parse().ok()?,
        steps: steps.parse().ok()?,
        rate: rate.parse().ok()?,
        seconds: seconds.parse().ok()?,
    })
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((model, file, settings)) =
        args.first().zip(args.get(1)).and_then(|(model, file)| Some((model, file, settings(&args[2..])?)))
    else {
        eprintln!("usage: burn-bench simplenet|convnet2|resnet2|xresnet18 EXPORTED BATCH SIZE STEPS RATE SECONDS");
        std::process::exit(2);
    };
    let bytes = std::fs::read(file).expect("the exported file can be read");
    let exported = Exported::new(&bytes);
    let device = Device::flex().autodiff();
    match model.as_str() {
        "simplenet" => measure(SimpleNet::new(&device), &exported, &device, &settings),
        "convnet2" => measure(ConvNet2::new(&device), &exported, &device, &settings),
        "resnet2" => measure(ResNet2::new(&device), &exported, &device, &settings),
        "xresnet18" => measure(XResNet18::new(&device), &exported, &device, &settings),
        other => {
            eprintln!("unknown model {other}");
            std::process::exit(2);
        }
    }
}

fn measure<N: Net + Module>(net: N, exported: &Exported<'_>, device: &Device, settings: &Settings) {
    let &Settings { batch, size, steps, rate, seconds } = settings;
    let net = exported.fill(net);
    let x = exported.images(batch, size, device);
    let targets: Tensor<1, Int> = exported.targets(batch, device);
    let loss = CrossEntropyLossConfig::new().init(device);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
    let mut trained = Some(net);
    let mut step = |rate: f64| {
        let net = trained.take().expect("the step before put it back");
        let loss = loss.forward(net.forward(x.clone(), true), targets.clone());
        let value = loss.clone().into_data().try_to_vec::<f32>().expect("a loss in f32")[0];
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        trained = Some(optimizer.step(rate, net, gradients));
        value
    };
    let first_loss = step(rate);
    for _ in 1..steps {
        step(rate);
    }
    let mut last_loss = first_loss;
    let train = median_seconds(seconds, || last_loss = step(TINY_RATE));

    let net = trained.expect("the last step put it back").valid();
    let plain = device.clone().inner();
    let images = exported.images(batch, size, &plain);
    let one = exported.images(1, size, &plain);
    let infer = |x: &Tensor<4>| median_seconds(seconds, || drop(net.forward(x.clone(), false).into_data()));
    println!(
        r#"{{"train_images_per_second": {}, "infer_images_per_second": {}, "latency_ms": {}, "first_loss": {first_loss}, "loss": {last_loss}}}"#,
        batch as f64 / train,
        batch as f64 / infer(&images),
        infer(&one) * 1e3
    );
}

/// The median time of a call, over calls for `seconds` after one that warms up.
fn median_seconds(seconds: f64, mut call: impl FnMut()) -> f64 {
    call();
    let (start, mut times) = (Instant::now(), Vec::new());
    loop {
        let before = Instant::now();
        call();
        times.push(before.elapsed().as_secs_f64());
        let passed = start.elapsed().as_secs_f64();
        if passed >= seconds && (times.len() >= CALLS || passed >= PATIENCE * seconds) {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
