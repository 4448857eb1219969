//! Convolutions and linear layers of the published networks: all passes beside the machine's own ceiling.
//!
//! `cargo bench --bench conv -- [FILTER]`; criterion's "Gelem/s" are GFLOP/s (2 per multiply-add, products with
//! padding counted, so that layers with small maps may exceed the ceiling: those products are never computed).
//! Times are of the processor, so that other work on the machine does not count: with `RAYON_NUM_THREADS=1` they are
//! those of the layer, with more threads their sum. `HANDGRAD_SIMD` forces a level.

#[path = "support/processor_time.rs"]
mod processor_time;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use handgrad::backend::cpu::conv::{self, Activation, ConvGeometry, Epilogue};
use handgrad::backend::cpu::simd::Level;
use processor_time::ProcessorTime;
use std::hint::black_box;
use std::time::Duration;

/// Name; input side and channels, output channels; kernel, stride, pad; images.
type Shape = (&'static str, usize, usize, usize, usize, usize, usize, usize);

const SHAPES: &[Shape] = &[
    ("simplenet 3072-40", 1, 3072, 40, 1, 1, 0, 256),
    ("simplenet 40-10", 1, 40, 10, 1, 1, 0, 256),
    ("simplenet 3072-40 one row", 1, 3072, 40, 1, 1, 0, 1),
    ("convnet2 3-20", 32, 3, 20, 3, 2, 1, 256),
    ("convnet2 20-40", 16, 20, 40, 3, 2, 1, 256),
    ("convnet2 40-80", 8, 40, 80, 3, 2, 1, 256),
    ("resnet2 3-16", 32, 3, 16, 7, 1, 1, 256),
    ("resnet2 16-32", 28, 16, 32, 3, 2, 1, 256),
    ("resnet2 32-32", 14, 32, 32, 3, 1, 1, 256),
    ("resnet2 32-128", 14, 32, 128, 3, 2, 1, 256),
    ("resnet2 128-128", 7, 128, 128, 3, 1, 1, 256),
    ("resnet2 128-256", 7, 128, 256, 3, 2, 1, 256),
    ("resnet2 256-256", 4, 256, 256, 3, 1, 1, 256),
    ("resnet2 256-256 one image", 4, 256, 256, 3, 1, 1, 1),
    ("xresnet18 3-32", 128, 3, 32, 3, 2, 1, 32),
    ("xresnet18 32-64", 64, 32, 64, 3, 1, 1, 32),
    ("xresnet18 64-64", 32, 64, 64, 3, 1, 1, 32),
    ("xresnet18 128-128", 16, 128, 128, 3, 1, 1, 32),
    ("xresnet18 256-256", 8, 256, 256, 3, 1, 1, 32),
    ("xresnet18 512-512", 4, 512, 512, 3, 1, 1, 32),
    ("xresnet18 64-128 1x1", 16, 64, 128, 1, 1, 0, 32),
];

fn geometry(&(_, side, in_c, out_c, kernel, stride, pad, _): &Shape) -> ConvGeometry {
    let out = (side + 2 * pad - kernel) / stride + 1;
    ConvGeometry {
        in_h: side,
        in_w: side,
        in_c,
        out_h: out,
        out_w: out,
        out_c,
        kernel: (kernel, kernel),
        stride: (stride, stride),
        pad: (pad, pad),
        dilation: (1, 1),
        groups: 1,
    }
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5).collect()
}

/// Passes over the sums of [`ceiling`].
const CEILING_PASSES: usize = 100_000;

handgrad::multiversion! {
    /// Multiply-adds on sums that stay in registers: nothing on this machine's core can be faster.
    fn ceiling(factor: f32, term: f32) -> f32 {
        let mut sums = [[1.0f32; 16]; 12];
        for _ in 0..CEILING_PASSES {
            for sum in sums.as_flattened_mut() {
                *sum = sum.mul_add(factor, term);
            }
        }
        sums.as_flattened().iter().sum()
    }
}

fn passes(c: &mut Criterion<ProcessorTime>) {
    let level = Level::current().expect("HANDGRAD_SIMD names a level of this machine");
    if level > Level::Portable {
        let mut group = c.benchmark_group("ceiling of one core");
        group.throughput(Throughput::Elements((CEILING_PASSES * 12 * 16 * 2) as u64));
        group.bench_function(level.name(), |b| b.iter(|| ceiling(level, black_box(0.999), black_box(0.5))));
    }
    for shape in SHAPES {
        let (g, n) = (geometry(shape), shape.7);
        let (x, w, bias, dy) =
            (values(g.input_len(n)), values(g.weight_len()), values(g.out_c), values(g.output_len(n)));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut group = c.benchmark_group(shape.0);
        group.throughput(Throughput::Elements(g.flops(n) as u64));
        let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, accumulate: false };
        let mut scratch = vec![0.0; conv::forward_in_training_scratch(level, &g, n)];
        group.bench_function("forward in training", |b| {
            b.iter(|| conv::forward_in_training(level, &g, n, &x, &w, &mut y, epilogue, &mut scratch));
        });
        let mut scratch = vec![0.0; conv::forward_scratch(level, &g, n)];
        group.bench_function("forward", |b| {
            b.iter(|| conv::forward(level, &g, n, &x, &w, &mut y, epilogue, &mut scratch));
        });
        let mut scratch = vec![0.0; conv::input_gradient_scratch(level, &g, n)];
        group.bench_function("input gradient", |b| {
            b.iter(|| conv::input_gradient(level, &g, n, &dy, &w, &mut dx, false, &mut scratch));
        });
        let mut scratch = vec![0.0; conv::weight_gradient_scratch(level, &g, n)];
        group.bench_function("weight gradient", |b| {
            b.iter(|| conv::weight_gradient(level, &g, n, &x, &dy, &mut dw, false, &mut scratch));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(ProcessorTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = passes
}
criterion_main!(benches);
