//! Convolutions and linear layers of the published networks: all passes beside the floor of one core.
//!
//! `cargo bench --bench conv -- [FILTER]`; criterion's "Gelem/s" are GFLOP/s (2 per multiply-add, products with
//! padding counted). Below stands the share of the floor that `support/machine.rs` measures on one thread.
//! Times are of the processor, so that other work on the machine does not count: with `RAYON_NUM_THREADS=1` they are
//! those of the layer, with more threads their sum. `HANDGRAD_SIMD` forces a level.

#[path = "support/machine.rs"]
mod machine;
#[path = "support/processor_time.rs"]
mod processor_time;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use handgrad::backend::cpu::conv::{self, Activation, ConvGeometry, Epilogue};
use handgrad::backend::cpu::simd::Level;
use machine::{Machine, Samples};
use processor_time::ProcessorTime;
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
    ("xresnet18 32-32", 64, 32, 32, 3, 1, 1, 32),
    ("xresnet18 64-128 stride 2", 32, 64, 128, 3, 2, 1, 32),
    ("resnet18 3-64", 128, 3, 64, 7, 2, 3, 32),
    ("xresnet50 64-256 1x1", 32, 64, 256, 1, 1, 0, 32),
    ("xresnet50 256-64 1x1", 32, 256, 64, 1, 1, 0, 32),
    ("xresnet50 1024-512 1x1", 8, 1024, 512, 1, 1, 0, 32),
];

/// The same, and the number of groups.
const GROUPED: &[(Shape, usize)] = &[
    (("xse_resnext18 64-128 in 32 groups", 32, 64, 128, 3, 1, 1, 32), 32),
    (("xse_resnext18 64-256 in 32 groups, stride 2", 32, 64, 256, 3, 2, 1, 32), 32),
    (("xse_resnext18 512-1024 in 32 groups", 4, 512, 1024, 3, 1, 1, 32), 32),
    (("mxresnet 64-64 in 8 groups", 32, 64, 64, 3, 1, 1, 32), 8),
    (("depthwise 384", 32, 384, 384, 3, 1, 1, 16), 384),
    (("depthwise 64, stride 2", 32, 64, 64, 3, 2, 1, 32), 64),
];

fn geometry(&(_, side, in_c, out_c, kernel, stride, pad, _): &Shape, groups: usize) -> ConvGeometry {
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
        groups,
    }
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5).collect()
}

/// Benches one pass and prints its share of the floor.
fn measure(
    group: &mut BenchmarkGroup<'_, ProcessorTime>,
    name: &str,
    machine: &Machine,
    (flops, floats): (usize, usize),
    mut pass: impl FnMut(),
) {
    let mut samples = Samples::default();
    group.bench_function(name, |b| samples.take(b, &ProcessorTime, &mut pass));
    samples.print_share(machine.floor(flops as f64, 4.0 * floats as f64));
}

fn passes(c: &mut Criterion<ProcessorTime>) {
    let level = Level::current().expect("HANDGRAD_SIMD names a level of this machine");
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread more");
    let machine = alone.install(Machine::measure);
    for (shape, groups) in SHAPES.iter().map(|shape| (shape, 1)).chain(GROUPED.iter().map(|(s, groups)| (s, *groups))) {
        let (g, n) = (geometry(shape, groups), shape.7);
        let (x, w, bias, dy) =
            (values(g.input_len(n)), values(g.weight_len()), values(g.out_c), values(g.output_len(n)));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut group = c.benchmark_group(shape.0);
        group.throughput(Throughput::Elements(g.flops(n) as u64));
        // Every pass reads two of image, weights and output, and writes the third.
        let work = (g.flops(n), x.len() + w.len() + dy.len());
        let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::NONE };
        let mut scratch = vec![0.0; conv::forward_in_training_scratch(level, &g, n)];
        measure(&mut group, "forward in training", &machine, work, || {
            conv::forward_in_training(level, &g, n, &x, &w, &mut y, epilogue, &mut scratch);
        });
        let mut scratch = vec![0.0; conv::forward_scratch(level, &g, n)];
        measure(&mut group, "forward", &machine, work, || {
            conv::forward(level, &g, n, &x, &w, &mut y, epilogue, &mut scratch);
        });
        let mut scratch = vec![0.0; conv::input_gradient_scratch(level, &g, n)];
        measure(&mut group, "input gradient", &machine, work, || {
            conv::input_gradient(level, &g, n, &dy, &w, &mut dx, false, &mut scratch);
        });
        let mut scratch = vec![0.0; conv::weight_gradient_scratch(level, &g, n)];
        measure(&mut group, "weight gradient", &machine, work, || {
            conv::weight_gradient(level, &g, n, &x, &dy, &mut dw, false, &mut scratch);
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
