//! Images that the device makes of bytes, against those that the loader makes: the same bits.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use handgrad::ErrorKind;
use handgrad::backend::{Backend, Cpu, Cuda};
use handgrad::data::{
    Augment, Batch, Dataset, DatasetWriter, Flip, Loader, LoaderConfig, Normalise, RandomCrop, Split,
};
use handgrad::engine::{Accumulate, Engine};
use handgrad::graph::{Graph, Shape};
use handgrad::ops::Flatten;
use handgrad::plan::Pixels;
use handgrad::recipe::Recipe;
use handgrad::resample::Framing;
use handgrad::rng::Key;
use handgrad::train::train_config;

use super::queue::on_late_double;

/// Random images of one size.
fn dataset(folder: &Path, (height, width): (usize, usize)) -> Arc<Dataset> {
    let path = folder.join(format!("{height}x{width}.hgd"));
    let mut writer = DatasetWriter::create(&path, &["a".into(), "b".into()]).unwrap();
    let mut stream = Key::new(8).stream();
    for i in 0..7 {
        let pixels: Vec<u8> = (0..height * width * 3).map(|_| stream.below(256) as u8).collect();
        let split = if i < 6 { Split::Train } else { Split::Valid };
        writer.push(split, i % 2, height, width, &pixels).unwrap();
    }
    writer.finish().unwrap();
    Arc::new(Dataset::open(&path).unwrap())
}

/// A model that puts out its input.
fn mirror<B: Backend<Elem = f32>>((height, width): (usize, usize)) -> Engine<B> {
    let mut graph = Graph::new(Shape::new(height, width, 3));
    graph.node("out", Flatten, &[graph.images()]).unwrap();
    Engine::new(&graph, 4, 0).unwrap()
}

/// A batch of bytes that becomes images.
pub fn send_bytes() {
    let (bytes, table) = (vec![7; 4 * 32 * 32 * 3], vec![0.5; 3 * 256]);
    let placements = [[3, -4, 0, 0], [0, 0, 0, 0], [-4, 1, 1, 0], [2, -2, 1, 1]];
    let targets = ndarray::Array2::from_elem((4, 32 * 32 * 3), 0.01);
    let pixels = Pixels { bytes: &bytes, placements: &placements, table: &table };
    let mut engine = mirror::<Cuda>((32, 32));
    engine.queue_pixels(pixels, targets.view(), Accumulate { total: 4, add: false }).unwrap();
    engine.outcome(true).unwrap();
}

/// The bits of a batch's images as the engine's model got them.
fn seen(engine: &mut Engine<Cuda>, batch: &Batch) -> Vec<u32> {
    let share = Accumulate { total: batch.len(), add: false };
    match batch.pixels() {
        Some(pixels) => engine.queue_pixels(pixels, batch.targets(), share).unwrap(),
        None => engine.queue_micro_step(batch.images(), batch.targets(), share).unwrap(),
    }
    assert!(engine.outcome(true).unwrap().is_some());
    engine.train_scores(batch.len()).iter().map(|v| v.to_bits()).collect()
}

/// Two epochs of a loader, on the device and as the loader makes numbers of them; whether they went as bytes.
fn compare(dataset: &Arc<Dataset>, config: &LoaderConfig) -> bool {
    let pixels = config.keeps_bytes();
    let (height, width) = config.size;
    let config = LoaderConfig { batch: 4, outputs: 3 * height * width, threads: 1, ..config.clone() };
    let as_bytes = Loader::new(Arc::clone(dataset), LoaderConfig { pixels, ..config.clone() }).unwrap();
    let as_numbers = Loader::new(Arc::clone(dataset), config.clone()).unwrap();
    let mut engine = mirror(config.size);
    for epoch in 0..2 {
        for (bytes, numbers) in as_bytes.epoch(epoch, 0).unwrap().zip(as_numbers.epoch(epoch, 0).unwrap()) {
            let (bytes, numbers) = (bytes.unwrap(), numbers.unwrap());
            assert_eq!((bytes.pixels().is_some(), numbers.pixels().is_some()), (pixels, false));
            let expected: Vec<u32> = numbers.images_slice().iter().map(|v| v.to_bits()).collect();
            assert_eq!(expected.len(), bytes.len() * 3 * height * width);
            assert!(seen(&mut engine, &bytes) == expected, "{:?}", config.augment);
            let on_host: Vec<u32> = bytes.images_slice().iter().map(|v| v.to_bits()).collect();
            assert!(on_host == expected, "{:?}", config.augment);
            assert_eq!(bytes.targets(), numbers.targets());
        }
    }
    pixels
}

#[test]
fn built_in_recipes_see_the_same_images() {
    on_late_double("pixels::built_in_recipes_see_the_same_images", || {
        let folder = tempfile::tempdir().unwrap();
        let (exact, large) = (dataset(folder.path(), (32, 32)), dataset(folder.path(), (41, 47)));
        let (mut ways, mut as_bytes) = (BTreeSet::new(), Vec::new());
        for recipe in Recipe::builtins() {
            let mut recipe = recipe.unwrap();
            // Smaller images: what happens to them is the same.
            recipe.data.size = 32;
            let config = train_config(&recipe, &exact);
            if !ways.insert(format!("{:?} {:?} {:?}", config.augment, config.framing, config.normalise)) {
                continue;
            }
            let resampled = config.augment.crop.is_some() || config.framing != Framing::Exact;
            let dataset = if resampled { &large } else { &exact };
            if compare(dataset, &config) {
                as_bytes.push(recipe.data.dataset);
            }
        }
        // Padding and translation go as bytes, crops of any size don't.
        as_bytes.sort();
        assert_eq!(as_bytes, ["cifar10", "cifar10", "synth", "synth"]);
        assert!(ways.len() > as_bytes.len());
    });
}

#[test]
fn images_are_moved_and_mirrored_at_any_size() {
    on_late_double("pixels::images_are_moved_and_mirrored_at_any_size", || {
        let folder = tempfile::tempdir().unwrap();
        for size in [(5, 7), (33, 9), (1, 1)] {
            let dataset = dataset(folder.path(), size);
            let side = size.0.min(size.1);
            for augment in [
                Augment::NONE,
                Augment { flip: Flip::Random, ..Augment::NONE },
                Augment { pad: side, flip: Flip::Alternating, ..Augment::NONE },
                Augment { translate: side - 1, flip: Flip::Random, ..Augment::NONE },
            ] {
                let normalise = Normalise { mean: [0.1, 0.5, 0.7], std: [0.3, 0.2, 1.1] };
                let config = LoaderConfig { augment, normalise, ..LoaderConfig::train(&dataset, 4) };
                assert!(compare(&dataset, &config));
            }
        }
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    on_late_double("pixels::what_does_not_fit_is_an_error", || {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), (5, 7));
        let crop = Augment { crop: Some(RandomCrop::default()), ..Augment::NONE };
        let config = LoaderConfig { augment: crop, pixels: true, ..LoaderConfig::train(&dataset, 4) };
        assert_eq!(Loader::new(Arc::clone(&dataset), config).unwrap_err().kind(), ErrorKind::Usage);

        let (bytes, table, targets) = ([7; 2 * 105], [0.5; 768], ndarray::Array2::from_elem((2, 105), 0.01));
        let share = Accumulate { total: 2, add: false };
        let fits = Pixels { bytes: &bytes, placements: &[[5, -7, 1, 0], [-4, 6, 0, 1]], table: &table };
        let error = mirror::<Cpu>((5, 7)).queue_pixels(fits, targets.view(), share).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let mut engine = mirror::<Cuda>((5, 7));
        engine.queue_pixels(fits, targets.view(), share).unwrap();
        for wrong in [
            Pixels { bytes: &bytes[1..], ..fits },
            Pixels { table: &table[1..], ..fits },
            Pixels { placements: &[[0; 4]], ..fits },
            Pixels { placements: &[[6, 0, 0, 0], [0; 4]], ..fits },
            Pixels { placements: &[[0; 4], [0, -8, 0, 0]], ..fits },
            Pixels { placements: &[[0, 0, 0, 1], [-5, 0, 0, 1]], ..fits },
            Pixels { placements: &[[i32::MIN, 0, 0, 0], [0; 4]], ..fits },
        ] {
            let error = engine.queue_pixels(wrong, targets.view(), share).unwrap_err();
            assert_eq!((error.kind(), error.subject()), (ErrorKind::Shape, "images"), "{error}");
        }
        assert_eq!(engine.outcome(true).unwrap().map(|outcome| outcome.images), Some(2));
    });
}
