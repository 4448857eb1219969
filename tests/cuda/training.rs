//! The program on the driver double: what a user of a GPU does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::double::{on_a_gpu, with_driver};

/// A small run on the built-in images: a fraction of a second on the CPU, half a minute interpreted.
const RECIPE: &str = r#"
title = "tiny"
[model]
name = "simplenet"
[data]
dataset = "data.hgd"
size = 32
batch = 16
augment = "cifar"
[optimizer]
momentum = 0.9
weight_decay = 1e-3
[[phase]]
lr = 0.005
epochs = 2
"#;

fn program(place: &Path, arguments: &str) -> Command {
    // Tests that were moved to another machine have the program elsewhere.
    let program = std::env::var_os("HANDGRAD_TEST_PROGRAM").map(PathBuf::from);
    let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_handgrad").into()));
    command.args(arguments.split_whitespace()).current_dir(place);
    command
}

/// Runs the program with a driver.
pub fn handgrad(place: &Path, arguments: &str) -> Output {
    handgrad_on(place, arguments, "80")
}

/// On a driver double's GPU of this compute capability, times ten; a real one has its own.
fn handgrad_on(place: &Path, arguments: &str, capability: &str) -> Output {
    let mut command = program(place, arguments);
    with_driver(&mut command);
    command.env("DRIVER_DOUBLE_CAPABILITY", capability).output().unwrap()
}

/// Runs it where there is none.
pub fn without_driver(place: &Path, arguments: &str) -> Output {
    program(place, arguments).env("HANDGRAD_CUDA_DRIVER", "/nowhere/libcuda.so.1").output().unwrap()
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn losses(place: &Path, run: &str) -> Vec<f64> {
    let metrics = std::fs::read_to_string(place.join(run).join("metrics.jsonl")).unwrap();
    let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let both = |line: serde_json::Value| ["train_loss", "valid_loss"].map(|key| line[key].as_f64().unwrap());
    metrics.lines().map(of).flat_map(both).collect()
}

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let config = handgrad::data::synth::SynthConfig { train: 64, valid: 32, size: 32, seed: 0 };
    handgrad::data::synth::write(&config, &place.path().join("data.hgd")).unwrap();
    std::fs::write(place.path().join("tiny.toml"), RECIPE).unwrap();
    place
}

#[test]
fn training_on_a_gpu_comes_to_the_losses_of_the_cpu_and_each_goes_on_where_the_other_stopped() {
    let place = place();
    let run = |arguments: &str| {
        let output = handgrad(place.path(), arguments);
        assert!(output.status.success(), "{arguments}: {}", text(&output));
    };
    run("train tiny.toml --backend cpu --out cpu");
    run("train tiny.toml --backend cuda --out gpu");
    let (cpu, gpu) = (losses(place.path(), "cpu"), losses(place.path(), "gpu"));
    assert_eq!(gpu.len(), 4);
    assert!((cpu[2] - cpu[0]).abs() > 1e-3, "nothing was learnt: {cpu:?}");
    for (cpu, gpu) in cpu.iter().zip(&gpu) {
        assert!((cpu - gpu).abs() <= 1e-4 * cpu.abs(), "{cpu} {gpu}");
    }
    let environment = std::fs::read_to_string(place.path().join("gpu/run.json")).unwrap();
    assert!(environment.contains("\"cuda\""), "{environment}");
}

#[test]
fn tensor_cores_are_asked_for_and_only_where_they_are() {
    let place = place();
    let fails = |arguments: &str, capability: &str, code: i32, parts: &[&str]| {
        let output = handgrad_on(place.path(), arguments, capability);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
    };
    let train = "train tiny.toml --epochs 1 --backend cuda --precision tf32 --out tf32";
    let turing = ["--precision tf32", "cuda:0", "compute capability 7.5", "8.0 or later", "--precision f32"];
    if !on_a_gpu() {
        fails(train, "75", 1, &turing);
        for command in ["bench tiny.toml", "estimate tiny.toml --steps 1", "lr-find tiny.toml --rule e1"] {
            fails(&format!("{command} --backend cuda --precision tf32"), "75", 1, &turing);
        }
    }
    fails("train tiny.toml --precision tf32 --out cpu", "80", 2, &["tf32", "f32 with --backend cpu", "--backend cuda"]);
    fails(
        "train tiny.toml --backend cuda --precision bf16 --out b",
        "80",
        2,
        &["bf16", "f32 or tf32 with --backend cuda"],
    );
    fails("bench tiny.toml --compare cpu,reference --precision tf32", "80", 2, &["tf32", "f32 with --backend cpu"]);

    for command in [train, "estimate tiny.toml --steps 1 --backend cuda --precision tf32"] {
        let output = handgrad(place.path(), command);
        assert!(output.status.success(), "{command}: {}", text(&output));
    }
    let recipe = std::fs::read_to_string(place.path().join("tf32/recipe.toml")).unwrap();
    assert!(recipe.contains("precision = \"tf32\""), "{recipe}");
    fails("train --out tf32 --resume --backend cpu", "80", 2, &["tf32", "f32 with --backend cpu"]);

    // A plan needs no GPU.
    let plan = |precision: &str| {
        let output = without_driver(place.path(), &format!("plan tiny.toml --backend cuda{precision}"));
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    assert_eq!(plan(" --precision tf32").lines().count(), plan("").lines().count());
}

#[test]
fn without_a_driver_there_is_a_helpful_error() {
    let place = place();
    let output = without_driver(place.path(), "train tiny.toml --backend cuda --out gpu");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in
        ["--backend cuda", "no CUDA driver", "/nowhere/libcuda.so.1", "install NVIDIA's driver", "--backend cpu"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = without_driver(place.path(), "train tiny.toml --out cpu --epochs 1");
    assert!(output.status.success(), "{}", text(&output));
    let output = without_driver(place.path(), "doctor");
    assert!(output.status.success() && text(&output).contains("no CUDA driver"), "{}", text(&output));

    let output = handgrad(place.path(), "doctor --json");
    let doctor: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(doctor["cuda"]["devices"][0]["index"], 0, "{doctor}");
    let output = handgrad(place.path(), "train tiny.toml --backend cuda:99 --out gpu");
    assert!(text(&output).contains("cuda:99: no such device"), "{}", text(&output));
    let output = handgrad(place.path(), "train tiny.toml --backend cuda:x --out gpu");
    assert!(output.status.code() == Some(2) && text(&output).contains("cuda:N"), "{}", text(&output));
}
