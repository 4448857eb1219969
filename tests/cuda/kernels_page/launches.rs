//! A launch of every kernel, with what the driver double counted.

use std::collections::BTreeMap;
use std::path::Path;

use handgrad::backend::cuda::{Buffer, Gpu};
use handgrad::backend::{Cuda, Precision};
use handgrad::graph::Shape;
use handgrad::ops::cases::Case;
use handgrad::ops::conformance::{Delivery, Operands, Run, run_on_device};
use handgrad::ops::{
    Activation, AdaptivePool, Add, AvgPool, BatchNorm, Blur, ChannelScale, ChannelShuffle, Concat, Conv2d, ConvTwist,
    DropPath, Dropout, Flatten, MaxPool, OpSpec, Reduce, Scale, SelfAttention, SoftmaxCrossEntropy, Twist, Window,
    all_cases, cuda_kernels,
};
use handgrad::optim::{OnDevice, Rates};
use serde::Deserialize;

use crate::optim::{LEN, noise, optimizers, train};

/// A line of the double's report, and what launched it.
#[derive(Clone, Debug, Deserialize)]
pub struct Launch {
    #[serde(skip)]
    pub case: String,
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub arguments: Vec<Vec<u8>>,
    pub room: Vec<u64>,
    pub warp_instructions: u64,
    pub global_loads: Traffic,
    pub global_stores: Traffic,
    pub bank_conflicts: u64,
    pub mma_flops: u64,
    pub by_class: BTreeMap<String, u64>,
}

/// Accesses to global memory, in sectors of 32 bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Traffic {
    pub transactions: u64,
    pub ideal: u64,
    pub distinct: u64,
}

/// The first launch of each kernel by layers of usual sizes, of those that these don't launch by the cases of conformance.
pub fn all(report: &Path) -> BTreeMap<String, Launch> {
    let mut found = Found { report, read: 0, launches: BTreeMap::new() };
    for case in typical() {
        found.run(&case, Precision::F32);
    }
    for case in on_tensor_cores() {
        found.run(&case, Precision::Tf32);
    }
    let gpu = Gpu::current().unwrap();
    for optimizer in optimizers() {
        let (values, grads) = (Buffer::of(gpu, &noise(0)).unwrap(), Buffer::of(gpu, &noise(1)).unwrap());
        let (on, mut stepped) = (OnDevice { gpu, values: values.ptr(), grads: grads.ptr() }, (optimizer.make)());
        // Lookahead looks after three steps.
        for _ in 0..3 {
            if let Some(max_norm) = optimizer.clip {
                assert!(stepped.clip_on_device(on, max_norm).unwrap());
            }
            assert!(stepped.step_on_device(on, Rates::of(0.01)).unwrap());
        }
        found.gather(&format!("a step of {} on {LEN} numbers", optimizer.what));
    }
    crate::pixels::send_bytes();
    found.gather("4 images of 32 × 32 pixels");
    train::<Cuda>(true);
    found.gather("four steps of convbnnet with an average of its weights");
    for case in all_cases().iter().filter(|case| case.op.op().cuda().is_some()) {
        if cuda_kernels().iter().all(|kernel| found.launches.contains_key(kernel.name)) {
            break;
        }
        found.run(case, Precision::F32);
    }
    found.launches
}

struct Found<'a> {
    report: &'a Path,
    read: usize,
    launches: BTreeMap<String, Launch>,
}

impl Found<'_> {
    fn run(&mut self, case: &Case, precision: Precision) {
        let operands = Operands::random(case, 2);
        let passes: &[Run] = if case.op.op().only_infers() { &[Run::Eval] } else { &[Run::Train, Run::Eval] };
        for &passes in passes {
            let ran = run_on_device(case, &operands, passes, Delivery::Write, precision);
            ran.unwrap_or_else(|e| panic!("{}: {e}", case.name()));
        }
        let of = if precision == Precision::F32 { String::new() } else { format!(" in {precision}") };
        self.gather(&(case.name() + &of));
    }

    /// Takes in what was launched since the last call.
    fn gather(&mut self, case: &str) {
        let text = std::fs::read_to_string(self.report).unwrap();
        for line in text[self.read..].lines() {
            let launch: Launch = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let launch = Launch { case: case.to_owned(), ..launch };
            self.launches.entry(launch.kernel.clone()).or_insert(launch);
        }
        self.read = text.len();
    }
}

fn conv(channels: usize, kernel: usize, side: usize, c: usize, n: usize) -> Case {
    Case::new(Conv2d::square(channels, kernel, 1, kernel / 2), &[Shape::new(side, side, c)], n)
}

/// Convolutions for which each of the tiles on tensor cores is chosen.
fn on_tensor_cores() -> Vec<Case> {
    vec![
        conv(512, 1, 56, 16, 1),
        conv(16, 1, 56, 512, 1),
        conv(64, 1, 32, 16, 32),
        conv(16, 1, 32, 64, 32),
        conv(16, 3, 32, 96, 1),
        conv(1024, 1, 4, 2048, 1),
        conv(1024, 1, 4, 1024, 1),
    ]
}

/// Layers of usual sizes on a few images, so that interpreting them takes seconds.
fn typical() -> Vec<Case> {
    let map = Shape::new(32, 32, 64);
    let of = |op: OpSpec, inputs: &[Shape]| Case::new(op, inputs, 8);
    let mut cases: Vec<Case> = [
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.01 },
        Activation::GeneralRelu { leak: 0.1, sub: 0.4, maxv: Some(6.0) },
        Activation::Mish,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::Softplus,
    ]
    .into_iter()
    .map(|op| of(op.into(), &[map]))
    .collect();
    let adaptive = |reduce| AdaptivePool { reduce, output: (1, 1) }.into();
    cases.extend([
        of(Add.into(), &[map, map]),
        of(Flatten.into(), &[map]),
        of(Scale { factor: 0.125 }.into(), &[map]),
        of(BatchNorm::running().into(), &[map]),
        of(MaxPool { window: Window::square(3, 2, 1), ceil: false }.into(), &[map]),
        of(AvgPool { window: Window::square(2, 2, 0), ceil: false }.into(), &[map]),
        of(Blur.into(), &[map]),
        of(adaptive(Reduce::Mean), &[Shape::new(8, 8, 512)]),
        of(adaptive(Reduce::Max), &[Shape::new(8, 8, 512)]),
        of(ChannelScale.into(), &[map, Shape::flat(64)]),
        of(ChannelShuffle { groups: 4 }.into(), &[map]),
        of(Concat.into(), &[map, map]),
        of(Dropout { p: 0.5 }.into(), &[map]),
        of(DropPath { p: 0.2 }.into(), &[map]),
        Case::new(SoftmaxCrossEntropy, &[Shape::flat(100); 2], 256),
        of(SelfAttention { sym: false }.into(), &[Shape::new(16, 16, 64)]),
        of(Twist::published(64, 1).into(), &[Shape::new(16, 16, 16)]),
        of(ConvTwist::sobel(64, 1, 4).into(), &[Shape::new(16, 16, 64)]),
        of(ConvTwist::free(32, 1).into(), &[Shape::new(16, 16, 16)]),
    ]);
    // Each of the tiles is chosen for one of these.
    let grouped = |channels, groups, c| {
        let conv = Conv2d { groups, ..Conv2d::square(channels, 3, 1, 1) };
        of(conv.into(), &[Shape::new(28, 28, c)])
    };
    cases.extend([
        conv(512, 1, 56, 16, 1),
        conv(16, 1, 56, 512, 1),
        conv(96, 3, 28, 256, 1),
        conv(64, 1, 32, 16, 32),
        conv(16, 1, 32, 64, 32),
        conv(16, 3, 32, 96, 1),
        conv(16, 1, 56, 16, 4),
        conv(64, 3, 8, 64, 4),
        conv(96, 3, 56, 3, 2),
        conv(10, 3, 32, 3, 4),
        grouped(64, 64, 64),
        grouped(64, 8, 64),
        grouped(33, 11, 33),
    ]);
    cases
}
