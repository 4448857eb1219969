//! A step of every optimizer on xresnet18's parameters, beside the floor that memory sets.
//!
//! `cargo bench --bench optim -- [FILTER]`; `RAYON_NUM_THREADS` sets the threads, `HANDGRAD_SIMD` the SIMD level.
//!
//! The floor is the pass over memory that the step cannot avoid (values, gradients, moments) at the rate at which this
//! machine adds one array to another of the same size on the same threads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use handgrad::optim::{
    Adam, AdamConfig, Decay, Ema, Lamb, Lookahead, Optimizer, ParamTable, Rates, RmsProp, RmsPropConfig, Sgd,
    SgdConfig, clip_grad_norm,
};
use handgrad::rng::Key;
use handgrad::{Params, models};
use rayon::prelude::*;

/// Bytes per second of `a[i] += b[i]`, reads and writes, over arrays that fit no cache.
fn memory_rate() -> f64 {
    let (mut a, b) = (vec![1.0_f32; 12 << 20], vec![1.0_f32; 12 << 20]);
    let mut pass = || {
        let started = Instant::now();
        let chunks = a.par_chunks_mut(16 << 10).zip(b.par_chunks(16 << 10));
        chunks.for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a += b));
        started.elapsed().as_secs_f64()
    };
    let best = (0..20).map(|_| pass()).fold(f64::INFINITY, f64::min);
    black_box(&a);
    3.0 * size_of_val(&b[..]) as f64 / best
}

fn optimizers(params: &Params<f32>) -> Vec<(&'static str, f64, Box<dyn Optimizer<f32>>)> {
    let table = || ParamTable::of(params, &[]).unwrap();
    let adam = |config| Box::new(Adam::new(config, table()).unwrap());
    let sgd = |momentum, nesterov| SgdConfig { momentum, nesterov, decay: Decay::Coupled(1e-4) };
    // The second number: accesses to memory per element.
    vec![
        ("sgd without momentum", 3.0, Box::new(Sgd::new(sgd(0.0, false), table()).unwrap())),
        ("sgd", 5.0, Box::new(Sgd::new(sgd(0.9, false), table()).unwrap())),
        ("rmsprop", 5.0, Box::new(RmsProp::new(RmsPropConfig::DEFAULT, table()).unwrap())),
        ("adam", 7.0, adam(AdamConfig::fastai(0.01))),
        ("sadam", 7.0, adam(AdamConfig { beta: 50.0, ..AdamConfig::fastai(0.01) })),
        ("lamb", 10.0, Box::new(Lamb::new(AdamConfig::fastai(0.01), table()).unwrap())),
        ("ranger", 7.0 + 4.0 / 6.0, Box::new(Lookahead::new(adam(AdamConfig::ranger(0.01)), 6, 0.5).unwrap())),
    ]
}

fn bench(c: &mut Criterion) {
    let graph = models::build("xresnet18", &Default::default()).unwrap();
    let mut params = Params::<f32>::new(&graph, Key::new(0)).unwrap();
    let mut noise = Key::new(1).stream();
    let mut grads: Vec<f32> = params.values().iter().map(|_| 1e-3 * noise.normal() as f32).collect();
    let (len, rate) = (params.values().len(), memory_rate());
    let floor = |accesses: f64| 1e3 * accesses * (len * size_of::<f32>()) as f64 / rate;
    println!("{len} parameters, {} threads, memory {:.1} GB/s", rayon::current_num_threads(), rate / 1e9);

    let mut group = c.benchmark_group("optim");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, accesses, mut optimizer) in optimizers(&params) {
        group.bench_function(format!("{name} (floor {:.1} ms)", floor(accesses)), |b| {
            b.iter(|| optimizer.step(params.values_mut(), &grads, Rates::of(1e-4)).unwrap());
        });
    }
    let table = ParamTable::of(&params, &[]).unwrap();
    group.bench_function(format!("clip (floor {:.1} ms)", floor(3.0)), |b| {
        b.iter(|| clip_grad_norm(&mut grads, &table, 1e-3).unwrap());
    });
    let mut ema = Ema::new(0.999, &params).unwrap();
    group.bench_function(format!("ema (floor {:.1} ms)", floor(3.0)), |b| b.iter(|| ema.update(&params).unwrap()));
}

criterion_group!(benches, bench);
criterion_main!(benches);
