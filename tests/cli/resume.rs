//! Stopping by a signal, and going on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use handgrad::backend::Cpu;
use handgrad::data::Dataset;
use handgrad::io::model_file;
use handgrad::recipe::Recipe;
use handgrad::train::{self, Event, Job, RunFolder};
use handgrad::{ErrorKind, Params};

use crate::common::{Place, Ran, TINY, finish, ran, wait_until};
use crate::crash::ACCUMULATE;

/// Sends a signal to a process of ours.
fn signal(child: &std::process::Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Starts a run of `recipe` and stops it by a signal as soon as it is under way.
fn stopped(place: &Place, args: &str, out: &str, by: &str) -> Ran {
    let args = format!("train {args} --out {out}");
    let mut child = place.command(args.split_whitespace()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(|| place.path(format!("{out}/metrics.jsonl")).exists() || child.try_wait().unwrap().is_some());
    signal(&child, by);
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran
}

/// So many epochs that a signal comes before the last.
const LONG: &str = "tiny.toml --epochs 30";

#[test]
fn signals_save_and_say_how_to_go_on() {
    let place = Place::new();
    place.done(&format!("train {LONG} --out whole"));
    // With one batch per epoch the only places to stop at are epochs' ends.
    place.done("train tiny.toml --epochs 30 --batch 300 --out whole1");
    for (i, (by, args, whole)) in [
        ("INT", LONG, "whole"),
        ("TERM", LONG, "whole"),
        ("INT", "tiny.toml --epochs 30 --batch 300", "whole1"),
        ("TERM", "tiny.toml --epochs 30 --batch 32 --seed 0", "whole"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("run{i}");
        let ran = stopped(&place, args, &out, by);
        ran.says(&["stopped in epoch", &format!("handgrad train --out {out} --resume"), "hint"]);
        let epochs = place.metrics(&out).len();
        assert!((1..30).contains(&epochs), "{epochs}");
        // The very command that the message names.
        let hint = ran.err.split('`').nth(1).unwrap();
        let ran = place.done(hint.strip_prefix("handgrad ").unwrap());
        assert!(ran.out.contains("resumed after"), "{}", ran.out);
        assert!(place.model(&out) == place.model(whole), "{by} {args}");
        assert_eq!(place.metrics(&out), place.metrics(whole));
        assert_eq!(place.list(&out), place.list(whole));
    }
}

#[test]
fn a_finished_run_resumed_ends_at_once_with_the_same_model() {
    let place = Place::new();
    let first = place.done("train tiny.toml --out a --json").json();
    let (model, metrics) = (place.model("a"), place.read("a/metrics.jsonl"));
    let again = place.done("train --out a --resume --json").json();
    assert_eq!((place.model("a"), place.read("a/metrics.jsonl")), (model, metrics));
    assert_eq!(first, again);
    // Naming the recipe again is no contradiction; another one, or other flags, are.
    place.done("train tiny.toml --out a --resume");
    place.fails("train tiny.toml --epochs 3 --out a --resume", 2, &["another recipe", "--out"]);
    place.fails("train --seed 3 --out a --resume", 2, &["another recipe"]);
    place.fails("train quickstart --out a --resume", 2, &["another recipe"]);
    place.fails("train --out a --resume --backend reference", 2, &["--backend", "cpu", "hint"]);
}

#[test]
fn a_run_goes_on_with_its_own_dataset_and_backend() {
    let place = Place::new();
    place.draw("other.hgd", 300, 100, 9);
    let args = "tiny.toml --set model.name=simplenet --epochs 20 --backend reference --data other.hgd";
    stopped(&place, args, "a", "INT");
    // From another working directory, with nothing but the folder.
    let mut command = place.command(["train", "--resume", "--json", "--out"]);
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    command.arg(place.path("a")).current_dir(place.path("elsewhere"));
    let ran = finish(command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    place.done(&format!("train {args} --out whole"));
    assert!(place.model("a") == place.model("whole"));
}

#[test]
fn another_dataset_is_refused() {
    let place = Place::new();
    place.draw("other.hgd", 300, 100, 9);
    stopped(&place, LONG, "a", "INT");
    place.fails("train --out a --resume --data other.hgd", 2, &["other.hgd", "checksum", "hint"]);
    let original = place.read("data.hgd");
    std::fs::copy(place.path("other.hgd"), place.path("data.hgd")).unwrap();
    place.fails("train --out a --resume", 2, &["data.hgd", "checksum", "--data"]);
    // The same before the first checkpoint.
    std::fs::rename(place.path("a/checkpoint.safetensors"), place.path("kept")).unwrap();
    place.fails("train --out a --resume", 2, &["data.hgd", "checksum", "--data"]);
    std::fs::remove_file(place.path("data.hgd")).unwrap();
    place.fails("train --out a --resume", 1, &["data.hgd"]);
    // The dataset may have moved; without a checkpoint the run starts again.
    std::fs::write(place.path("moved.hgd"), original).unwrap();
    place.done("train --out a --resume --data moved.hgd");
    assert_eq!(place.metrics("a").len(), 30);
    std::fs::rename(place.path("moved.hgd"), place.path("data.hgd")).unwrap();
    std::fs::rename(place.path("kept"), place.path("a/checkpoint.safetensors")).unwrap();
    let model = place.model("a");
    place.done("train --out a --resume");
    assert!(place.model("a") == model);
}

#[test]
fn another_simd_level_is_refused_unless_asked_for() {
    let place = Place::new();
    let level = |args: &str, level: &str| {
        let mut command = place.command(args.split(' '));
        command.env("HANDGRAD_SIMD", level);
        finish(command)
    };
    let first = level("train tiny.toml --out a", "portable");
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(place.json("a/run.json")["simd"], "portable");
    place.done("train tiny.toml --epochs 1 --out best");
    if place.json("best/run.json")["simd"] == "portable" {
        return; // this machine has no other level
    }
    let ran = level("train --out a --resume", "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    ran.says(&["portable", "HANDGRAD_SIMD=portable", "--other-simd"]);
    assert_eq!(level("train --out a --resume", "portable").code, Some(0));
    assert_eq!(level("train --out a --resume --other-simd", "").code, Some(0));
}

#[test]
fn damaged_run_folders_are_errors() {
    let place = Place::new();
    place.done("train tiny.toml --out a");
    let damage = |name: &str, content: &[u8], code: i32| {
        let path = place.path(format!("a/{name}"));
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        place.fails("train --out a --resume", code, &[name]);
        std::fs::write(&path, before).unwrap();
    };
    let checkpoint = place.read("a/checkpoint.safetensors");
    damage("checkpoint.safetensors", b"", 1);
    damage("checkpoint.safetensors", &checkpoint[..checkpoint.len() / 2], 1);
    damage("checkpoint.safetensors", &place.model("a"), 1);
    let mut flipped = checkpoint.clone();
    flipped[checkpoint.len() / 2] ^= 1;
    damage("checkpoint.safetensors", &flipped, 1);
    damage("metrics.jsonl", b"", 1);
    damage("metrics.jsonl", b"{}\n", 1);
    let metrics = place.text("a/metrics.jsonl");
    let (first, second) = metrics.split_once('\n').unwrap();
    damage("metrics.jsonl", second.as_bytes(), 1);
    damage("metrics.jsonl", format!("{first}\n{first}\n{second}").as_bytes(), 1);
    damage("run.json", b"[]", 1);
    damage("run.json", place.text("a/run.json").replace("cpu", "abacus").as_bytes(), 1);
    damage("recipe.toml", b"nonsense = 1", 2);
    damage("recipe.toml", TINY.replace("convnet2", "convnet").as_bytes(), 2);
    damage("recipe.toml", place.text("a/recipe.toml").replace("0.01", "0.02").as_bytes(), 2);
    place.done("train --out a --resume");
    std::fs::remove_file(place.path("a/metrics.jsonl")).unwrap();
    place.fails("train --out a --resume", 1, &["metrics.jsonl"]);
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let place = Place::new();
    let args = format!("train {LONG} --out a");
    let mut child = place.command(args.split(' ')).spawn().unwrap();
    wait_until(|| place.path("a/metrics.jsonl").exists());
    place.fails("train --out a --resume", 2, &["another process", "--out"]);
    child.kill().unwrap();
    child.wait().unwrap();
    place.done("train --out a --resume");
}

/// Runs a recipe in this process, stopped at the event of this number. Whether it came to its end before, and after how
/// many events.
pub fn run_until(place: &Place, recipe: &str, out: &Path, resume: bool, stop_at: usize) -> (bool, usize) {
    let recipe = Recipe::parse(recipe, "recipe.toml").unwrap();
    let dataset = Arc::new(Dataset::open(place.path("data.hgd")).unwrap());
    let folder = if resume { RunFolder::open(Some(out), "") } else { RunFolder::create(Some(out), "") };
    let job = Job { recipe, dataset, folder: folder.unwrap(), resume, other_simd: false, from: None };
    let stop = AtomicBool::new(false);
    let mut events = 0;
    let done = train::run::<Cpu>(&job, &stop, |event| {
        if let Event::Step { .. } | Event::Epoch(_) = event {
            events += 1;
            stop.store(events >= stop_at, Ordering::Relaxed);
        }
    });
    match done {
        Ok(_) => (true, events),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}");
            (false, events)
        }
    }
}

#[test]
fn stopped_after_any_step_and_at_any_epochs_end_a_run_goes_on_with_the_same_bits() {
    assert_eq!(stop_everywhere(ACCUMULATE, 1), 7 * (4 + 1));
}

/// A net with running statistics, an optimizer that keeps three moments, averaged weights, a rate and a momentum that
/// move, and a second phase, whose optimizer starts anew; batches that are erased and mixed.
#[test]
fn ranger_with_averaged_weights_goes_on_with_the_same_bits() {
    let recipe = r#"
title = "ranger"
[model]
name = "quickstart"
[data]
dataset = "data.hgd"
size = 16
batch = 64
augment = { pad = 2, mixup = 0.4, cutmix = 1, jitter = { hue = 0.1 }, erase = { p = 0.5 } }
[optimizer]
name = "ranger"
decay_norm_and_bias = false
[train]
ema = 0.9
[[phase]]
lr = 0.004
schedule = "flat_cosine"
epochs = 2
[[phase]]
lr = 0.004
schedule = "one_cycle"
epochs = 1
"#;
    assert_eq!(stop_everywhere(recipe, 3), 3 * (5 + 1));
}

/// What the speed run has: a whitened first layer whose bias is trained in the first epoch alone, images that are mirrored
/// every other epoch and translated, averaged weights and statistics that end the phase, a second phase with a past.
#[test]
fn the_speed_runs_features_go_on_with_the_same_bits() {
    let recipe = r#"
title = "fast"
[model]
name = "airbench94"
widths = [8, 12, 8]
[data]
dataset = "data.hgd"
size = 16
batch = 64
augment = { translate = 2, flip = "alternating" }
[optimizer]
momentum = 0.85
nesterov = true
weight_decay = 1e-3
lookahead = 2
lookahead_alpha = 1
lookahead_alpha_end = 0.25
lookahead_power = 3
lookahead_states = true
lookahead_finish = true
[[optimizer.group]]
pattern = "*.norm*.weight"
lr_scale = 0
[[optimizer.group]]
pattern = "0.weight"
lr_scale = 0
[[optimizer.group]]
pattern = "0.bias"
epochs = 1
[train]
label_smoothing = 0.2
whiten = { images = 100 }
tta = "flip"
[[phase]]
lr = 0.1
schedule = "piecewise"
at = [0, 0.23, 1]
factors = [0.2, 1, 0.07]
epochs = 2
[[phase]]
lr = 0.05
epochs = 1
"#;
    assert_eq!(stop_everywhere(recipe, 2), 3 * (5 + 1));

    let place = Place::new();
    place.write("fast.toml", recipe);
    place.done("train fast.toml --out whole");
    let whole = place.json("whole/result.json");
    assert!(whole["tta_accuracy"].as_f64().is_some(), "{whole}");
    for change in ["optimizer.lookahead_finish=false", "optimizer.lookahead_states=false", "train.whiten=false"] {
        let out = change.replace(['.', '='], "-");
        place.done(&format!("train fast.toml --set {change} --out {out}"));
        assert!(place.model(&out) != place.model("whole"), "{change}");
    }
    // The bias of the first layer moves in the first epoch, and stays in those after it.
    let bias = |out: &str| {
        let file = model_file::load(place.path(format!("{out}/model.safetensors"))).unwrap();
        let mut params = Params::<f32>::zeros(file.graph()).unwrap();
        file.fill(&mut params).unwrap();
        params.to_torch("0.bias").unwrap()
    };
    let out = place.path("first");
    assert!(!run_until(&place, recipe, &out, false, 5 + 1).0);
    assert!(bias("first").iter().any(|&b| b != 0.0));
    assert_eq!(bias("first"), bias("whole"));
    place.done("train fast.toml --set optimizer.group.2.epochs=2 --out longer");
    assert_ne!(bias("first"), bias("longer"));
}

/// Stops a run at each `stride`-th event and goes on. How many events there are.
fn stop_everywhere(recipe: &str, stride: usize) -> usize {
    let place = Place::new();
    let run_until = |out: &Path, resume, stop_at| run_until(&place, recipe, out, resume, stop_at);
    let (_, events) = run_until(&place.path("whole"), false, usize::MAX);
    // The last step and the last epoch's end stop nothing.
    for at in (1..events - 1).step_by(stride) {
        let out = format!("{at}");
        assert!(!run_until(&place.path(&out), false, at).0);
        // Every third run is stopped once more, at once.
        if at % 3 == 0 {
            run_until(&place.path(&out), true, 1);
        }
        assert!(run_until(&place.path(&out), true, usize::MAX).0);
        assert!(place.model(&out) == place.model("whole"), "stopped at event {at}");
        assert_eq!(place.metrics(&out), place.metrics("whole"));
    }
    events
}

/// LSUV before the first and before the last phase, with averaged weights.
#[test]
fn phases_that_begin_with_lsuv_go_on_with_the_same_bits() {
    let phase = "[[phase]]\nlr = 0.01\nepochs = 1\n";
    let head = TINY.split("[[phase]]").next().unwrap();
    let recipe = format!("{head}[train]\nema = 0.5\n{phase}lsuv = true\n{phase}{phase}lsuv = true\n");
    assert_eq!(stop_everywhere(&recipe, 3), 3 * (10 + 1));
    let place = Place::new();
    place.write("lsuv.toml", &recipe);
    place.write("plain.toml", &recipe.replace("lsuv = true", ""));
    let ran = place.done("train lsuv.toml --out lsuv");
    assert_eq!(ran.out.matches("lsuv: 4 layers scaled").count(), 2, "{}", ran.out);
    place.done("train plain.toml --out plain");
    let loss = |out: &str| place.metrics(out)[0]["train_loss"].as_f64().unwrap();
    assert!(loss("lsuv") != loss("plain"));
    // The learning rate finder sees the weights that the run begins with.
    let points =
        |recipe: &str| place.done(&format!("lr-find {recipe}.toml --rule torch --json")).json()["points"].clone();
    assert_ne!(points("lsuv"), points("plain"));
}
