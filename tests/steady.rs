//! After its first steps a training takes no more memory, however long it lasts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};

use handgrad::backend::{Cpu, Host, Real, Reference};
use handgrad::data::Dataset;
use handgrad::data::synth::{self, SynthConfig};
use handgrad::engine::{Accumulate, Engine};
use handgrad::infer::in_pool;
use handgrad::models::{self, ModelOptions};
use handgrad::optim::{Decay, Optimizer, ParamTable, Rates, Sgd, SgdConfig, clip_grad_norm};
use handgrad::recipe::Recipe;
use handgrad::rng::Key;
use handgrad::train::{self, Event, Job, RunFolder};
use ndarray::{Array2, Array4, s};

/// Counts the calls and the bytes of the whole process.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged. Zeroed memory and larger blocks come by way of `alloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, or another one's allocations would count too.
#[test]
fn memory_is_steady() {
    for (name, published) in [("convnet2", false), ("resnet2", false), ("resnet", false), ("quickstart", false)] {
        for batch in [12, 3] {
            assert_eq!(allocations_of_steps::<Cpu>(name, published, batch), 0, "{name}, batch {batch}");
        }
    }
    assert_eq!(allocations_of_steps::<Reference>("simplenet", false, 2), 0, "reference");
    epochs_do_not_grow();
}

/// Allocations of four steps, each of two micro-batches of different size, clipping, optimizer and evaluation, after
/// two such steps. A thread of the pool allocates when it first looks for work: the least of several fours counts.
fn allocations_of_steps<B: Host>(name: &str, published: bool, batch: usize) -> usize {
    let options = ModelOptions { published, size: 32, ..Default::default() };
    let graph = models::build(name, &options).unwrap();
    let mut engine = Engine::<B>::new(&graph, batch, 1).unwrap();
    let config = SgdConfig { momentum: 0.9, nesterov: true, decay: Decay::Coupled(1e-4) };
    let mut sgd = Sgd::new(config, ParamTable::of(engine.params(), &[]).unwrap()).unwrap();
    let mut noise = Key::new(2).stream();
    let images = Array4::from_shape_simple_fn((batch, 32, 32, 3), || B::Elem::of(noise.normal()));
    let targets = Array2::from_elem((batch, 10), B::Elem::of(0.1));
    let mut step = || {
        for (part, add) in [(batch, false), (batch / 2, true)] {
            let share = Accumulate { total: batch + batch / 2, add };
            engine
                .train_micro_step(images.slice(s![..part, .., .., ..]), targets.slice(s![..part, ..]), share)
                .unwrap();
        }
        let (values, grads, _) = engine.params_mut().split_mut();
        clip_grad_norm(grads, sgd.table(), 1.0).unwrap();
        sgd.step(values, grads, Rates::of(1e-3)).unwrap();
        engine.evaluate(images.view(), targets.view()).unwrap();
    };
    in_pool(2, || {
        (0..2).for_each(|_| step());
        let mut four_steps = || {
            let before = CALLS.load(Ordering::Relaxed);
            (0..4).for_each(|_| step());
            CALLS.load(Ordering::Relaxed) - before
        };
        (0..4).map(|_| four_steps()).min().unwrap_or(0)
    })
    .unwrap()
}

/// Resident bytes, where the system tells.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// A whole training with loaders, checkpoints, pictures: what it holds after epoch 8 is what it held after epoch 2.
fn epochs_do_not_grow() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.hgd");
    synth::write(&SynthConfig { train: 400, valid: 100, size: 32, seed: 1 }, &data).unwrap();
    let mut recipe = Recipe::builtin("quickstart").unwrap();
    recipe.set("data.batch=64").unwrap();
    recipe.set("train.checkpoint_minutes=0.0001").unwrap();
    recipe.set_epochs(8).unwrap();
    let dataset = Arc::new(Dataset::open(&data).unwrap());
    let run = RunFolder::create(Some(&folder.path().join("run")), "").unwrap();
    let job = Job { recipe, dataset, folder: run, resume: false, other_simd: false, from: None };
    let mut held = Vec::new();
    let stop = AtomicBool::new(false);
    let done = in_pool(2, || {
        train::run::<Cpu>(&job, &stop, |event| {
            if let Event::Epoch(_) = event {
                held.push((LIVE.load(Ordering::Relaxed), resident()));
            }
        })
    });
    done.unwrap().unwrap();
    let ((live, pages), (live_last, pages_last)) = (held[1], held[7]);
    // The list of epochs grows, and a thread more or less may be ending.
    assert!(live_last - live < 64 << 10, "{held:?}");
    assert!(pages_last < pages + (4 << 20), "{held:?}");
}
