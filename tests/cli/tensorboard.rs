//! Event files, read back by TensorBoard's own reader: by the Python that HANDGRAD_TENSORBOARD names, else by `python3`
//! where that can import it. Without either, the tests say that they were skipped.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use handgrad::io::{metrics, model_file};
use serde_json::Value;

use crate::common::{Place, TINY};
use crate::crash::ACCUMULATE;
use crate::resume::run_until;

/// A Python that has TensorBoard.
fn python() -> Option<PathBuf> {
    let given = std::env::var_os("HANDGRAD_TENSORBOARD").filter(|path| !path.is_empty()).map(PathBuf::from);
    let python = given.clone().unwrap_or_else(|| "python3".into());
    let import = Command::new(&python).args(["-c", "import tensorboard"]).stderr(Stdio::null()).status();
    let has = import.is_ok_and(|status| status.success());
    assert!(has || given.is_none(), "HANDGRAD_TENSORBOARD: {} has no tensorboard", python.display());
    if !has {
        println!("skipped: no Python with tensorboard here (HANDGRAD_TENSORBOARD names one)");
    }
    has.then_some(python)
}

/// What the reader finds in a run's folder.
fn read(python: &Path, run: &Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/read_events.py");
    let output = Command::new(python).arg(script).arg(run.join("tensorboard")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Steps and values of each scalar.
fn scalars(found: &Value) -> BTreeMap<String, Vec<(u64, f64)>> {
    let tags = found["scalars"].as_object().unwrap();
    let point = |point: &Value| (point[0].as_u64().unwrap(), point[1].as_f64().unwrap());
    tags.iter().map(|(tag, points)| (tag.clone(), points.as_array().unwrap().iter().map(point).collect())).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

#[test]
fn tensorboard_reads_what_the_metrics_say() {
    let Some(python) = python() else { return };
    let place = Place::new();
    // Ten batches an epoch, the last one smaller.
    place.done("train tiny.toml --tensorboard --set phase.0.schedule=one_cycle --out run");
    let found = read(&python, &place.path("run"));
    let scalars = scalars(&found);
    let history = metrics::read(place.path("run/metrics.jsonl")).unwrap();
    for (tag, of) in [
        ("epoch/train_loss", (|m| m.train_loss) as fn(&metrics::EpochMetrics) -> f64),
        ("valid/loss", |m| m.valid_loss),
        ("valid/accuracy", |m| m.accuracy),
        ("valid/top5", |m| m.top5),
    ] {
        assert_eq!(scalars[tag].iter().map(|point| point.0).collect::<Vec<_>>(), [10, 20], "{tag}");
        assert!(scalars[tag].iter().zip(&history).all(|(point, m)| close(point.1, of(m))), "{tag}: {scalars:?}");
    }
    let of_steps = ["train/loss", "train/lr", "train/momentum", "train/images_per_second"].map(|tag| &scalars[tag]);
    assert!(of_steps.iter().all(|points| points.iter().map(|point| point.0).eq(1..=20)));
    assert_eq!(scalars.len(), 8);
    for (i, m) in history.iter().enumerate() {
        let last = 10 * i + 9;
        assert!(close(of_steps[1][last].1, m.lr) && of_steps[3][last].1 > 0.0);
        // An epoch's loss is the mean over its images: nine batches of 32 and one of 12.
        let losses = of_steps[0][10 * i..=last].iter().enumerate();
        let mean = losses.map(|(j, point)| point.1 * if j == 9 { 12.0 } else { 32.0 }).sum::<f64>() / 300.0;
        assert!(close(mean, m.train_loss), "{mean} {m:?}");
    }
    assert!(close(of_steps[2][0].1, 0.95) && of_steps[2].iter().any(|point| point.1 < 0.9));

    // A picture of the first batch of each epoch: 8 × 4 images of 16 × 16 pixels, drawn six times as large.
    let images = found["images"]["train/batch"].as_array().unwrap();
    assert_eq!(images.iter().map(|image| image[0].as_u64().unwrap()).collect::<Vec<_>>(), [1, 11]);
    for image in images {
        let png: Vec<u8> = serde_json::from_value(image[3].clone()).unwrap();
        let decoded = handgrad::io::picture::decode(&png).unwrap();
        assert_eq!(decoded.dimensions(), (8 * 98 + 2, 4 * 98 + 2));
        assert_eq!((image[1].as_u64(), image[2].as_u64()), (Some(4 * 98 + 2), Some(8 * 98 + 2)));
        assert_eq!(decoded.get_pixel(0, 0).0, [255; 3]);
        assert_ne!(decoded.get_pixel(50, 50).0, [255; 3]);
    }
    assert_ne!(images[0][3], images[1][3]);

    // The weights of the last epoch are those of the model.
    let histograms = found["histograms"].as_object().unwrap();
    let model = model_file::load(place.path("run/model.safetensors")).unwrap();
    let graph = handgrad::models::build("convnet2", &Default::default()).unwrap();
    let mut params = handgrad::Params::<f32>::zeros(&graph).unwrap();
    model.fill(&mut params).unwrap();
    assert_eq!(histograms.len(), 2 * params.table().len());
    for info in params.table() {
        let values: Vec<f64> = params.values()[info.range()].iter().map(|&v| f64::from(v)).collect();
        let of = &histograms[&format!("weights/{}", info.name)];
        assert_eq!((of[0][0].as_u64(), of[1][0].as_u64(), of.as_array().unwrap().len()), (Some(10), Some(20), 2));
        let number = |i: usize| of[1][i].as_f64().unwrap();
        assert_eq!((number(1), number(3)), (values.iter().copied().fold(f64::MAX, f64::min), values.len() as f64));
        assert_eq!(number(2), values.iter().copied().fold(f64::MIN, f64::max));
        assert!(close(number(4), values.iter().sum()) && close(number(5), values.iter().map(|v| v * v).sum()));
        let [limits, counts] = [6, 7].map(|i| serde_json::from_value::<Vec<f64>>(of[1][i].clone()).unwrap());
        assert!(limits.is_sorted() && limits.len() == counts.len());
        let below = |limit: f64| values.iter().filter(|&&v| v < limit).count() as f64;
        let mut sum = 0.0;
        for (limit, count) in limits.iter().zip(&counts) {
            sum += count;
            assert_eq!(sum, below(*limit), "{}: below {limit}", info.name);
        }
        let gradients = &histograms[&format!("gradients/{}", info.name)];
        assert!(gradients[1][5].as_f64().unwrap() > 0.0, "{}", info.name);
    }
}

#[test]
fn the_program_writes_no_event_without_being_asked() {
    let place = Place::new();
    place.done("train tiny.toml --epochs 1 --out a");
    assert!(!place.path("a/tensorboard").exists());
    place.done("train tiny.toml --epochs 1 --set train.tensorboard=true --runs 2 --out b");
    for seed in ["seed-0", "seed-1"] {
        let names = place.list(&format!("b/{seed}/tensorboard"));
        assert!(names.len() == 1 && names[0].starts_with("events.out.tfevents."), "{names:?}");
    }
    // The numbers of a run do not depend on it.
    place.done("train tiny.toml --epochs 1 --tensorboard --out c");
    assert_eq!(place.metrics("a"), place.metrics("c"));
    place.fails("train --out a --resume --tensorboard", 2, &["another recipe"]);
}

/// A run that dies between checkpoints and goes on shows each step once, with the values of a run that never stopped.
#[test]
fn steps_after_a_checkpoint_are_taken_back_when_a_run_resumes() {
    let Some(python) = python() else { return };
    let place = Place::new();
    let recipe = ACCUMULATE.replace("[train]", "[train]\ntensorboard = true");
    let (whole, part) = (place.path("whole"), place.path("part"));
    assert!(run_until(&place, &recipe, &whole, false, usize::MAX).0);
    // Saved after the second step of the second epoch; then it goes on into the third, and its later checkpoints are lost.
    assert!(!run_until(&place, &recipe, &part, false, 7).0);
    let saved = ["checkpoint.safetensors", "metrics.jsonl"].map(|name| (part.join(name), place.read(part.join(name))));
    assert!(!run_until(&place, &recipe, &part, true, 7).0);
    saved.iter().for_each(|(path, content)| std::fs::write(path, content).unwrap());
    let names = place.list("part/tensorboard");
    assert_eq!(names.len(), 2);
    // The last record is torn.
    let last = part.join("tensorboard").join(&names[1]);
    OpenOptions::new().append(true).open(&last).unwrap().write_all(&[24, 0, 0, 0, 0, 0, 0, 0, 1, 2]).unwrap();
    assert!(run_until(&place, &recipe, &part, true, usize::MAX).0);

    let [whole, part] = [whole, part].map(|run| read(&python, &run));
    let timeless = |found: &Value| {
        let mut scalars = scalars(found);
        scalars.remove("train/images_per_second").unwrap();
        scalars
    };
    assert_eq!(timeless(&whole), timeless(&part));
    assert!(timeless(&whole)["train/loss"].iter().map(|point| point.0).eq(1..=7 * 4));
    assert_eq!((&whole["images"], &whole["histograms"]), (&part["images"], &part["histograms"]));
    // Without a checkpoint a run starts again, and so do its curves.
    let again = place.path("again");
    let recipe = TINY.replace("[model]", "[train]\ntensorboard = true\n[model]");
    assert!(!run_until(&place, &recipe, &again, false, 3).0);
    std::fs::remove_file(again.join("checkpoint.safetensors")).unwrap();
    assert!(run_until(&place, &recipe, &again, true, usize::MAX).0);
    assert!(scalars(&read(&python, &again))["train/loss"].iter().map(|point| point.0).eq(1..=20));
}
