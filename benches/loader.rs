//! Images per second and core of the loader.
//!
//! `cargo bench --bench loader`. CIFAR-10's images with the augmentation that its progression trains with, by criterion;
//! then photographs of 256-pixel sides, cropped at random, brought to 224×224, mirrored and normalised, beside the rate
//! that ffcv publishes for that work on one core. The images are random bytes, which the loader treats as any others.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group};
use handgrad::data::{
    Affine, Augment, Dataset, DatasetWriter, Erase, Flip, Jitter, Loader, LoaderConfig, MAX_SIDE, Normalise,
    RandomCrop, Shuffle, Split,
};
use handgrad::resample::Framing;
use handgrad::rng::Key;

/// Images a second and core that ffcv publishes for random crops of 224 from records of 256-pixel JPEGs.
const FFCV: f64 = 1800.0;
const BATCH: usize = 128;

/// `count` images of random bytes whose sizes `size` draws.
fn dataset(count: u64, size: impl Fn(u64) -> (usize, usize)) -> Arc<Dataset> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bench.hgd");
    let classes: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let mut writer = DatasetWriter::create(&path, &classes).expect("a writable folder");
    let mut random = Key::new(0).stream();
    for i in 0..count {
        let (h, w) = size(i);
        assert!(h.max(w) <= MAX_SIDE);
        let pixels: Vec<u8> = (0..(h * w * 3).div_ceil(8)).flat_map(|_| random.u64().to_le_bytes()).collect();
        writer.push(Split::Train, (i % 10) as u32, h, w, &pixels[..h * w * 3]).expect("a valid image");
    }
    writer.finish().expect("space for the images");
    // The map outlives the name of its file.
    Arc::new(Dataset::open(&path).expect("what was just written"))
}

fn epoch(loader: &Loader, epoch: u64) {
    for batch in loader.epoch(epoch, 0).expect("threads") {
        black_box(batch.expect("an undamaged dataset").images_slice()[0]);
    }
}

fn small(c: &mut Criterion) {
    const IMAGES: u64 = 10_000;
    let dataset = dataset(IMAGES, |_| (32, 32));
    let mut group = c.benchmark_group("loader");
    group.throughput(Throughput::Elements(IMAGES)).sample_size(20);
    for (name, augment) in [("plain", Augment::NONE), ("cifar augmentation", Augment::CIFAR)] {
        for (order, shuffle) in [("full", Shuffle::Full), ("pages", Shuffle::Pages { window: 4 })] {
            for threads in [1, 2] {
                let config = LoaderConfig { augment, threads, shuffle, ..LoaderConfig::train(&dataset, BATCH) };
                let loader = Loader::new(Arc::clone(&dataset), config).expect("a valid configuration");
                let mut number = 0;
                group.bench_function(format!("{name}, {order} shuffle, threads {threads}"), |b| {
                    b.iter(|| {
                        number += 1;
                        epoch(&loader, number);
                    });
                });
            }
        }
    }
    group.finish();
}

/// The best rate of several epochs: other work on the machine only ever slows one down.
fn rate(dataset: &Arc<Dataset>, config: &LoaderConfig) -> f64 {
    let loader = Loader::new(Arc::clone(dataset), config.clone()).expect("a valid configuration");
    let images = loader.images_per_epoch() as f64;
    let began = Instant::now();
    let mut best = 0.0f64;
    for number in 0.. {
        let start = Instant::now();
        epoch(&loader, number);
        best = best.max(images / start.elapsed().as_secs_f64());
        if number >= 4 && began.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    best
}

fn photographs() {
    // The shorter side 256, the longer one up to 384: the shapes of common photographs.
    let dataset = dataset(512, |i| {
        let long = 256 + (i as usize * 37) % 129;
        if i % 3 == 0 { (long, 256) } else { (256, long) }
    });
    println!("\nphotographs of 256-pixel sides, one thread: images per second and core");
    let crop = |min_scale| Some(RandomCrop { min_scale, ..RandomCrop::default() });
    let random = |min_scale| Augment { crop: crop(min_scale), flip: Flip::Random, ..Augment::NONE };
    let (none, exact) = (Augment::NONE, Framing::Exact);
    let colours = Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, ..Jitter::default() };
    let hue = Jitter { hue: 0.1, ..colours };
    let turn = Affine { degrees: 10.0, scale: [0.9, 1.1], ..Affine::default() };
    let with = |jitter, affine| Augment { jitter, affine, ..random(0.35) };
    let always = Erase { p: 1.0, ..Erase::default() };
    for (name, size, framing, augment) in [
        ("random crop .08 to 1, flip, 224", 224, exact, random(0.08)),
        ("random crop .35 to 1, flip, 224", 224, exact, random(0.35)),
        ("random crop .35 to 1, flip, 128", 128, exact, random(0.35)),
        ("the same and MixUp", 128, exact, Augment { mixup: 0.4, ..random(0.35) }),
        ("the same and CutMix", 128, exact, Augment { cutmix: 1.0, ..random(0.35) }),
        ("the same and erasing, p 1", 128, exact, Augment { erase: Some(always), ..random(0.35) }),
        ("the same and colours without hue", 128, exact, with(Some(colours), None)),
        ("the same and colours with hue", 128, exact, with(Some(hue), None)),
        ("the same and affine map", 128, exact, with(None, Some(turn))),
        ("squash to 152, centre 128", 128, Framing::Squash { to: (152, 152) }, none),
        ("shorter side 256, centre 224", 224, Framing::Shorter { to: 256 }, none),
    ] {
        let config = LoaderConfig {
            size: (size, size),
            framing,
            augment,
            normalise: Normalise::IMAGENET,
            threads: 1,
            ..LoaderConfig::train(&dataset, BATCH)
        };
        let rate = rate(&dataset, &config);
        println!("  {name:34} {rate:7.0}");
    }
    println!("  ffcv's published rate for the first  {FFCV:5.0}");
}

criterion_group!(benches, small);

fn main() {
    benches();
    photographs();
    Criterion::default().configure_from_args().final_summary();
}
