//! What cannot go well: folders, datasets and numbers that are broken. Exit code 1, or 2 where a flag is the cause.

use handgrad::data::{DatasetWriter, Split};
use handgrad::io::model_file;

use crate::common::{Place, TINY};

#[test]
fn an_output_folder_that_cannot_be_made_is_named() {
    let place = Place::new();
    place.write("file", "");
    place.fails("train tiny.toml --out file", 1, &["file"]);
    place.fails("train tiny.toml --out file/below", 1, &["file/below"]);
    if cfg!(target_os = "linux") {
        place.fails("train tiny.toml --out /proc/handgrad", 1, &["/proc/handgrad"]);
    }
}

#[test]
fn broken_datasets_are_named() {
    let place = Place::new();
    place.fails("train tiny.toml --data none.hgd", 1, &["none.hgd", "hint"]);
    place.fails("train tiny.toml --data .", 1, &["."]);
    place.fails("train tiny.toml --data tiny.toml", 1, &["tiny.toml"]);
    if cfg!(unix) {
        place.fails("train tiny.toml --data /dev/null", 1, &["/dev/null"]);
    }
    let whole = place.read("data.hgd");
    for len in [0, 1, 7, 8, 63, 64, 300, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(place.path("cut.hgd"), &whole[..len]).unwrap();
        place.fails("train tiny.toml --data cut.hgd", 1, &["cut.hgd"]);
    }
    assert!(!place.path("runs/tiny").exists());
}

/// An image of noise.
fn pixels(side: usize, i: u32) -> Vec<u8> {
    (0..(side * side * 3) as u32)
        .map(|j| ((i + 1).wrapping_mul(j + 7).wrapping_mul(2_654_435_769) >> 24) as u8)
        .collect()
}

#[test]
fn images_of_another_size_are_an_error_with_a_way_out() {
    let place = Place::new();
    let ran = place.run("train tiny.toml --set data.size=20");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.says(&["data.hgd", "16", "20", "hint"]);

    let mut writer = DatasetWriter::create(place.path("mixed.hgd"), &["a".into(), "b".into()]).unwrap();
    for i in 0..20 {
        let side = if i == 13 { 17 } else { 16 };
        let split = if i % 4 == 0 { Split::Valid } else { Split::Train };
        writer.push(split, i % 2, side, side, &pixels(side, i)).unwrap();
    }
    writer.finish().unwrap();
    let ran = place.run("train tiny.toml --data mixed.hgd");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.says(&["mixed.hgd", "17", "--size"]);
    assert!(!place.path("runs/tiny").exists());
}

#[test]
fn a_split_without_images_is_an_error() {
    let place = Place::new();
    for (split, missing) in [(Split::Train, "valid"), (Split::Valid, "train")] {
        let mut writer = DatasetWriter::create(place.path("half.hgd"), &["a".into()]).unwrap();
        (0..3).for_each(|_| writer.push(split, 0, 16, 16, &pixels(16, 5)).unwrap());
        writer.finish().unwrap();
        let ran = place.run("train tiny.toml --data half.hgd");
        assert!(matches!(ran.code, Some(1 | 2)), "{ran:?}");
        ran.says(&["half.hgd", missing]);
    }
}

#[test]
fn a_batch_that_drop_last_leaves_nothing_of_is_an_error_and_a_single_image_is_none() {
    let place = Place::new();
    place.write("drop.toml", &TINY.replace("batch = 32", "batch = 32\ndrop_last = true"));
    place.done("train drop.toml --epochs 1");
    place.draw("one.hgd", 1, 1, 0);
    place.done("train drop.toml --epochs 1 --data one.hgd --out one");
}

/// The values of a model file are finite.
fn assert_finite(place: &Place, name: &str) {
    let params = model_file::load(place.path(name)).unwrap().params::<f32>().unwrap();
    assert!(params.values().iter().all(|v| v.is_finite()), "{name}");
}

#[test]
fn numbers_that_explode_stop_with_step_layer_and_hint_and_keep_the_last_good_files() {
    let place = Place::new();
    // One good epoch, then a rate that no model survives; a checkpoint after every step.
    let bad = format!("{TINY}\n[[phase]]\nlr = 1e9\nepochs = 3\n[train]\ncheckpoint_minutes = 0.000001");
    place.write("bad.toml", &bad.replacen("epochs = 2", "epochs = 1", 1));
    place.done("train bad.toml --epochs 1 --out good");
    for (batch, out) in [(32, "a"), (300, "b")] {
        let ran = place.run(&format!("train bad.toml --batch {batch} --out {out}"));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ran.says(&["step ", "is not finite", "learning rate", "hint"]);
        let named = ["layers.", "out", "relu", "conv", "loss"].iter().any(|name| ran.err.contains(name));
        assert!(named, "{}", ran.err);
        // With one step per epoch a model may last for some epochs, huge but finite.
        let epochs = place.metrics(out);
        assert!(epochs.len() == 1 || batch == 300);
        assert!(epochs.iter().all(|epoch| epoch["valid_loss"].is_f64()), "{epochs:?}");
        for name in ["checkpoint", "model", "best"] {
            assert_finite(&place, &format!("{out}/{name}.safetensors"));
        }
    }
    assert_eq!(place.metrics("a"), place.metrics("good"));
    // Resuming meets the same end, and harms nothing.
    let ran = place.run("train --out a --resume");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.says(&["is not finite"]);
    assert_finite(&place, "a/checkpoint.safetensors");
}

#[test]
fn a_first_step_that_explodes_leaves_no_model() {
    let place = Place::new();
    let ran = place.run("train tiny.toml --set phase.0.lr=1e30 --set optimizer.momentum=0");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.says(&["step ", "is not finite"]);
    assert!(!place.path("runs/tiny/model.safetensors").exists());
    assert!(!place.path("runs/tiny/checkpoint.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn names_that_are_no_utf8_are_only_names() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let name = OsStr::from_bytes(b"d\xffta.hgd");
    std::fs::rename(place.path("data.hgd"), place.path(name)).unwrap();
    let out = OsStr::from_bytes(b"r\xfen");
    let run = |more: &[&str]| {
        let mut command = place.command(["train", "tiny.toml", "--epochs", "1"]);
        command.args(more).arg("--data").arg(name).arg("--out").arg(out);
        crate::common::finish(command)
    };
    assert_eq!(run(&[]).code, Some(0), "{:?}", run(&[]));
    let ran = run(&["--resume"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn images_of_one_colour_are_an_error_with_a_way_out() {
    let place = Place::new();
    let mut writer = DatasetWriter::create(place.path("grey.hgd"), &["a".into()]).unwrap();
    for split in [Split::Train, Split::Valid] {
        writer.push(split, 0, 16, 16, &[100; 768]).unwrap();
    }
    writer.finish().unwrap();
    place.fails("train tiny.toml --data grey.hgd", 2, &["normalisation", "hint"]);
    place.done("train tiny.toml --data grey.hgd --set data.normalise=none --epochs 1");
}
