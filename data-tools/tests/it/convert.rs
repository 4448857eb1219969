//! Every layout gives the same dataset; nothing is skipped silently.

use std::fs;
use std::path::Path;

use data_tools::convert::{Fit, Options, Resize, convert};
use handgrad::ErrorKind;
use handgrad::data::{Dataset, Split};
use image::ImageFormat;

use crate::support::*;

#[test]
fn all_layouts_of_the_same_images_are_one_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let tiny = tiny(6, 30, 10);
    tiny.write_binary(&root.join("bin/cifar-10-batches-bin"));
    tiny.write_python(&root.join("py/cifar-10-batches-py"));
    tiny.write_class_folders(&root.join("png"));
    tiny.write_flat(&root.join("flat"));
    let mut sources = ["bin", "bin/cifar-10-batches-bin", "py", "png", "flat"].map(|name| root.join(name)).to_vec();
    for (name, prefix) in [("bin", "."), ("py", ""), ("png", "cifar10"), ("flat", "./x/cifar")] {
        let archive = root.join(format!("{name}.tar.gz"));
        tar_gz(&root.join(name), prefix, &archive);
        sources.push(archive);
    }
    let out = root.join("out.hgd");
    let mut seen = Vec::new();
    for source in &sources {
        let report = convert(source, &out, &quiet()).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        assert_eq!((report.written, report.skipped), ([150, 30], 0), "{}", source.display());
        let dataset = Dataset::open(&out).unwrap();
        assert_eq!(dataset.classes(), CLASSES);
        assert_eq!(dataset.fixed_size(), Some((32, 32)));
        seen.push(digests(&out));
    }
    assert!(seen.iter().all(|d| *d == seen[0]), "{seen:?}");
    // The order of the batches is kept: record 0 of the first batch comes first.
    convert(&sources[0], &out, &quiet()).unwrap();
    let dataset = Dataset::open(&out).unwrap();
    let (label, image) = &tiny.batches[0][0];
    let first = dataset.sample(0).unwrap();
    assert_eq!((first.label, first.pixels, first.split), (u32::from(*label), &image.as_raw()[..], Split::Train));
}

#[test]
fn cifar_100_takes_the_fine_labels() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..100).map(|i| format!("fine_{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tiny = tiny(2, 40, 100);
    let (py, bin) = (folder.path().join("cifar-100-python"), folder.path().join("cifar-100-binary"));
    for (batch, name) in tiny.batches.iter().zip(["train", "test"]) {
        write(&py.join(name), &batch_pickle("fine_labels", batch));
        let records: Vec<u8> = batch.iter().flat_map(|(l, image)| [vec![l / 5, *l], planes(image)].concat()).collect();
        write(&bin.join(format!("{name}.bin")), &records);
    }
    write(&py.join("meta"), &names_pickle("fine_label_names", &names));
    write(&bin.join("fine_label_names.txt"), names.join("\n").as_bytes());
    let (a, b) = (folder.path().join("a.hgd"), folder.path().join("b.hgd"));
    assert_eq!(convert(&py, &a, &quiet()).unwrap().written, [40, 40]);
    assert_eq!(convert(&bin, &b, &quiet()).unwrap().written, [40, 40]);
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    assert_eq!(Dataset::open(&a).unwrap().classes(), names);
}

#[test]
fn threads_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    tiny(6, 60, 10).write_class_folders(&folder.path().join("png"));
    let file = |threads| {
        let out = folder.path().join("out.hgd");
        let options = Options { threads: Some(threads), resize: Resize::MaxSide(20), ..quiet() };
        convert(&folder.path().join("png"), &out, &options).unwrap();
        fs::read(out).unwrap()
    };
    assert_eq!(file(1), file(5));
}

/// A folder of photos with everything in it that is no image.
fn littered(root: &Path) -> u64 {
    photos(root);
    let image = tiny(1, 1, 1).batches.remove(0).remove(0).1;
    let (jpeg, png) = (encoded(&image, ImageFormat::Jpeg), encoded(&image, ImageFormat::Png));
    write(&root.join("train/ant/half.jpg"), &jpeg[..jpeg.len() / 2]);
    write(&root.join("train/ant/half.png"), &png[..png.len() / 2]);
    write(&root.join("train/bee/notes.txt"), b"not an image");
    write(&root.join("train/bee/empty.png"), b"");
    write(&root.join("val/ant/Thumbs.db"), &[0; 100]);
    write(&root.join("train/stray.png"), &png);
    write(&root.join("train/.cache/hidden.png"), &png);
    // A JPEG under a wrong name, and one deeper in its class, are images.
    write(&root.join("train/bee/really_a_jpeg.png"), &jpeg);
    write(&root.join("train/bee/deeper/6.jpg"), &jpeg);
    7
}

#[test]
fn what_is_no_image_is_counted_and_named_or_fatal() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("photos"), folder.path().join("out.hgd"));
    let litter = littered(&root);
    let report = convert(&root, &out, &quiet()).unwrap();
    assert_eq!((report.written, report.skipped), ([6, 1], litter), "{:?}", report.skipped_names);
    for name in ["half.jpg", "half.png", "notes.txt", "empty.png", "Thumbs.db", "stray.png", "hidden.png"] {
        assert!(report.skipped_names.iter().any(|(file, why)| file.ends_with(name) && !why.is_empty()), "{name}");
    }
    // The archive of that folder says the same.
    let archive = folder.path().join("photos.tgz");
    tar_gz(&root, "photos", &archive);
    let before = digests(&out);
    let report = convert(&archive, &out, &quiet()).unwrap();
    assert_eq!((report.written, report.skipped), ([6, 1], litter), "{:?}", report.skipped_names);
    assert_eq!(digests(&out), before);

    fs::remove_file(&out).unwrap();
    let error = convert(&root, &out, &Options { strict: true, ..quiet() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.to_string().contains("hidden.png"), "{error}");
    assert!(!out.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file is left");
}

#[cfg(unix)]
#[test]
fn pipes_and_link_loops_do_not_hold_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (photos(&folder.path().join("photos")), folder.path().join("out.hgd"));
    let made = std::process::Command::new("mkfifo").arg(root.join("train/ant/pipe.png")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink(root.join("train"), root.join("train/ant/loop")).unwrap();
    std::os::unix::fs::symlink(root.join("none"), root.join("train/bee/dangling.png")).unwrap();
    std::os::unix::fs::symlink(root.join("train/bee/3.png"), root.join("train/bee/linked.png")).unwrap();
    let report = convert(&root, &out, &quiet()).unwrap();
    assert_eq!((report.written, report.skipped), ([5, 1], 3), "{:?}", report.skipped_names);
}

#[test]
fn sizes_are_made_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (photos(&folder.path().join("photos")), folder.path().join("out.hgd"));
    let size = |resize| {
        convert(&root, &out, &Options { resize, ..quiet() }).unwrap();
        let dataset = Dataset::open(&out).unwrap();
        let first = dataset.sample(0).unwrap();
        (dataset.fixed_size(), first.height, first.width)
    };
    assert_eq!(size(Resize::Keep), (None, 30, 41));
    assert_eq!(size(Resize::MaxSide(20)), (None, 15, 20));
    for fit in [Fit::Squash, Fit::Crop] {
        assert_eq!(size(Resize::Exact { height: 24, width: 48, fit }), (Some((24, 48)), 24, 48));
        // 12 GB for each image.
        let resize = Resize::Exact { height: 65_535, width: 65_535, fit };
        let error = convert(&root, &out, &Options { resize, ..quiet() }).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("--size"), "{error}");
    }
}

#[test]
fn damaged_cifar_files_are_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("c"), folder.path().join("out.hgd"));
    let fails = |part: &str| {
        let error = convert(&root, &out, &quiet()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Io), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!out.exists());
    };
    tiny(6, 4, 10).write_binary(&root);
    write(&root.join("data_batch_3.bin"), &[0; 3000]);
    fails("data_batch_3.bin");
    write(&root.join("data_batch_3.bin"), &[10; 3073]);
    fails("label 10");
    fs::remove_file(root.join("data_batch_3.bin")).unwrap();
    fails("data_batch_3.bin");
    fs::remove_dir_all(&root).unwrap();
    tiny(6, 4, 10).write_python(&root);
    let good = fs::read(root.join("data_batch_2")).unwrap();
    write(&root.join("data_batch_2"), &good[..good.len() - 100]);
    fails("data_batch_2");
}

#[test]
fn damaged_archives_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out, archive) =
        (folder.path().join("photos"), folder.path().join("out.hgd"), folder.path().join("photos.tar.gz"));
    photos(&root);
    tar_gz(&root, "photos", &archive);
    let good = fs::read(&archive).unwrap();
    let mut random = handgrad::rng::Key::new(4).stream();
    for i in 0..300 {
        let mut bytes = good.clone();
        if i % 2 == 0 {
            bytes.truncate(random.below(good.len() as u64) as usize);
        } else {
            let at = random.below(good.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        fs::write(&archive, &bytes).unwrap();
        // A flipped bit in a gzip header's time stamp harms nothing; all else is noticed.
        match convert(&archive, &out, &quiet()) {
            Ok(report) => assert_eq!(report.written[0] + report.written[1] + report.skipped, 5),
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Format | ErrorKind::Usage), "{e}"),
        }
    }
}

#[test]
fn names_beyond_a_hundred_bytes_are_read_from_archives() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(150);
    let image = encoded(&tiny(1, 1, 1).batches[0][0].1, ImageFormat::Png);
    let root = folder.path().join("p");
    write(&root.join(format!("train/{long}/{long}.png")), &image);
    write(&root.join(format!("val/{long}/{long}.png")), &image);
    let (archive, out) = (folder.path().join("p.tar.gz"), folder.path().join("out.hgd"));
    tar_gz(&root, "p", &archive);
    assert_eq!(convert(&archive, &out, &quiet()).unwrap().written, [1, 1]);
    assert_eq!(Dataset::open(&out).unwrap().classes(), [long]);
    // An archive in whose place the dataset would come.
    let before = fs::read(&archive).unwrap();
    assert_eq!(convert(&archive, &archive, &quiet()).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(fs::read(&archive).unwrap(), before);
    // Deeper than any folder of images.
    write(&root.join("a/".repeat(70)).join("x.png"), &image);
    tar_gz(&root, "p", &archive);
    let error = convert(&archive, &out, &quiet()).unwrap_err();
    assert!(error.to_string().contains("folders deep"), "{error}");
}

#[test]
fn sources_without_a_layout_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.hgd");
    let file = folder.path().join("a.zip");
    fs::write(&file, b"PK").unwrap();
    for source in [folder.path(), &file] {
        let error = convert(source, &out, &quiet()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains("train/CLASS/IMAGE"), "{error}");
    }
    assert_eq!(convert(&folder.path().join("none"), &out, &quiet()).unwrap_err().kind(), ErrorKind::Io);
}
