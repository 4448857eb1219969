//! The real CIFAR-10 and Imagewoof, where the environment says they lie.

use std::path::PathBuf;

use data_tools::convert::{Options, Resize, convert};
use handgrad::data::Dataset;

use crate::support::{CLASSES, digests, quiet};

/// `HANDGRAD_CIFAR10` names a folder with some of: cifar-10-batches-bin, cifar10 (class folders of PNG), cifar (flat).
#[test]
fn cifar_10_is_the_same_from_every_layout() {
    let Some(root) = std::env::var_os("HANDGRAD_CIFAR10").map(PathBuf::from) else {
        println!("skipped: HANDGRAD_CIFAR10 is not set, so there is no real CIFAR-10 to convert");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for layout in ["cifar-10-batches-bin", "cifar10", "cifar"] {
        let source = root.join(layout);
        if !source.is_dir() {
            println!("skipped: {} is not there", source.display());
            continue;
        }
        let out = folder.path().join("out.hgd");
        let report = convert(&source, &out, &Options { strict: true, ..quiet() }).unwrap();
        assert_eq!(report.written, [50_000, 10_000], "{layout}");
        let dataset = Dataset::open(&out).unwrap();
        assert_eq!(dataset.classes(), CLASSES);
        // The published statistics.
        let published = [(0.4914, 0.24703), (0.48216, 0.24349), (0.44653, 0.26159)];
        for (c, (mean, std)) in published.into_iter().enumerate() {
            assert!((dataset.mean()[c] - mean).abs() < 5e-5 && (dataset.std()[c] - std).abs() < 5e-5, "{layout}");
        }
        seen.push(digests(&out));
    }
    assert!(seen.iter().all(|d| *d == seen[0]), "the layouts differ: {seen:x?}");
}

/// `HANDGRAD_IMAGEWOOF` names the unpacked archive: train/nXXXX/*.JPEG and val/nXXXX/*.JPEG.
#[test]
fn imagewoof_is_complete_and_keeps_its_sizes() {
    let Some(root) = std::env::var_os("HANDGRAD_IMAGEWOOF").map(PathBuf::from) else {
        println!("skipped: HANDGRAD_IMAGEWOOF is not set, so there is no real Imagewoof to convert");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.hgd");
    // Small, so that a test neither fills the disk nor takes minutes; every JPEG is decoded all the same.
    let report = convert(&root, &out, &Options { strict: true, resize: Resize::MaxSide(32), ..quiet() }).unwrap();
    assert_eq!(report.written, [9_025, 3_929]);
    let dataset = Dataset::open(&out).unwrap();
    assert_eq!(dataset.classes().len(), 10);
    assert!(dataset.classes().iter().all(|name| name.starts_with("n02")), "{:?}", dataset.classes());
    assert_eq!(dataset.fixed_size(), None);
    for i in 0..dataset.len() {
        let (h, w, _) = dataset.size_and_label(i).unwrap();
        assert_eq!(h.max(w), 32, "image {i}: {h}×{w}");
    }
}
