//! A training killed at any instant goes on as if nothing had happened.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use handgrad::io::{metrics, model_file};
use handgrad::rng::{Key, Stream};

use crate::common::Place;

/// Residual net with dropout and shared weights, images and batches changed in every way, momentum, label smoothing; two
/// phases; a checkpoint after nearly every step.
const DROPOUT: &str = r#"
[model]
name = "resnet2"
published = true
dropout = 0.2
[data]
dataset = "few.hgd"
size = 16
batch = 12
[data.augment]
pad = 2
flip = true
mixup = 0.4
cutmix = 1
affine = { p = 0.5, degrees = 10, translate = 0.1 }
jitter = { brightness = 0.4, hue = 0.1 }
erase = { p = 0.5 }
[optimizer]
momentum = 0.9
weight_decay = 1e-4
[train]
label_smoothing = 0.1
checkpoint_minutes = 0.0005
[[phase]]
lr = 0.01
epochs = 2
[[phase]]
schedule = "sgdr"
lr = 0.02
cycles = 1
cycle_len = 2
"#;

/// Accumulation over groups that do not divide the epoch, Nesterov, clipping, running statistics, three phases.
pub const ACCUMULATE: &str = r#"
[model]
name = "quickstart"
[data]
dataset = "data.hgd"
size = 16
batch = 32
augment = { pad = 2, flip = true }
[optimizer]
momentum = 0.8
nesterov = true
decay = "decoupled"
weight_decay = 1e-3
accumulate = 3
clip_norm = 1.0
[train]
checkpoint_minutes = 0.00001
[[phase]]
lr = 0.05
epochs = 2
[[phase]]
lr = 0.01
epochs = 1
[[phase]]
schedule = "step"
lr = 0.02
epochs = 4
every_epochs = 2
gamma = 0.5
"#;

/// When to kill.
#[derive(Clone, Copy, Debug)]
enum Instants {
    /// At any time.
    Random,
    /// While a file is being written.
    Writing,
    /// Around the end of this epoch.
    Epoch(usize),
}

fn wait(child: &mut Child, mut until: impl FnMut() -> bool) {
    while child.try_wait().unwrap().is_none() && !until() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn is_writing(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().ends_with(".tmp"))
}

/// Waits for the instant, then kills. Whether the process was still alive.
fn kill_at(child: &mut Child, instant: Instants, folder: &Path, whole: Duration, random: &mut Stream) -> bool {
    let epochs = || std::fs::read_to_string(folder.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    let end = Instant::now() + whole.mul_f64(0.4 * random.f64());
    match instant {
        Instants::Random => wait(child, || Instant::now() >= end),
        Instants::Writing => wait(child, || Instant::now() >= end && is_writing(folder)),
        Instants::Epoch(epoch) => {
            wait(child, || epochs() >= epoch);
            std::thread::sleep(Duration::from_micros((20_000.0 * random.f64()) as u64));
        }
    }
    let alive = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    alive
}

/// What lies in the folder after a kill is whole.
fn assert_whole(folder: &Path) {
    for name in ["checkpoint.safetensors", "model.safetensors", "best.safetensors"] {
        if folder.join(name).exists() {
            model_file::load(folder.join(name)).unwrap();
        }
    }
    if folder.join("metrics.jsonl").exists() {
        metrics::read(folder.join("metrics.jsonl")).unwrap();
    }
}

/// Kills runs of a recipe until `kills` have met a living process; every run, resumed until it is done, must give what
/// the uninterrupted run gave. Returns how many runs were done.
fn kill_and_compare(place: &Place, recipe: &str, kills: usize, instants: &[Instants], seed: u64) -> usize {
    let mut random = Key::new(seed).stream();
    let started = Instant::now();
    place.done(&format!("train {recipe} --out whole"));
    let whole = started.elapsed();
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        runs += 1;
        let out = format!("run{runs}");
        let folder = place.path(&out);
        loop {
            let resume = folder.join("recipe.toml").exists();
            let args = if resume { "train --resume".to_owned() } else { format!("train {recipe}") };
            let mut child = place.command(format!("{args} --out {out}").split(' ')).spawn().unwrap();
            if killed < kills {
                let instant = instants[killed % instants.len()];
                if kill_at(&mut child, instant, &folder, whole, &mut random) {
                    killed += 1;
                    assert_whole(&folder);
                    continue;
                }
                break;
            }
            let ran = crate::common::ran(child.wait_with_output().unwrap());
            assert_eq!(ran.code, Some(0), "{ran:?}");
            break;
        }
        place.done(&format!("train --resume --out {out}"));
        assert!(place.model(&out) == place.model("whole"), "{recipe}: other weights after {killed} kills");
        assert!(
            place.read(format!("{out}/best.safetensors")) == place.read("whole/best.safetensors"),
            "{recipe}: another best model after {killed} kills"
        );
        assert_eq!(place.metrics(&out), place.metrics("whole"), "{recipe}, after {killed} kills");
        // Not a single forgotten temporary file.
        assert_eq!(place.list(&out), place.list("whole"));
    }
    runs
}

#[test]
fn killed_at_twenty_instants_a_training_ends_with_the_same_bits() {
    let place = Place::new();
    place.draw("few.hgd", 80, 24, 1);
    place.write("dropout.toml", DROPOUT);
    kill_and_compare(&place, "dropout.toml", 20, &[Instants::Random, Instants::Writing], 1);
}

#[test]
fn so_does_one_that_accumulates_and_one_killed_where_phases_meet() {
    let place = Place::new();
    place.write("accumulate.toml", ACCUMULATE);
    let boundaries = [Instants::Epoch(2), Instants::Writing, Instants::Epoch(3), Instants::Random];
    kill_and_compare(&place, "accumulate.toml", 20, &boundaries, 2);
}
