//! Every op's forward and backward pass at sizes of real nets, beside its floor on this machine.
//!
//! `cargo bench --bench ops --features conformance -- [FILTER]`; `RAYON_NUM_THREADS` sets the threads.
//!
//! The floor is that of `support/machine.rs`; both rates are measured first, on all threads.

#[path = "support/machine.rs"]
mod machine;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{Criterion, criterion_group, criterion_main};
use handgrad::backend::{Cpu, Host};
use handgrad::graph::Shape;
use handgrad::ops::cases::Case;
use handgrad::ops::{
    Activation, AdaptivePool, Add, AvgPool, Backward, BatchNorm, Blur, ChannelScale, ChannelShuffle, Concat, Conv2d,
    ConvNormAct, ConvTwist, DropPath, Dropout, Flatten, Forward, Grad, Linear, MaxPool, NormAct, OpSpec, ParamGrad,
    Product, Reduce, Residual, Scale, SelfAttention, SoftmaxCrossEntropy, Twist, Window, all_cases,
};
use handgrad::rng::Key;
use machine::{Floor, Machine, Samples};
use ndarray::{ArrayView4, ArrayViewMut4};

fn case(op: impl Into<OpSpec>, inputs: &[Shape], batch: usize) -> Case {
    Case::new(op, inputs, batch)
}

fn cases() -> Vec<Case> {
    let (first, second, last) = (Shape::new(28, 28, 16), Shape::new(14, 14, 32), Shape::new(4, 4, 256));
    let grouped = |channels, groups| Conv2d { groups, ..Conv2d::square(channels, 3, 1, 1).no_bias() };
    let fused = ConvNormAct {
        norm: Some(BatchNorm::running()),
        add: Some(Residual::Other),
        last: Some(Activation::Relu),
        ..ConvNormAct::new(Product::Conv2d(Conv2d::square(64, 3, 1, 1).no_bias()))
    };
    let norm_act = |add, act| NormAct { norm: BatchNorm::running(), add, act };
    vec![
        case(norm_act(false, Activation::Relu), &[first], 256),
        case(norm_act(true, Activation::Mish), &[first; 2], 256),
        case(Activation::Relu, &[first], 256),
        case(Activation::LeakyRelu { slope: 0.1 }, &[first], 256),
        case(Activation::GeneralRelu { leak: 0.1, sub: 0.4, maxv: Some(6.0) }, &[first], 256),
        case(Activation::Mish, &[first], 256),
        case(Activation::Silu, &[first], 256),
        case(Activation::Sigmoid, &[first], 256),
        case(Activation::Tanh, &[first], 256),
        case(Activation::Gelu, &[first], 256),
        case(Activation::Softplus, &[first], 256),
        case(Linear::new(40), &[Shape::flat(3072)], 256),
        case(Linear::new(10), &[Shape::flat(256)], 256),
        case(Linear::new(1000), &[Shape::flat(512)], 256),
        case(Conv2d::square(20, 3, 2, 1), &[Shape::new(32, 32, 3)], 256),
        case(Conv2d::square(16, 7, 1, 1).no_bias(), &[Shape::new(32, 32, 3)], 256),
        case(Conv2d::square(32, 3, 2, 1).no_bias(), &[first], 256),
        case(Conv2d::square(32, 3, 1, 1).no_bias(), &[second], 256),
        case(Conv2d::square(256, 3, 1, 1).no_bias(), &[last], 256),
        case(Conv2d::square(256, 1, 1, 0).no_bias(), &[Shape::new(32, 32, 64)], 32),
        case(Conv2d::square(256, 1, 1, 0).no_bias(), &[Shape::new(8, 8, 1024)], 32),
        case(grouped(128, 32), &[Shape::new(32, 32, 64)], 32),
        case(grouped(64, 64), &[Shape::new(16, 16, 64)], 256),
        case(MaxPool { window: Window::square(3, 2, 1), ceil: false }, &[Shape::new(64, 64, 64)], 32),
        case(AvgPool { window: Window::square(2, 2, 0), ceil: true }, &[Shape::new(32, 32, 64)], 32),
        case(AdaptivePool::global(Reduce::Max), &[last], 256),
        case(AdaptivePool::global(Reduce::Mean), &[last], 256),
        case(BatchNorm::running(), &[first], 256),
        case(BatchNorm::running(), &[last], 256),
        case(BatchNorm::last_batch(0.0), &[second], 256),
        case(Add, &[second; 2], 256),
        case(Scale { factor: 0.5 }, &[second], 256),
        case(ChannelScale, &[Shape::new(32, 32, 64), Shape::flat(64)], 64),
        case(SelfAttention { sym: false }, &[Shape::new(32, 32, 64)], 64),
        case(SelfAttention { sym: false }, &[Shape::new(8, 8, 256)], 64),
        case(Twist::published(64, 1), &[Shape::new(32, 32, 64)], 32),
        case(ConvTwist::sobel(64, 1, 2), &[Shape::new(32, 32, 64)], 32),
        case(fused, &[Shape::new(32, 32, 64); 2], 32),
        case(fused, &[Shape::new(32, 32, 64); 2], 1),
        case(Blur, &[Shape::new(64, 64, 64)], 32),
        case(Concat, &[Shape::new(32, 32, 64); 2], 32),
        case(ChannelShuffle { groups: 4 }, &[Shape::new(32, 32, 64)], 32),
        case(DropPath { p: 0.2 }, &[Shape::new(32, 32, 64)], 32),
        case(Flatten, &[Shape::new(32, 32, 3)], 256),
        case(Dropout { p: 0.2 }, &[second], 256),
        case(SoftmaxCrossEntropy, &[Shape::flat(10); 2], 256),
        case(SoftmaxCrossEntropy, &[Shape::flat(1000); 2], 256),
    ]
}

/// A case with the memory of both passes, so that a pass allocates nothing.
struct Bench {
    case: Case,
    output: Shape,
    x: Vec<Vec<f32>>,
    y: Vec<f32>,
    params: Vec<Vec<f32>>,
    states: Vec<Vec<f32>>,
    saved: Vec<Vec<f32>>,
    prepared: Vec<f32>,
    scratch: Vec<f32>,
    dy: Vec<f32>,
    dx: Vec<Vec<f32>>,
    dparams: Vec<Vec<f32>>,
}

fn noise(len: usize) -> Vec<f32> {
    let mut stream = Key::new(len as u64).stream();
    (0..len).map(|_| stream.uniform(-1.0, 1.0) as f32).collect()
}

impl Bench {
    fn new(case: Case) -> Self {
        let (op, n) = (case.op.op(), case.batch);
        let output = op.output(&case.inputs).expect("the case fits");
        let x: Vec<Vec<f32>> = case.inputs.iter().map(|s| noise(s.len() * n)).collect();
        let params: Vec<Vec<f32>> = op.params(&case.inputs).iter().map(|p| noise(p.layout.len())).collect();
        let states: Vec<Vec<f32>> = op.states(&case.inputs).iter().map(|s| vec![1.0; s.layout.len()]).collect();
        let mut prepared = vec![0.0; Cpu::kernel(op).prepared(&case.inputs, output)];
        let [p, s] = [&params, &states].map(|values| values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Cpu::kernel(op).prepare(&case.inputs, output, &p, &s, &mut prepared);
        Bench {
            output,
            y: vec![0.0; output.len() * n],
            prepared,
            states,
            saved: op.saved(&case.inputs, output).iter().map(|s| vec![0.0; s.per_image * n + s.fixed]).collect(),
            scratch: vec![0.0; Cpu::kernel(op).scratch(&case.inputs, output, n)],
            dy: noise(output.len() * n),
            dx: x.iter().map(|x| vec![0.0; x.len()]).collect(),
            dparams: params.iter().map(|p| vec![0.0; p.len()]).collect(),
            x,
            params,
            case,
        }
    }

    /// Such as `conv2d 256 × [28, 28, 16] → [14, 14, 32]`.
    fn name(&self) -> String {
        let Case { op, inputs, batch, .. } = &self.case;
        format!("{} {batch} × {} → {}", op.op().kind(), inputs[0], self.output)
    }

    fn forward(&mut self) {
        let n = self.case.batch;
        Cpu::kernel(self.case.op.op()).forward(Forward {
            training: !self.case.op.op().only_infers(),
            again: false,
            key: Key::new(1),
            x: self.x.iter().zip(&self.case.inputs).map(|(x, s)| view(s, n, x)).collect(),
            y: view_mut(&self.output, n, &mut self.y),
            in_place: false,
            params: self.params.iter().map(Vec::as_slice).collect(),
            states: self.states.iter_mut().map(Vec::as_mut_slice).collect(),
            saved: self.saved.iter_mut().map(Vec::as_mut_slice).collect(),
            prepared: &self.prepared,
            scratch: &mut self.scratch,
        });
    }

    fn backward(&mut self) {
        let (op, n) = (self.case.op.op(), self.case.batch);
        let inputs = &self.case.inputs;
        let kept = if op.keeps().inputs { &self.x[..] } else { &[] };
        Cpu::kernel(op).backward(Backward {
            training: true,
            key: Key::new(1),
            x: kept.iter().zip(inputs).map(|(x, s)| view(s, n, x)).collect(),
            y: if op.keeps().output { view(&self.output, n, &self.y) } else { view(&Shape::flat(0), 0, &[]) },
            dy: view_mut(&self.output, n, &mut self.dy),
            dx: self.dx.iter_mut().zip(inputs).map(|(dx, s)| Grad::Write(view_mut(s, n, dx))).collect(),
            params: self.params.iter().map(Vec::as_slice).collect(),
            dparams: self.dparams.iter_mut().map(|values| ParamGrad { values, add: false, needed: true }).collect(),
            saved: self.saved.iter().map(Vec::as_slice).collect(),
            scratch: &mut self.scratch,
        });
    }

    /// FLOPs of the forward pass; backward, the gradients of input and weights take as many each.
    fn flops(&self) -> f64 {
        self.case.batch as f64 * self.case.op.op().flops(&self.case.inputs, self.output) as f64
    }

    /// Bytes that a pass reads or writes at least.
    fn bytes(&self, backward: bool) -> f64 {
        let floats = |tensors: &[Vec<f32>]| tensors.iter().map(Vec::len).sum::<usize>();
        let (x, y) = (floats(&self.x), self.y.len());
        let (params, saved, keeps) = (floats(&self.params), floats(&self.saved), self.case.op.op().keeps());
        let kept = usize::from(keeps.inputs) * x + usize::from(keeps.output) * y;
        4.0 * (if backward { y + kept + saved + x + 2 * params } else { x + params + y + saved }) as f64
    }
}

fn view<'a>(shape: &Shape, n: usize, values: &'a [f32]) -> ArrayView4<'a, f32> {
    ArrayView4::from_shape((n, shape.h, shape.w, shape.c), values).expect("sizes fit")
}

fn view_mut<'a>(shape: &Shape, n: usize, values: &'a mut [f32]) -> ArrayViewMut4<'a, f32> {
    ArrayViewMut4::from_shape((n, shape.h, shape.w, shape.c), values).expect("sizes fit")
}

/// Benches one pass and prints achieved over floor, from the median of criterion's samples.
fn measure(c: &mut Criterion, name: &str, floor: Floor, mut pass: impl FnMut()) {
    let mut samples = Samples::default();
    c.bench_function(name, |b| samples.take(b, &WallTime, &mut pass));
    samples.print_share(floor);
}

fn passes(c: &mut Criterion) {
    let cases = cases();
    let benched = |case: &Case| cases.iter().any(|c| std::mem::discriminant(&c.op) == std::mem::discriminant(&case.op));
    let missing: Vec<String> = all_cases().iter().filter(|case| !benched(case)).map(Case::name).collect();
    assert!(missing.is_empty(), "ops without a bench: {missing:?}");
    let machine = Machine::measure();
    for case in cases {
        let mut bench = Bench::new(case);
        let name = bench.name();
        let floor = machine.floor(bench.flops(), bench.bytes(false));
        measure(c, &format!("forward {name}"), floor, || bench.forward());
        if bench.case.op.op().only_infers() {
            continue;
        }
        // Backward reads what forward saved, also where a filter left forward out.
        bench.forward();
        let floor = machine.floor(2.0 * bench.flops(), bench.bytes(true));
        measure(c, &format!("backward {name}"), floor, || bench.backward());
    }
}

criterion_group! {
    name = ops;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = passes
}
criterion_main!(ops);
