//! Inside a rayon pool neither a session's prediction nor a training step allocates, once each size has been run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use handgrad::Params;
use handgrad::backend::Cpu;
use handgrad::data::{
    Affine, Augment, Dataset, DatasetWriter, Erase, Flip, Jitter, Loader, LoaderConfig, RandomCrop, Split,
};
use handgrad::engine::Engine;
use handgrad::infer::{Model, in_pool};
use handgrad::io::model_file::{ModelInfo, Preprocessing};
use handgrad::io::tensorboard::EventFile;
use handgrad::models::{self, ModelOptions, Swap};
use handgrad::ops::Activation;
use handgrad::optim::{
    Adam, AdamConfig, Decay, Ema, Lamb, Lookahead, Muon, MuonConfig, Optimizer, ParamTable, Rates, RmsProp,
    RmsPropConfig, Sgd, SgdConfig,
};
use handgrad::rng::Key;
use ndarray::{Array2, Array4};

/// Counts every allocation of the process.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
/// One test at a time, or each would count the other's.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `work`. The test harness' own threads may allocate now and then: the least of several runs counts.
fn allocations(mut work: impl FnMut()) -> usize {
    let once = |work: &mut dyn FnMut()| {
        let before = COUNT.load(Ordering::Relaxed);
        work();
        COUNT.load(Ordering::Relaxed) - before
    };
    (0..5).map(|_| once(&mut work)).min().unwrap_or(0)
}

const MODELS: [&str; 4] = ["simplenet", "convnet2", "resnet", "resnet2"];
const BATCH: usize = 16;

fn images() -> Array4<f32> {
    let mut stream = Key::new(2).stream();
    Array4::from_shape_simple_fn((BATCH, 32, 32, 3), || stream.normal() as f32)
}

#[test]
fn the_counter_counts() {
    let _alone = ALONE.lock();
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))) > 0);
}

#[test]
fn sessions_do_not_allocate() {
    let _alone = ALONE.lock();
    for name in MODELS {
        let graph = models::build(name, &ModelOptions { published: false, ..Default::default() }).unwrap();
        let preprocessing = Preprocessing::new((32, 32), [0.5; 3], [0.25; 3]);
        let info = ModelInfo::new((0..10).map(|i| i.to_string()), preprocessing);
        let params = Params::<f32>::new(&graph, Key::new(1)).unwrap();
        let model = Model::from_parts(&graph, &params, info).unwrap();
        let mut session = model.session(BATCH).unwrap();
        let bytes = Array4::<u8>::from_elem((BATCH, 32, 32, 3), 77);
        let (normalised, mut out) = (images(), Array2::zeros((BATCH, 10)));
        for n in [1, BATCH] {
            let mut predict = || {
                let part = ndarray::s![..n, .., .., ..];
                session.predict_into(bytes.slice(part), out.slice_mut(ndarray::s![..n, ..])).unwrap();
                session.predict_normalised_into(normalised.slice(part), out.slice_mut(ndarray::s![..n, ..])).unwrap();
            };
            let count = in_pool(2, || {
                predict();
                allocations(&mut predict)
            });
            assert_eq!(count.unwrap(), 0, "{name}, {n} images");
        }
    }
}

/// Every optimizer's step, and the average of the weights.
#[test]
fn optimizers_do_not_allocate() {
    let _alone = ALONE.lock();
    let graph = models::build("convbnnet", &ModelOptions { published: false, ..Default::default() }).unwrap();
    let mut params = Params::<f32>::new(&graph, Key::new(1)).unwrap();
    let table = || ParamTable::of(&params, &[]).unwrap();
    let adam = |config| Box::new(Adam::<f32>::new(config, table()).unwrap());
    let optimizers: [(&str, Box<dyn Optimizer<f32>>); 5] = [
        ("adam", adam(AdamConfig::fastai(0.1))),
        ("rmsprop", Box::new(RmsProp::new(RmsPropConfig::DEFAULT, table()).unwrap())),
        ("lamb", Box::new(Lamb::new(AdamConfig::fastai(0.1), table()).unwrap())),
        ("muon", Box::new(Muon::new(MuonConfig::DEFAULT, table()).unwrap())),
        ("ranger", Box::new(Lookahead::new(adam(AdamConfig::ranger(0.1)), 2, 0.5).unwrap())),
    ];
    let mut ema = Ema::new(0.9, &params).unwrap();
    let grads = vec![0.01; params.values().len()];
    for (name, mut optimizer) in optimizers {
        let mut two_steps = || {
            for _ in 0..2 {
                optimizer.step(params.values_mut(), &grads, Rates::of(1e-3)).unwrap();
                ema.update(&params).unwrap();
            }
        };
        let count = in_pool(2, || {
            two_steps();
            allocations(&mut two_steps)
        });
        assert_eq!(count.unwrap(), 0, "{name}");
    }
}

/// The events of a step, also when they go to the file.
#[test]
fn events_of_steps_do_not_allocate() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let mut events = EventFile::create(folder.path(), 1).unwrap();
    let mut steps = 0..;
    let mut many = || {
        for step in steps.by_ref().take(2000) {
            events.write(step, |summary| summary.scalar("train/loss", 0.5)).unwrap();
        }
        events.sync().unwrap();
    };
    many();
    assert_eq!(allocations(many), 0);
}

#[test]
fn training_steps_do_not_allocate() {
    let _alone = ALONE.lock();
    let plain = MODELS.map(|name| {
        let dropout = if name == "resnet2" { 0.2 } else { 0.0 };
        (name, ModelOptions { published: false, dropout, ..Default::default() })
    });
    // Smooth activations, groups, squeeze-excitation, attention; twist layers.
    let xresnet = ModelOptions { act: Activation::Mish, sa: true, widen: 0.5, ..Default::default() };
    let twist = ModelOptions { swap: Swap::Published, ..xresnet.clone() };
    for (name, options) in plain.into_iter().chain([("xse_resnext18", xresnet), ("xse_resnext18", twist)]) {
        let graph = models::build(name, &options).unwrap();
        let mut engine = Engine::<Cpu>::new(&graph, BATCH, 1).unwrap();
        let table = ParamTable::of(engine.params(), &[]).unwrap();
        let config = SgdConfig { momentum: 0.9, nesterov: false, decay: Decay::Coupled(1e-4) };
        let mut sgd = Sgd::<f32>::new(config, table).unwrap();
        let images = images();
        let targets = Array2::from_elem((BATCH, 10), 0.1);
        let mut step = || {
            engine.train_step(images.view(), targets.view()).unwrap();
            let (values, grads, _) = engine.params_mut().split_mut();
            sgd.step(values, grads, Rates::of(1e-3)).unwrap();
        };
        let count = in_pool(2, || {
            step();
            allocations(&mut step)
        });
        assert_eq!(count.unwrap(), 0, "{name}");
    }
}

/// Batches of one epoch, after the first few: framed, mapped, coloured, erased and mixed.
#[test]
fn batches_do_not_allocate() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &["a".into(), "b".into()]).unwrap();
    for i in 0..400 {
        let (h, w) = (20 + i % 9, 24 - i % 5);
        writer.push(Split::Train, (i % 2) as u32, h, w, &vec![i as u8; 3 * h * w]).unwrap();
    }
    writer.finish().unwrap();
    let dataset = Arc::new(Dataset::open(&path).unwrap());
    let augment = Augment {
        flip: Flip::Random,
        mixup: 0.4,
        cutmix: 1.0,
        crop: Some(RandomCrop::default()),
        affine: Some(Affine { degrees: 10.0, ..Affine::default() }),
        jitter: Some(Jitter { contrast: 0.4, hue: 0.1, ..Jitter::default() }),
        erase: Some(Erase::default()),
        ..Augment::NONE
    };
    // One thread: a second might make its working memory at any time.
    let config = LoaderConfig { size: (16, 16), augment, threads: 1, ..LoaderConfig::train(&dataset, 4) };
    let loader = Loader::new(dataset, config).unwrap();
    // The first pass checks pages, the first batches of any make what their thread works with.
    let mut batches = 0;
    let least = (0..4).map(|number| {
        let mut epoch = loader.epoch(number, 0).unwrap();
        epoch.by_ref().take(20).for_each(|batch| drop(batch.unwrap()));
        let before = COUNT.load(Ordering::Relaxed);
        batches = epoch.by_ref().map(Result::unwrap).count();
        COUNT.load(Ordering::Relaxed) - before
    });
    assert_eq!(least.min(), Some(0));
    assert_eq!(batches, 80);
}
