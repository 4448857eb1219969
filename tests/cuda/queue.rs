//! Steps that are queued before the last one's loss is known, on a double that does nothing before somebody waits for it: a
//! copy that is not waited for, or a buffer that is used again too early, changes a number or is a fault.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use handgrad::ErrorKind;
use handgrad::backend::{Backend, Cpu, Cuda};
use handgrad::data::Dataset;
use handgrad::engine::{Accumulate, Engine, Outcome};
use handgrad::models::{self, ModelOptions};
use handgrad::optim::{Decay, Optimizer, ParamTable, Rates, Sgd, SgdConfig, Update};
use handgrad::recipe::Recipe;
use handgrad::rng::Key;
use handgrad::train::{self, Event, Job, RunFolder};
use ndarray::{Array2, Array4};

use super::double::on_double_with;

/// Runs `test`, the body of the test called `name`, where the driver is late, and where copies to the device are early.
pub fn on_late_double(name: &str, test: impl Fn()) {
    const LATE: &str = "DRIVER_DOUBLE_LATE";
    if std::env::var_os(LATE).is_some() {
        return on_double_with(name, &[], test);
    }
    for late in ["1", "2"] {
        on_double_with(name, &[(LATE, OsStr::new(late))], &test);
    }
}

fn engine<B: Backend<Elem = f32>>() -> Engine<B> {
    let options = ModelOptions { size: 8, published: false, norm_eps: Some(1e-3), ..Default::default() };
    let mut engine = Engine::<B>::new(&models::build("convbnnet", &options).unwrap(), 4, 1).unwrap();
    engine.keep_on_device(true);
    engine
}

fn sgd(engine: &Engine<impl Backend<Elem = f32>>) -> Box<dyn Optimizer<f32>> {
    let config = SgdConfig { momentum: 0.9, nesterov: true, decay: Decay::Coupled(1e-3) };
    Box::new(Sgd::new(config, ParamTable::of(engine.params(), &[]).unwrap()).unwrap())
}

/// Batches of several sizes.
fn batches() -> Vec<(Array4<f32>, Array2<f32>)> {
    let mut stream = Key::new(3).stream();
    let mut batch = |(step, n): (usize, usize)| {
        let images = Array4::from_shape_simple_fn((n, 8, 8, 3), || stream.normal() as f32);
        (images, Array2::from_shape_fn((n, 10), |(i, j)| f32::from((3 * i + step) % 10 == j)))
    };
    [4, 3, 4, 2, 3, 4, 4].into_iter().enumerate().map(&mut batch).collect()
}

/// Trains, two batches to a step where they are accumulated, and gives what each batch came to and the weights at the end.
fn trained<B: Backend<Elem = f32>>(queued: bool, accumulate: usize) -> (Vec<Outcome>, Vec<f32>) {
    let mut engine = engine::<B>();
    let mut optimizer = sgd(&engine);
    let mut outcomes = Vec::new();
    for group in batches().chunks(accumulate) {
        let total = group.iter().map(|(images, _)| images.dim().0).sum();
        for (i, (images, targets)) in group.iter().enumerate() {
            let share = Accumulate { total, add: i > 0 };
            // An array of its own, which is gone when the next one is sent.
            let images = images.clone();
            if queued {
                engine.queue_micro_step(images.view(), targets.view(), share).unwrap();
            } else {
                outcomes.push(engine.train_micro_step(images.view(), targets.view(), share).unwrap());
            }
        }
        let rates = Rates::of(0.01);
        engine.update(Update { optimizer: &mut *optimizer, rates, clip_norm: None, ema: None, last: false }).unwrap();
        outcomes.extend(engine.outcome(false).unwrap());
    }
    while let Some(outcome) = engine.outcome(true).unwrap() {
        outcomes.push(outcome);
    }
    engine.fetch().unwrap();
    (outcomes, [engine.params().values(), engine.params().states()].concat())
}

#[test]
fn queued_steps_come_to_the_same() {
    on_late_double("queue::queued_steps_come_to_the_same", || {
        for accumulate in [1, 2] {
            let (waited, cpu) = (trained::<Cuda>(false, accumulate), trained::<Cpu>(false, accumulate));
            assert_eq!(trained::<Cuda>(true, accumulate), waited);
            assert_eq!(trained::<Cpu>(true, accumulate), cpu);
            assert_eq!(waited.0.len(), batches().len());
            for (gpu, cpu) in waited.0.iter().zip(&cpu.0) {
                // Batch-norm over two images lets rounding grow.
                assert!((gpu.loss - cpu.loss).abs() < 2e-3 * cpu.loss, "{gpu:?} {cpu:?}");
            }
        }
    });
}

#[test]
fn evaluation_and_steps_that_are_waited_for_come_between_queued_ones() {
    on_late_double("queue::evaluation_and_steps_that_are_waited_for_come_between_queued_ones", || {
        let mut engine = engine::<Cuda>();
        let (images, targets) = batches().swap_remove(0);
        let share = Accumulate { total: 4, add: false };
        let loss = engine.evaluate(images.view(), targets.view()).unwrap().loss;
        let step = engine.train_step(images.view(), targets.view()).unwrap();
        for _ in 0..5 {
            engine.queue_micro_step(images.view(), targets.view(), share).unwrap();
        }
        // Nothing was updated: each step is the same. What was queued before is not lost.
        assert_eq!(engine.train_step(images.view(), targets.view()).unwrap(), step);
        engine.queue_micro_step(images.view(), targets.view(), share).unwrap();
        assert_ne!(engine.evaluate(images.view(), targets.view()).unwrap().loss, loss, "the statistics have moved");
        let mut outcomes = Vec::new();
        while let Some(outcome) = engine.outcome(false).unwrap() {
            outcomes.push(outcome);
        }
        assert_eq!(outcomes, [step; 6]);
    });
}

#[test]
fn a_loss_that_is_no_number_is_told_late_and_names_its_step() {
    on_late_double("queue::a_loss_that_is_no_number_is_told_late_and_names_its_step", || {
        let mut engine = engine::<Cuda>();
        for (step, (mut images, targets)) in batches().into_iter().enumerate() {
            if step == 2 {
                images[[0, 3, 3, 1]] = f32::NAN;
            }
            let share = Accumulate { total: images.dim().0, add: false };
            engine.queue_micro_step(images.view(), targets.view(), share).unwrap();
            match engine.outcome(false) {
                Ok(outcome) => assert!(step < 3 && outcome.is_some() == (step > 0), "{step}: {outcome:?}"),
                Err(e) => {
                    assert_eq!((step, e.kind(), e.subject()), (3, ErrorKind::NonFinite, "step 2"), "{e}");
                    return;
                }
            }
        }
        panic!("nobody noticed");
    });
}

#[test]
fn a_lack_of_memory_says_how_much_was_asked_for() {
    let small = [("DRIVER_DOUBLE_MEMORY", OsStr::new("1"))];
    on_double_with("queue::a_lack_of_memory_says_how_much_was_asked_for", &small, || {
        let graph = models::build("resnet2", &ModelOptions::default()).unwrap();
        let error = Engine::<Cuda>::new(&graph, 64, 1).err().expect("an arena of more than a MiB");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Device, "{text}");
        assert!(text.contains(" bytes (") && text.contains("of memory") && text.contains("smaller batch"), "{text}");
    });
}

const RECIPE: &str = r#"
title = "tiny"
[model]
name = "simplenet"
[data]
dataset = "data.hgd"
size = 32
batch = 4
augment = "cifar"
[optimizer]
momentum = 0.9
accumulate = 2
[[phase]]
lr = 0.005
epochs = 1
"#;

/// A run of the recipe, which `stop` may end at a step; the losses of its steps and its last epoch.
fn run(place: &Path, out: &str, resume: bool, mut stop: impl FnMut(usize) -> ControlFlow<()>) -> (Vec<f64>, String) {
    let recipe = Recipe::parse(RECIPE, "tiny.toml").unwrap();
    let dataset = Arc::new(Dataset::open(place.join("data.hgd")).unwrap());
    let out = place.join(out);
    let folder = if resume { RunFolder::open(Some(&out), "tiny") } else { RunFolder::create(Some(&out), "tiny") };
    let job = Job { recipe, dataset, folder: folder.unwrap(), resume, other_simd: false, from: None };
    let (stopped, mut losses) = (AtomicBool::new(false), Vec::new());
    let report = train::run::<Cuda>(&job, &stopped, |event| {
        if let Event::Step { batch, loss, .. } = event {
            losses.push(loss);
            stopped.store(stop(batch.0).is_break(), Ordering::Relaxed);
        }
    });
    let last = match report {
        Ok(report) => format!("{:?}", (report.last.train_loss, report.last.valid_loss, report.last.accuracy)),
        Err(e) => format!("{:?}", e.kind()),
    };
    (losses, last)
}

#[test]
fn a_run_that_is_stopped_saves_what_its_weights_have_seen() {
    on_late_double("queue::a_run_that_is_stopped_saves_what_its_weights_have_seen", || {
        let place = tempfile::tempdir().unwrap();
        let config = handgrad::data::synth::SynthConfig { train: 30, valid: 8, size: 32, seed: 0 };
        handgrad::data::synth::write(&config, &place.path().join("data.hgd")).unwrap();
        let whole = run(place.path(), "whole", false, |_| ControlFlow::Continue(()));
        assert_eq!(whole.0.len(), 4);
        let stop = |batch| if batch == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let (first, why) = run(place.path(), "stopped", false, stop);
        // The loss of the first step is known when the second is queued.
        assert_eq!((first.as_slice(), why.as_str()), (&whole.0[..2], "Interrupted"));
        let (rest, last) = run(place.path(), "stopped", true, |_| ControlFlow::Continue(()));
        assert_eq!((rest.as_slice(), &last), (&whole.0[2..], &whole.1));
    });
}
