//! Determinism, resume, recycling, errors, early ends.

use std::sync::Arc;

use super::*;
use crate::ErrorKind;
use crate::infer::framed;
use crate::resample::Framing;
use crate::rng::Key;

/// `n` training images of 8×8 (image `i` holds the byte `i`), a fifth as many for validation.
fn dataset(n: u32) -> (tempfile::TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let classes: Vec<String> = (0..5).map(|i| i.to_string()).collect();
    let mut writer = DatasetWriter::with_page_size(&path, &classes, 4096).unwrap();
    for i in 0..n {
        let pixels: Vec<u8> = (0..8 * 8 * 3).map(|p| (i + p) as u8).collect();
        writer.push(Split::Train, i % 5, 8, 8, &pixels).unwrap();
        if i % 5 == 0 {
            writer.push(Split::Valid, i % 5, 8, 8, &pixels).unwrap();
        }
    }
    writer.finish().unwrap();
    let dataset = Arc::new(Dataset::open(&path).unwrap());
    (folder, dataset)
}

type Content = (Vec<u32>, Vec<u32>, Vec<f32>, Vec<f32>);

fn read(loader: &Loader, epoch: u64, first: usize) -> Vec<Content> {
    let content = |batch: crate::Result<Batch>| {
        let b = batch.unwrap();
        (b.samples().to_vec(), b.labels().to_vec(), b.images_slice().to_vec(), b.targets_slice().to_vec())
    };
    loader.epoch(epoch, first).unwrap().map(content).collect()
}

fn config(dataset: &Dataset) -> LoaderConfig {
    LoaderConfig { augment: Augment::CIFAR, key: Key::new(11), ..LoaderConfig::train(dataset, 16) }
}

#[test]
fn content_depends_on_no_thread_count_and_no_history() {
    let (_folder, dataset) = dataset(203);
    for shuffle in [Shuffle::No, Shuffle::Full, Shuffle::Pages { window: 2 }] {
        let config = |threads, prefetch| LoaderConfig { threads, prefetch, shuffle, ..config(&dataset) };
        let one = Loader::new(Arc::clone(&dataset), config(1, 1)).unwrap();
        let many = Loader::new(Arc::clone(&dataset), config(7, 5)).unwrap();
        let (first, second) = (read(&one, 3, 0), read(&one, 4, 0));
        assert_eq!(first, read(&many, 3, 0));
        assert_eq!(second[9..], read(&many, 4, 9));
        assert_eq!(first, read(&one, 3, 0));
        assert_eq!(first.len(), 13);
        assert_ne!(first[0].2, second[0].2);
        // Every sample once.
        let mut seen: Vec<u32> = first.iter().flat_map(|c| c.0.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, dataset.split(Split::Train));
    }
}

#[test]
fn seed_run_and_epoch_change_the_order() {
    let (_folder, dataset) = dataset(203);
    let order = |seed, run, epoch| {
        let config = LoaderConfig { key: Key::new(seed), run, ..config(&dataset) };
        let loader = Loader::new(Arc::clone(&dataset), config).unwrap();
        read(&loader, epoch, 0).into_iter().flat_map(|c| c.0).collect::<Vec<u32>>()
    };
    let base = order(1, 0, 0);
    assert_eq!(base, order(1, 0, 0));
    assert!([order(2, 0, 0), order(1, 1, 0), order(1, 0, 1)].iter().all(|other| *other != base));
}

#[test]
fn windows_of_pages_stay_together() {
    let (_folder, dataset) = dataset(400);
    let shuffle = Shuffle::Pages { window: 3 };
    let loader = Loader::new(Arc::clone(&dataset), LoaderConfig { shuffle, ..config(&dataset) }).unwrap();
    let order: Vec<u32> = read(&loader, 0, 0).into_iter().flat_map(|c| c.0).collect();
    // 21 images of 192 bytes to a page of 4096: three pages are at most 63 of them.
    let page = |i: &u32| dataset.page_of(*i as usize).unwrap();
    let mut first: Vec<u64> = order[..30].iter().map(page).collect();
    first.sort_unstable();
    first.dedup();
    assert_eq!(first.len(), 3, "{first:?}");
}

#[test]
fn images_are_normalised_and_targets_smoothed() {
    let (_folder, dataset) = dataset(20);
    let normalise = Normalise { mean: [0.5; 3], std: [0.25; 3] };
    let config = LoaderConfig { normalise, label_smoothing: 0.1, ..LoaderConfig::valid(&dataset, 3) };
    let loader = Loader::new(Arc::clone(&dataset), config).unwrap();
    assert_eq!((loader.steps_per_epoch(), loader.images_per_epoch()), (2, 4));
    let batches = read(&loader, 0, 0);
    assert_eq!(batches[1].0.len(), 1);
    for (samples, labels, images, targets) in batches {
        for (j, &i) in samples.iter().enumerate() {
            let sample = dataset.sample(i as usize).unwrap();
            for (value, &p) in images[j * 192..].iter().zip(sample.pixels) {
                assert!((value - (f32::from(p) / 255.0 - 0.5) / 0.25).abs() < 1e-5);
            }
            let row = &targets[j * 5..(j + 1) * 5];
            assert_eq!(labels[j], sample.label);
            for (class, target) in row.iter().enumerate() {
                let expected = if class == sample.label as usize { 0.92 } else { 0.02 };
                assert!((target - expected).abs() < 1e-6);
            }
        }
    }
}

/// A share of the smoothing goes to every output, those that are no class too.
#[test]
fn targets_may_be_longer_than_the_classes() {
    let (_folder, dataset) = dataset(20);
    let config = LoaderConfig { outputs: 8, label_smoothing: 0.4, ..LoaderConfig::valid(&dataset, 3) };
    let loader = Loader::new(Arc::clone(&dataset), config).unwrap();
    for (_, labels, _, targets) in read(&loader, 0, 0) {
        for (row, &label) in targets.chunks(8).zip(&labels) {
            for (output, target) in row.iter().enumerate() {
                let expected = if output == label as usize { 0.65 } else { 0.05 };
                assert!((target - expected).abs() < 1e-6, "{row:?}");
            }
        }
    }
}

#[test]
fn a_partial_batch_is_kept_or_dropped() {
    let (_folder, dataset) = dataset(50);
    let loader = |batch, drop_last| {
        Loader::new(Arc::clone(&dataset), LoaderConfig { batch, drop_last, ..config(&dataset) }).unwrap()
    };
    assert_eq!((loader(16, false).steps_per_epoch(), loader(16, false).images_per_epoch()), (4, 50));
    assert_eq!((loader(16, true).steps_per_epoch(), loader(16, true).images_per_epoch()), (3, 48));
    assert_eq!(read(&loader(16, true), 0, 0).iter().map(|c| c.0.len()).sum::<usize>(), 48);
    // A batch beyond the split is the split, and costs no more memory than that.
    assert_eq!(read(&loader(usize::MAX, true), 0, 0)[0].0.len(), 50);
}

#[test]
fn memory_is_recycled() {
    let (_folder, dataset) = dataset(400);
    let loader = Loader::new(Arc::clone(&dataset), LoaderConfig { threads: 3, ..config(&dataset) }).unwrap();
    let mut places = std::collections::HashSet::new();
    for epoch in 0..5 {
        for batch in loader.epoch(epoch, 0).unwrap() {
            places.insert(batch.unwrap().images_slice().as_ptr());
        }
    }
    assert!(places.len() <= loader.config().prefetch + 1, "{} buffers for 125 batches", places.len());
}

#[test]
fn early_ends_and_hoarding_never_hang() {
    let (_folder, dataset) = dataset(400);
    for i in 0..100 {
        let config = LoaderConfig { threads: 1 + i % 4, prefetch: 1 + i % 3, ..config(&dataset) };
        let loader = Loader::new(Arc::clone(&dataset), config).unwrap();
        let mut epoch = loader.epoch(0, 0).unwrap();
        for _ in 0..i % 7 {
            epoch.next().unwrap().unwrap();
        }
        drop(epoch);
        // The whole epoch held at once; and a batch may outlive its loader.
        let all: Vec<Batch> = loader.epoch(1, 0).unwrap().map(Result::unwrap).collect();
        drop(loader);
        assert_eq!(all.iter().map(Batch::len).sum::<usize>(), 400);
    }
}

#[test]
fn a_damaged_page_ends_the_epoch_with_its_error() {
    let (folder, dataset) = dataset(400);
    let mut bytes = std::fs::read(folder.path().join("a.hgd")).unwrap();
    bytes[4096 + 5 * 4096 + 100] ^= 1; // behind the header, in page 5
    drop(dataset);
    let dataset = Arc::new(Dataset::from_bytes(bytes).unwrap());
    let loader = Loader::new(Arc::clone(&dataset), LoaderConfig { threads: 3, ..config(&dataset) }).unwrap();
    let mut epoch = loader.epoch(0, 0).unwrap();
    let error = epoch.by_ref().find_map(Result::err).expect("page 5 is damaged");
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.to_string().contains("page 5"), "{error}");
    assert!(epoch.next().is_none());
    assert!(dataset.verify().is_err());
}

#[test]
fn wrong_configurations_are_named() {
    let (_folder, dataset) = dataset(20);
    let base = config(&dataset);
    let kind = |config: LoaderConfig| Loader::new(Arc::clone(&dataset), config).unwrap_err();
    let normalise = Normalise { mean: [0.0; 3], std: [0.0; 3] };
    let usage = [
        LoaderConfig { batch: 0, ..base.clone() },
        LoaderConfig { threads: 0, ..base.clone() },
        LoaderConfig { threads: usize::MAX, ..base.clone() },
        LoaderConfig { prefetch: 0, ..base.clone() },
        LoaderConfig { outputs: 4, ..base.clone() },
        LoaderConfig { outputs: 65_537, ..base.clone() },
        LoaderConfig { label_smoothing: f32::NAN, ..base.clone() },
        LoaderConfig { normalise, ..base.clone() },
        LoaderConfig { augment: Augment { pad: 9, ..Augment::NONE }, ..base.clone() },
        LoaderConfig {
            augment: Augment { pad: 2, crop: Some(RandomCrop::default()), ..Augment::NONE },
            ..base.clone()
        },
        LoaderConfig { framing: Framing::Shorter { to: 7 }, ..base.clone() },
        LoaderConfig { framing: Framing::Fill, size: (0, 8), ..base.clone() },
        LoaderConfig { framing: Framing::Fill, size: (8, 65_536), ..base.clone() },
        LoaderConfig { shuffle: Shuffle::Pages { window: 0 }, ..base.clone() },
    ];
    for config in usage {
        assert_eq!(kind(config).kind(), ErrorKind::Usage);
    }
    let error = kind(LoaderConfig { size: (8, 9), ..base.clone() });
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert!(error.to_string().contains("--size 8x9") && error.to_string().contains("sample 0"), "{error}");
    let loader = Loader::new(Arc::clone(&dataset), base).unwrap();
    assert_eq!(loader.epoch(0, 3).unwrap_err().kind(), ErrorKind::Usage);
    assert!(loader.epoch(0, 2).unwrap().next().is_none());
}

#[test]
fn varying_sizes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &["a".into()]).unwrap();
    for (split, width) in [(Split::Train, 4), (Split::Train, 5), (Split::Valid, 6), (Split::Valid, 6)] {
        writer.push(split, 0, 3, width, &vec![7; 9 * width]).unwrap();
    }
    writer.finish().unwrap();
    let dataset = Arc::new(Dataset::open(&path).unwrap());
    let normalise = Normalise::NONE;
    let error = |config| Loader::new(Arc::clone(&dataset), config).unwrap_err();
    let train = error(LoaderConfig { normalise, ..LoaderConfig::train(&dataset, 2) });
    assert_eq!(train.kind(), ErrorKind::Shape);
    assert!(
        ["sample 1 has 3×5", "3×4", "sample 0", "--size", "data.framing", "data.augment.crop"]
            .iter()
            .all(|part| train.to_string().contains(part)),
        "{train}"
    );
    // One split may be of one size: it only has to be said.
    let valid = LoaderConfig { normalise, ..LoaderConfig::valid(&dataset, 2) };
    assert_eq!(error(valid.clone()).kind(), ErrorKind::Usage);
    assert_eq!(read(&Loader::new(dataset, LoaderConfig { size: (3, 6), ..valid }).unwrap(), 0, 0).len(), 1);
}

/// Training images of 60 sizes, noise; as many validation images.
fn varied() -> (tempfile::TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &["a".into(), "b".into()]).unwrap();
    let mut random = Key::new(4).stream();
    for i in 0..120 {
        let (h, w) = (12 + i % 7 * 5, 10 + i % 11 * 4);
        let pixels: Vec<u8> = (0..h * w * 3).map(|_| random.u64() as u8).collect();
        let split = if i % 2 == 0 { Split::Train } else { Split::Valid };
        writer.push(split, (i % 2) as u32, h, w, &pixels).unwrap();
    }
    writer.finish().unwrap();
    (folder, Arc::new(Dataset::open(&path).unwrap()))
}

#[test]
fn images_of_varying_sizes_are_framed_as_a_model_would() {
    let (_folder, dataset) = varied();
    let size = (14, 18);
    for framing in [Framing::Fill, Framing::Squash { to: (16, 19) }, Framing::Shorter { to: 20 }] {
        let config = LoaderConfig { size, framing, normalise: Normalise::NONE, ..LoaderConfig::valid(&dataset, 7) };
        for (samples, _, images, _) in read(&Loader::new(Arc::clone(&dataset), config).unwrap(), 0, 0) {
            for (&i, image) in samples.iter().zip(images.chunks_exact(14 * 18 * 3)) {
                let sample = dataset.sample(i as usize).unwrap();
                let dim = (sample.height, sample.width, 3);
                let stored = ndarray::ArrayView3::from_shape(dim, sample.pixels).unwrap();
                let expected = framed(stored, framing, size).unwrap();
                let off = image.iter().zip(&expected).map(|(a, &b)| (a * 255.0 - f32::from(b)).abs());
                assert!(off.fold(0.0, f32::max) < 0.501, "sample {i} by {framing:?}");
            }
        }
    }
}

#[test]
fn random_crops_depend_on_the_sample_and_the_epoch_alone() {
    let (_folder, dataset) = varied();
    let augment = Augment { crop: Some(RandomCrop::default()), flip: Flip::Random, ..Augment::NONE };
    let config = |threads, batch| LoaderConfig {
        size: (14, 18),
        augment,
        threads,
        shuffle: Shuffle::No,
        ..LoaderConfig::train(&dataset, batch)
    };
    let images = |threads, batch, epoch, first| -> Vec<f32> {
        let loader = Loader::new(Arc::clone(&dataset), config(threads, batch)).unwrap();
        read(&loader, epoch, first).into_iter().flat_map(|c| c.2).collect()
    };
    let base = images(1, 7, 0, 0);
    assert_eq!(base.len(), 60 * 14 * 18 * 3);
    assert_eq!(images(4, 60, 0, 0), base);
    assert_eq!(images(3, 7, 0, 5), base[5 * 7 * 14 * 18 * 3..]);
    assert_ne!(images(1, 7, 1, 0), base);
    assert!(base.iter().all(|v| v.is_finite()));
}

#[test]
fn a_framed_image_can_be_padded_and_cut() {
    let (_folder, dataset) = varied();
    let config = |pad| LoaderConfig {
        size: (14, 18),
        framing: Framing::Fill,
        augment: Augment { pad, ..Augment::NONE },
        shuffle: Shuffle::No,
        ..LoaderConfig::train(&dataset, 60)
    };
    let images = |pad| read(&Loader::new(Arc::clone(&dataset), config(pad)).unwrap(), 0, 0).remove(0).2;
    let (plain, moved) = (images(0), images(3));
    for (i, (plain, moved)) in plain.chunks_exact(14 * 18 * 3).zip(moved.chunks_exact(14 * 18 * 3)).enumerate() {
        // Somewhere within three pixels the middle of one is the middle of the other.
        let middle = |image: &[f32], dy: isize, dx: isize| -> Vec<f32> {
            let at = |y: isize, x: isize| (((y + dy) * 18 + x + dx) * 3) as usize;
            (4..10).flat_map(|y| (4..14).map(move |x| (y, x))).map(|(y, x)| image[at(y, x)]).collect()
        };
        let places = (-3..=3).flat_map(|dy| (-3..=3).map(move |dx| (dy, dx)));
        let found = places.filter(|&(dy, dx)| middle(plain, dy, dx) == middle(moved, 0, 0)).count();
        assert_eq!(found, 1, "image {i}");
    }
}

/// Everything that changes images or batches.
fn all_changes() -> Augment {
    Augment {
        pad: 2,
        flip: Flip::Random,
        mixup: 0.4,
        cutmix: 1.0,
        affine: Some(Affine { p: 0.7, degrees: 20.0, translate: 0.1, scale: [0.8, 1.2], ..Affine::default() }),
        jitter: Some(Jitter { brightness: 0.4, hue: 0.1, ..Jitter::default() }),
        erase: Some(Erase { p: 0.5, ..Erase::default() }),
        ..Augment::NONE
    }
}

#[test]
fn changes_of_batches_depend_on_no_thread_count_and_no_history() {
    let (_folder, dataset) = dataset(203);
    let config = |threads, prefetch| LoaderConfig {
        augment: all_changes(),
        label_smoothing: 0.1,
        threads,
        prefetch,
        ..config(&dataset)
    };
    let one = Loader::new(Arc::clone(&dataset), config(1, 1)).unwrap();
    let many = Loader::new(Arc::clone(&dataset), config(7, 5)).unwrap();
    let (first, second) = (read(&one, 3, 0), read(&one, 4, 0));
    assert_eq!(first, read(&many, 3, 0));
    assert_eq!(second[9..], read(&many, 4, 9));
    assert_eq!(first, read(&one, 3, 0));
    for (samples, labels, images, targets) in &first {
        assert!(images.iter().all(|v| v.is_finite()) && samples.len() == labels.len());
        for target in targets.chunks_exact(5) {
            assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{target:?}");
            assert!(target.iter().all(|&v| v >= 0.0199), "{target:?}");
        }
    }
    assert!(first.iter().any(|c| c.3.chunks_exact(5).any(|t| t.iter().filter(|v| **v > 0.03).count() == 2)));
    // A batch by itself, and the same samples under another number.
    let samples = &first[4].0;
    let alone = |number| many.prepare(3, number, samples).unwrap();
    assert_eq!(alone(4).images_slice(), first[4].2);
    assert_eq!(alone(4).targets_slice(), first[4].3);
    assert_ne!(alone(5).targets_slice(), first[4].3);
    for wrong in [&[][..], &[u32::MAX], &dataset.split(Split::Valid)[..1], &[0; 17]] {
        assert_eq!(many.prepare(0, 0, wrong).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn colours_and_maps_come_before_normalisation() {
    let (_folder, dataset) = dataset(40);
    let normalise = Normalise { mean: [0.5, 0.25, 0.125], std: [0.25, 0.5, 2.0] };
    let images = |normalise| {
        let augment = Augment { mixup: 0.0, cutmix: 0.0, erase: None, ..all_changes() };
        let config = LoaderConfig { augment, normalise, ..config(&dataset) };
        read(&Loader::new(Arc::clone(&dataset), config).unwrap(), 0, 0).remove(0).2
    };
    let (plain, normalised) = (images(Normalise::NONE), images(normalise));
    assert!(plain.iter().all(|v| (-1e-6..1.000001).contains(v)));
    for (i, (plain, normalised)) in plain.iter().zip(normalised).enumerate() {
        let expected = (plain - normalise.mean[i % 3]) / normalise.std[i % 3];
        assert!((normalised - expected).abs() < 1e-5, "{i}");
    }
}

#[test]
fn alternating_flips_show_both_sides_of_every_image_in_two_epochs() {
    let (_folder, dataset) = dataset(100);
    let samples = dataset.split(Split::Train).to_vec();
    let config = |augment| LoaderConfig { augment, ..LoaderConfig::train(&dataset, samples.len()) };
    let loader = |augment| Loader::new(Arc::clone(&dataset), config(augment)).unwrap();
    let flipping = loader(Augment { flip: Flip::Alternating, ..Augment::NONE });
    let images = |epoch| flipping.prepare(epoch, 0, &samples).unwrap().images().to_owned();
    let (first, mut second) = (images(0), images(1));
    assert_eq!(first, images(2));
    assert_eq!(second, images(3));
    second.invert_axis(ndarray::Axis(2));
    assert_eq!(first, second);
    // In the first epoch about half of them are mirrored.
    let plain = loader(Augment::NONE).prepare(0, 0, &samples).unwrap().images().to_owned();
    let same = first.outer_iter().zip(plain.outer_iter()).filter(|(a, b)| a == b).count();
    assert!((30..70).contains(&same), "{same}");
}
