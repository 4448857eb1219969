//! A folder of its own for each test, with small datasets, recipes, and the program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use handgrad::data::synth::{self, SynthConfig};
use serde_json::Value;

/// A run that takes a fraction of a second: 10 batches per epoch.
pub const TINY: &str = r#"
title = "tiny"
[model]
name = "convnet2"
[data]
dataset = "data.hgd"
size = 16
batch = 32
augment = "cifar"
[[phase]]
lr = 0.01
epochs = 2
"#;

/// A temporary folder, in which the program runs.
pub struct Place(tempfile::TempDir);

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    /// A folder with `data.hgd` (300 training and 100 validation images of 16 × 16 pixels) and `tiny.toml`.
    pub fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        place.draw("data.hgd", 300, 100, 0);
        place.write("tiny.toml", TINY);
        place
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn draw(&self, name: &str, train: usize, valid: usize, seed: u64) {
        synth::write(&SynthConfig { train, valid, size: 16, seed }, &self.path(name)).unwrap();
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        std::fs::read(self.path(&name)).unwrap_or_else(|e| panic!("{}: {e}", name.as_ref().display()))
    }

    pub fn text(&self, name: impl AsRef<Path>) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub fn json(&self, name: impl AsRef<Path>) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// The names in a folder, sorted.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The program, about to run in this folder.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handgrad"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("HANDGRAD_CACHE", self.path("cache")).env_remove("HANDGRAD_DATA");
        command
    }

    /// Runs the program; `args` are separated by spaces.
    pub fn run(&self, args: &str) -> Ran {
        finish(self.command(args.split_whitespace()))
    }

    /// Runs the program, which must succeed.
    pub fn done(&self, args: &str) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "handgrad {args}\n{ran:?}");
        ran
    }

    /// Runs the program, which must fail with `code` and say each of `wanted` on standard error, and nothing on
    /// standard output.
    pub fn fails(&self, args: &str, code: i32, wanted: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(code), "handgrad {args}\n{ran:?}");
        ran.says(wanted);
        assert_eq!(ran.out, "", "handgrad {args}");
        ran
    }

    /// The lines of a run's metrics without what depends on the clock.
    pub fn metrics(&self, folder: &str) -> Vec<Value> {
        let text = self.text(format!("{folder}/metrics.jsonl"));
        let line = |line: &str| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            let object = value.as_object_mut().unwrap();
            object.remove("seconds").unwrap();
            object.remove("images_per_second").unwrap();
            value
        };
        text.lines().map(line).collect()
    }

    pub fn model(&self, folder: &str) -> Vec<u8> {
        self.read(format!("{folder}/model.safetensors"))
    }
}

impl Ran {
    /// Standard error holds each of `wanted`, and no panic.
    pub fn says(&self, wanted: &[&str]) {
        for text in wanted {
            assert!(self.err.contains(text), "no \"{text}\" in:\n{}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

pub fn finish(mut command: Command) -> Ran {
    ran(command.output().unwrap())
}

pub fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The keys of a JSON object, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Waits until `ready`; fails after a minute.
pub fn wait_until(mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < end, "it never happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}
