//! Images per second of the loader: CIFAR-10's images with the augmentation that its progression trains with.
//!
//! `cargo bench --bench loader`. Throughput is printed as elements (images) per second; the images are random bytes,
//! which the loader treats as any others.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use handgrad::data::{Augment, Dataset, DatasetWriter, Loader, LoaderConfig, Shuffle, Split};
use handgrad::rng::Key;

const IMAGES: u64 = 10_000;
const BATCH: usize = 128;

fn dataset() -> Arc<Dataset> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bench.hgd");
    let classes: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let mut writer = DatasetWriter::create(&path, &classes).expect("a writable folder");
    let mut random = Key::new(0).stream();
    for i in 0..IMAGES {
        let pixels: Vec<u8> = (0..32 * 32 * 3).map(|_| random.u64() as u8).collect();
        writer.push(Split::Train, (i % 10) as u32, 32, 32, &pixels).expect("a valid image");
    }
    writer.finish().expect("space for 31 MB");
    // The map outlives the name of its file.
    Arc::new(Dataset::open(&path).expect("what was just written"))
}

fn loader(c: &mut Criterion) {
    let dataset = dataset();
    let mut group = c.benchmark_group("loader");
    group.throughput(Throughput::Elements(IMAGES)).sample_size(20);
    for (name, augment) in [("plain", Augment::NONE), ("cifar augmentation", Augment::CIFAR)] {
        for (order, shuffle) in [("full", Shuffle::Full), ("pages", Shuffle::Pages { window: 4 })] {
            for threads in [1, 2] {
                let config = LoaderConfig { augment, threads, shuffle, ..LoaderConfig::train(&dataset, BATCH) };
                let loader = Loader::new(Arc::clone(&dataset), config).expect("a valid configuration");
                let mut epoch = 0;
                group.bench_function(format!("{name}, {order} shuffle, threads {threads}"), |b| {
                    b.iter(|| {
                        epoch += 1;
                        for batch in loader.epoch(epoch, 0).expect("threads") {
                            black_box(batch.expect("an undamaged dataset").images_slice()[0]);
                        }
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, loader);
criterion_main!(benches);
