//! `handgrad eval`, `predict` and `summary` as other programs call them: output, exit codes, broken input.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use handgrad::Params;
use handgrad::data::{DatasetWriter, Split};
use handgrad::io::model_file::{self, Extra, ModelInfo, Preprocessing};
use handgrad::models::{self, ModelOptions};
use image::RgbImage;
use serde_json::Value;
use tempfile::TempDir;

const CLASSES: [&str; 3] = ["dark", "grey", "bright"];

/// A folder with a model that tells brightness, a dataset and some images.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let graph = models::build("linear", &ModelOptions { classes: 3, size: 8, ..Default::default() }).unwrap();
        let mut params = Params::<f32>::zeros(&graph).unwrap();
        // Scores −s, 0.3, s for the mean brightness s from −1 to 1.
        let weight: Vec<f32> = (0..3 * 192).map(|i| (i / 192) as f32 / 192.0 - 1.0 / 192.0).collect();
        params.set_from_torch("out.weight", &weight).unwrap();
        params.set_from_torch("out.bias", &[0.0, 0.3, 0.0]).unwrap();
        let preprocessing = Preprocessing::new((8, 8), [0.5; 3], [0.5; 3]);
        let info = ModelInfo::new(CLASSES, preprocessing);
        let fixture = Fixture { folder };
        model_file::save(fixture.path("model.safetensors"), &graph, &params, &info, &Extra::default()).unwrap();

        let mut writer = DatasetWriter::create(fixture.path("a.hgd"), &CLASSES.map(String::from)).unwrap();
        for i in 0..12u32 {
            let brightness = [10, 128, 245][i as usize % 3];
            // One image has a wrong label.
            let label = if i == 3 { 2 } else { i % 3 };
            writer.push(Split::Valid, label, 8, 8, &[brightness; 192]).unwrap();
            writer.push(Split::Train, label, 8, 8, &[brightness; 192]).unwrap();
        }
        writer.finish().unwrap();

        std::fs::create_dir_all(fixture.path("images/deeper")).unwrap();
        for (name, brightness) in [("images/a.png", 5), ("images/deeper/b.jpg", 250), ("images/c.bmp", 128)] {
            RgbImage::from_pixel(20, 30, image::Rgb([brightness; 3])).save(fixture.path(name)).unwrap();
        }
        std::fs::write(fixture.path("images/notes.txt"), "no image, and not called one").unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handgrad"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn eval_counts_what_the_model_gets_right() {
    let fixture = Fixture::new();
    let result = fixture.json(&["eval", "model.safetensors", "--data", "a.hgd", "--json"]);
    assert_eq!(result["images"], 12);
    assert!((result["accuracy"].as_f64().unwrap() - 11.0 / 12.0).abs() < 1e-12);
    assert_eq!(result["top5"], 1.0);
    assert!(result["loss"].as_f64().unwrap() > 0.0);
    assert_eq!(result["confusion"], serde_json::json!([[3, 0, 0], [0, 4, 0], [1, 0, 4]]));
    assert_eq!(result["per_class"][2]["accuracy"], 0.8);

    // Brightness survives crops and flips.
    let averaged = fixture.json(&[
        "eval",
        "model.safetensors",
        "--data",
        "a.hgd",
        "--tta",
        "2",
        "--threads",
        "1",
        "--batch",
        "5",
        "--json",
    ]);
    assert_eq!(averaged["accuracy"], result["accuracy"]);

    let output = fixture.run(&["eval", "model.safetensors", "--data", "a.hgd", "--confusion", "c.svg"]);
    let printed = text(&output.stdout);
    assert!(printed.contains("accuracy  0.9167") && printed.contains("c.svg"), "{printed}");
    assert!(printed.lines().any(|line| line.split_whitespace().eq(["bright", "2", "1", "0", "4"])), "{printed}");
    assert!(std::fs::read_to_string(fixture.path("c.svg")).unwrap().contains("bright"));
}

#[test]
fn predict_reads_files_folders_and_lists() {
    let fixture = Fixture::new();
    let result = fixture.json(&["predict", "model.safetensors", "images", "images/c.bmp", "--top", "1", "--json"]);
    let seen: Vec<(&str, &str)> = result
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["path"].as_str().unwrap(), r["predictions"][0]["name"].as_str().unwrap()))
        .collect();
    let paths = ["images/a.png", "images/c.bmp", "images/deeper/b.jpg", "images/c.bmp"];
    assert_eq!(seen, paths.into_iter().zip(["dark", "grey", "bright", "grey"]).collect::<Vec<_>>());
    assert_eq!(result[0]["predictions"].as_array().unwrap().len(), 1);

    let mut child = fixture
        .command(&["predict", "model.safetensors", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"images/c.bmp\n\nimages/deeper\r\nimages/a.png").unwrap();
    let output = child.wait_with_output().unwrap();
    let lines: Vec<String> = text(&output.stdout).lines().map(String::from).collect();
    let starts = ["images/c.bmp: grey ", "images/deeper/b.jpg: bright ", "images/a.png: dark "];
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:?}");
}

#[test]
fn broken_images_are_named_and_the_rest_goes_on() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("images/b.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    let output = fixture.run(&["predict", "model.safetensors", "images", "nowhere.png"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(err.contains("images/b.png: ") && err.contains("nowhere.png: ") && err.contains("2 of 5"), "{err}");

    let output = fixture.run(&["predict", "model.safetensors", "images", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result.as_array().unwrap().len(), 4);
    assert!(result[1]["error"].is_string() && result[1]["path"] == "images/b.png");
}

#[test]
fn the_hardest_images_are_named_and_drawn() {
    let fixture = Fixture::new();
    let data = ["eval", "model.safetensors", "--data", "a.hgd"];
    let with = |more: &[&'static str]| [&data[..], more].concat();
    let top = &fixture.json(&with(&["--top-losses", "3", "--json"]))["top_losses"];
    // The image with the wrong label: it is dark, and called bright.
    assert_eq!(
        (&top[0]["index"], &top[0]["class"], &top[0]["predicted"]),
        (&3.into(), &"bright".into(), &"dark".into())
    );
    let numbers: Vec<f64> = (0..3).map(|i| top[i]["loss"].as_f64().unwrap()).collect();
    assert!(numbers[0] > numbers[1] && numbers[1] >= numbers[2], "{numbers:?}");
    // Scores −s, 0.3, s.
    let s = 2.0 * (1.0 - 10.0 / 127.5f64);
    let sum = (s / 2.0).exp() + 0.3f64.exp() + (-s / 2.0).exp();
    assert!((numbers[0] - (sum.ln() + s / 2.0)).abs() < 1e-4, "{numbers:?}");
    assert!((top[0]["probability"].as_f64().unwrap() - (s / 2.0).exp() / sum).abs() < 1e-4, "{top}");
    assert_eq!(top.as_array().unwrap().len(), 3);
    let averaged = &fixture.json(&with(&["--top-losses", "50", "--tta", "1", "--json"]))["top_losses"];
    assert_eq!((averaged.as_array().unwrap().len(), &averaged[0]["index"]), (12, &3.into()));

    let printed = text(&fixture.run(&with(&["--top-losses", "2", "--out", "hard.png"])).stdout);
    assert!(printed.contains("highest losses") && printed.contains("hard.png"), "{printed}");
    assert!(image::open(fixture.path("hard.png")).unwrap().width() > 360);
    assert_eq!(fixture.run(&with(&["--out", "hard.png"])).status.code(), Some(2));
}

/// A model with convolutions, of random weights.
fn with_convolutions(fixture: &Fixture) {
    let graph = models::build("convnet2", &ModelOptions { classes: 3, ..Default::default() }).unwrap();
    let params = Params::<f32>::new(&graph, handgrad::rng::Key::new(1)).unwrap();
    let info = ModelInfo::new(CLASSES, Preprocessing::new((32, 32), [0.5; 3], [0.5; 3]));
    model_file::save(fixture.path("conv.safetensors"), &graph, &params, &info, &Extra::default()).unwrap();
}

#[test]
fn features_are_drawn_of_models_recipes_and_single_operations() {
    let fixture = Fixture::new();
    with_convolutions(&fixture);
    let listed = text(&fixture.run(&["features", "conv.safetensors", "images/a.png"]).stdout);
    assert!(
        listed.starts_with("layer") && listed.contains("[16, 16, ") && listed.ends_with("features.png\n"),
        "{listed}"
    );
    assert!(image::open(fixture.path("features.png")).unwrap().width() > 500);

    let untrained = &["features", "woof-xse_resnext18-twist-3x3", "images/a.png", "--size", "64", "--layer"];
    let twist = "4.0.convpath.0.0";
    let masks = [&untrained[..], &[twist, "--masks", "m.png", "--channels", "5", "--json"]].concat();
    let seen = fixture.json(&masks);
    assert_eq!((&seen["op"], &seen["output"]), (&"twist".into(), &serde_json::json!([16, 16, 128])));
    assert!(fixture.path("m.png").exists());
    assert_eq!(fixture.json(&masks)["channels"], seen["channels"]);
    let other = fixture.json(&[&masks[..], &["--seed", "5"]].concat());
    assert_ne!(other["channels"], seen["channels"]);

    for op in ["conv3x3", "conv5x5", "conv7x7", "twist", "conv_twist", "conv_twist_free"] {
        let seen = fixture.json(&["features", op, "images/a.png", "--size", "20", "--channels", "4", "--json"]);
        assert_eq!(seen["output"], serde_json::json!([20, 20, 4]), "{op}");
        // The image is flat: so is what a convolution makes of it, away from the padding.
        assert!(seen["channels"][0]["least"].as_f64() <= seen["channels"][0]["greatest"].as_f64());
    }
    let error = |arguments: &[&str]| {
        let output = fixture.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        text(&output.stderr)
    };
    let near = error(&[&untrained[..], &["4.0.convpath.0.1x"]].concat());
    assert!(near.contains("did you mean `4.0.convpath.0.1`"), "{near}");
    assert!(error(&["features", "conv3x3", "images/a.png", "--masks", "m.png"]).contains("a twist layer"));
    error(&["features", "conv.safetensors", "images/a.png", "--seed", "1"]);
    error(&["features", "model.safetensors", "images/a.png"]);
}

#[test]
fn cam_says_what_speaks_for_a_class() {
    let fixture = Fixture::new();
    with_convolutions(&fixture);
    let cam = fixture.json(&["cam", "conv.safetensors", "images/a.png", "--class", "grey", "--json"]);
    assert_eq!(cam["class"], "grey");
    let map = cam["map"].as_array().unwrap();
    assert!(map.len() > 1 && map.iter().flat_map(|row| row.as_array().unwrap()).all(|v| v.as_f64().unwrap() >= 0.0));
    assert!(image::open(fixture.path("cam.png")).unwrap().width() > 900);
    let by_number = fixture.json(&["cam", "conv.safetensors", "images/a.png", "--class", "1", "--json"]);
    assert_eq!(by_number, cam);
    let printed = text(&fixture.run(&["cam", "conv.safetensors", "images/a.png", "--out", "c.png"]).stdout);
    assert!(printed.contains(" %  ") && printed.contains("c.png"), "{printed}");

    for (arguments, hint) in [
        (&["conv.safetensors", "images/a.png", "--class", "gray"][..], "did you mean `grey`"),
        (&["conv.safetensors", "images/a.png", "--class", "3"], "0 to 2"),
        (&["conv.safetensors", "images/a.png", "--layer", "layers"], "without --layer"),
        (&["model.safetensors", "images/a.png"], "more than one pixel"),
    ] {
        let output = fixture.run(&[&["cam"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(hint), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn summaries_are_of_recipes_and_of_models() {
    let fixture = Fixture::new();
    let result = fixture.json(&["summary", "cifar10-resnet2", "--json"]);
    assert_eq!(result["total_params"], 1_836_826);
    assert!(result["layers"].as_array().unwrap().len() > 20);
    let model = fixture.json(&["summary", "model.safetensors", "--json"]);
    assert_eq!(model["total_params"], 3 * 192 + 3);
    let larger = fixture.json(&["summary", "model.safetensors", "--size", "16", "--json"]);
    assert_eq!(larger["total_params"], 3 * 768 + 3);
    let printed = text(&fixture.run(&["summary", "cifar10-simplenet"]).stdout);
    assert!(printed.contains("123,330"), "{printed}");
}

#[test]
fn wrong_usage_is_2_and_wrong_files_are_1() {
    let fixture = Fixture::new();
    let code = |arguments: &[&str]| {
        let output = fixture.run(arguments);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
        output.status.code().unwrap()
    };
    for arguments in [
        &["eval", "model.safetensors"][..],
        &["eval", "model.safetensors", "--data", "a.hgd", "--batch", "0"],
        &["predict", "model.safetensors"],
        &["predict", "model.safetensors", "x.png", "--top", "0"],
        &["summary", "no-such-recipe"],
        &["summary", "model.safetensors", "--classes", "5"],
    ] {
        assert_eq!(code(arguments), 2, "{arguments:?}");
    }
    for arguments in [
        &["eval", "none.safetensors", "--data", "a.hgd"][..],
        &["eval", "model.safetensors", "--data", "model.safetensors"],
        &["eval", "a.hgd", "--data", "a.hgd"],
        &["predict", "images/a.png", "images/a.png"],
        &["summary", "none.safetensors"],
    ] {
        assert_eq!(code(arguments), 1, "{arguments:?}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let fixture = Fixture::new();
    let list = format!("{}\n", Path::new("images/a.png").display()).repeat(20_000);
    let mut child = fixture
        .command(&["predict", "model.safetensors", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    // The command ends before it has read all: that the list's writer then fails is right.
    let _ = child.stdin.take().unwrap().write_all(list.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
