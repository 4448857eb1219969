//! What a run leaves in its folder, and that the same run gives the same bits.

use handgrad::io::model_file;
use handgrad::recipe::{Method, Recipe};

use crate::common::{Place, TINY, keys};

const FILES: [&str; 8] = [
    "best.safetensors",
    "checkpoint.safetensors",
    "curves.svg",
    "metrics.jsonl",
    "model.safetensors",
    "recipe.toml",
    "result.json",
    "run.json",
];

#[test]
fn a_run_folder_holds_all_that_reproduces_the_run() {
    let place = Place::new();
    place.done("train tiny.toml --seed 7 --epochs 3 --batch 20 --set optimizer.momentum=0.8 --out a");
    assert_eq!(place.list("a"), FILES);

    let recipe = Recipe::parse(&place.text("a/recipe.toml"), "a/recipe.toml").unwrap();
    assert_eq!((recipe.train.seed, recipe.epochs(), recipe.data.batch), (7, 3, 20));
    assert_eq!(recipe.optimizer.method, Method::Sgd { momentum: 0.8, nesterov: false });

    let lines: Vec<String> = place.text("a/metrics.jsonl").lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3);
    for (i, line) in lines.iter().enumerate() {
        // In this order, as the contract lists them.
        let names = ["epoch", "train_loss", "valid_loss", "accuracy", "top5", "lr", "seconds", "images_per_second"];
        let places: Vec<usize> = names.iter().map(|name| line.find(&format!("\"{name}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{line}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(keys(&value).len(), names.len(), "{line}");
        assert_eq!(value["epoch"], i + 1);
        assert!(value["accuracy"].as_f64().unwrap() <= value["top5"].as_f64().unwrap());
        assert!(names.iter().all(|name| value[name].as_f64().unwrap().is_finite()));
    }

    let run = place.json("a/run.json");
    let expected = ["backend", "dataset", "dataset_checksum", "handgrad", "simd", "target", "threads"];
    assert_eq!(keys(&run), expected);
    assert_eq!((&run["backend"], &run["handgrad"]), (&"cpu".into(), &env!("CARGO_PKG_VERSION").into()));
    assert!(place.text("a/curves.svg").starts_with("<svg"));

    // The best model is that of the epoch with the highest accuracy, the first of equals.
    let metrics = place.metrics("a");
    let accuracy = |i: usize| metrics[i]["accuracy"].as_f64().unwrap();
    let best = (0..3).fold(0, |best, i| if accuracy(i) > accuracy(best) { i } else { best });
    let notes = |name: &str| model_file::load(place.path(name)).unwrap().info().notes.clone();
    assert_eq!(notes("a/best.safetensors")["epoch"], (best + 1).to_string());
    assert_eq!(notes("a/model.safetensors")["epoch"], "3");
    assert_eq!(notes("a/model.safetensors")["recipe"], place.text("a/recipe.toml"));

    // The folder's recipe by itself gives the same run, bit for bit.
    place.done("train a/recipe.toml --out b");
    assert_eq!(place.model("a"), place.model("b"));
    assert_eq!(place.metrics("a"), place.metrics("b"));
    assert_eq!(place.text("a/recipe.toml"), place.text("b/recipe.toml"));
}

#[test]
fn threads_do_not_change_a_bit_and_seeds_change_everything() {
    let place = Place::new();
    place.write("bn.toml", &TINY.replace("convnet2", "quickstart"));
    place.write("res.toml", &TINY.replace("\"convnet2\"", "\"resnet2\"\npublished = true\ndropout = 0.3"));
    for recipe in ["tiny", "bn", "res"] {
        let train = |more: &str, out: &str| {
            place.done(&format!("train {recipe}.toml --epochs 1 {more} --out {recipe}{out}"));
            place.model(&format!("{recipe}{out}"))
        };
        let one = train("--threads 1", "1");
        assert!(one == train("--threads 2", "2"), "{recipe}");
        assert!(one == train("--threads 3 --seed 0", "3"), "{recipe}");
        assert_eq!(place.metrics(&format!("{recipe}1")), place.metrics(&format!("{recipe}2")));
        train("--seed 1", "4");
        let loss = |out: &str| place.metrics(&format!("{recipe}{out}"))[0]["train_loss"].as_f64().unwrap();
        assert_ne!(loss("1"), loss("4"), "{recipe}");
    }
}

#[test]
fn the_reference_backend_trains_to_nearly_the_same_losses() {
    let place = Place::new();
    place.write("bn.toml", &TINY.replace("convnet2", "quickstart").replace("0.01", "0.001"));
    place.done("train bn.toml --epochs 1 --backend reference --out r");
    place.done("train bn.toml --epochs 1 --out c");
    assert_eq!(place.json("r/run.json")["backend"], "reference");
    let loss = |folder: &str| place.metrics(folder)[0]["train_loss"].as_f64().unwrap();
    assert!((loss("r") - loss("c")).abs() < 1e-3 * loss("r"), "{} {}", loss("r"), loss("c"));
}

#[test]
fn without_a_name_a_run_gets_a_free_folder() {
    let place = Place::new();
    for _ in 0..2 {
        place.done("train tiny.toml --epochs 1");
    }
    assert_eq!(place.list("runs"), ["tiny", "tiny-2"]);
    // Runs that start at the same time do not mix.
    let children: Vec<_> =
        (0..3).map(|_| place.command(["train", "tiny.toml", "--epochs", "1"]).spawn().unwrap()).collect();
    for child in children {
        let ran = crate::common::ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    assert_eq!(place.list("runs"), ["tiny", "tiny-2", "tiny-3", "tiny-4", "tiny-5"]);
    let model = place.model("runs/tiny");
    assert!((2..=5).all(|i| place.model(&format!("runs/tiny-{i}")) == model));
}

#[test]
fn a_folder_with_a_run_is_never_overwritten() {
    let place = Place::new();
    place.done("train tiny.toml --epochs 1 --out a");
    let before = place.model("a");
    place.fails("train tiny.toml --epochs 1 --seed 5 --out a", 2, &["a", "already holds a run", "--resume"]);
    assert_eq!(place.model("a"), before);
    // Nor is what is left of one.
    std::fs::remove_file(place.path("a/recipe.toml")).unwrap();
    place.fails("train tiny.toml --epochs 1 --out a", 2, &["a", "already holds a run"]);
    assert_eq!((place.model("a"), place.metrics("a").len()), (before, 1));
}

#[test]
fn a_named_dataset_lies_in_the_folder_of_datasets() {
    let place = Place::new();
    std::fs::create_dir(place.path("sets")).unwrap();
    std::fs::rename(place.path("data.hgd"), place.path("sets/mine.hgd")).unwrap();
    place.write("tiny.toml", &TINY.replace("data.hgd", "mine"));
    place.fails("train tiny.toml", 2, &["mine", "HANDGRAD_DATA"]);
    let mut command = place.command(["train", "tiny.toml", "--epochs", "1"]);
    command.env("HANDGRAD_DATA", place.path("sets"));
    let ran = crate::common::finish(command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // A resumed run knows where it lay.
    place.done("train --out runs/tiny --resume");
}

/// Weight decay spares normalisations and biases where the recipe says so, by what they are, not by their names.
#[test]
fn decay_of_norms_and_biases_is_a_choice() {
    let place = Place::new();
    // A huge decay, a tiny rate: what decays is halved, what does not stays.
    let optimizer = "[optimizer]\nname = \"sgd\"\nmomentum = 0\nweight_decay = 5e8\ndecay = \"decoupled\"";
    let base = TINY.replace("convnet2", "quickstart").replace("0.01", "1e-9").replace("batch = 32", "batch = 300");
    let norms = |folder: &str| -> (Vec<f32>, Vec<f32>) {
        let params = model_file::load(place.path(format!("{folder}/model.safetensors"))).unwrap().params().unwrap();
        let of = |norm: bool| {
            let infos =
                params.table().iter().filter(|info| info.name.contains("bn") == norm && info.name != "out.bias");
            infos.flat_map(|info| params.values()[info.range()].to_vec()).collect()
        };
        (of(true), of(false))
    };
    for (spared, key) in [(false, ""), (true, "\ndecay_norm_and_bias = false")] {
        let name = format!("spared-{spared}");
        place.write(&format!("{name}.toml"), &format!("{base}{optimizer}{key}"));
        place.done(&format!("train {name}.toml --epochs 1 --out {name}"));
        let (norm, _) = norms(&name);
        // Scales start at 1, shifts at 0.
        let scales = norm.iter().filter(|v| **v > 0.1);
        assert!(scales.clone().count() > 0, "{norm:?}");
        let expected = if spared { 1.0 } else { 0.5 };
        assert!(scales.clone().all(|v| (v - expected).abs() < 1e-3), "{spared}: {norm:?}");
    }
    let (plain, spared) = (norms("spared-false").1, norms("spared-true").1);
    assert!(!plain.is_empty() && plain == spared);
}

#[test]
fn several_runs_report_mean_and_spread() {
    let place = Place::new();
    let summary = place.done("train tiny.toml --epochs 1 --seed 4 --runs 3 --out all --json").json();
    assert_eq!(place.list("all"), ["runs.toml", "seed-4", "seed-5", "seed-6", "summary.json"]);
    assert_eq!(place.json("all/summary.json"), summary);
    let accuracies: Vec<f64> = (4..7)
        .map(|seed| place.json(format!("all/seed-{seed}/result.json"))["last"]["accuracy"].as_f64().unwrap())
        .collect();
    let mean = accuracies.iter().sum::<f64>() / 3.0;
    assert!((summary["accuracy"]["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert_eq!(summary["runs"][2]["seed"], 6);
    assert_eq!(summary["runs"][1]["accuracy"], accuracies[1]);
    // Each is the run that it would be alone.
    place.done("train tiny.toml --epochs 1 --seed 5 --out alone");
    assert!(place.model("all/seed-5") == place.model("alone"));

    // More runs, and one that has not come to its end, are made up for; the others stay as they are.
    std::fs::remove_file(place.path("all/seed-6/result.json")).unwrap();
    let model = place.model("all/seed-6");
    let more = place.done("train --runs 4 --out all --resume");
    assert!(more.out.contains("4 runs") && place.path("all/seed-7/result.json").exists(), "{}", more.out);
    assert!(place.model("all/seed-6") == model && place.path("all/seed-6/result.json").exists());
    place.fails("train tiny.toml --runs 2 --out all", 2, &["all", "already holds runs", "--resume"]);
    place.fails("train tiny.toml --runs 2 --resume", 2, &["--resume", "--out"]);
    place.fails("train tiny.toml --runs 2 --seed 1 --out all --resume", 2, &["another recipe"]);
    place.fails("train tiny.toml --runs 0", 2, &["--runs"]);
    place.fails("train tiny.toml --runs 2 --seed 9223372036854775806", 2, &["--seed", "below 2^63"]);
    place.fails("train tiny.toml --runs-reuse", 2, &["--runs"]);
    place.fails("train tiny.toml --set model.name=convnet9 --runs 2 --out none", 2, &["convnet9"]);
    assert!(!place.path("none").exists());
    place.done("train tiny.toml --epochs 1 --runs 1");
    place.done("train tiny.toml --epochs 1 --runs 1");
    assert_eq!(place.list("runs"), ["tiny", "tiny-2"]);
}

#[test]
fn a_run_can_begin_with_a_model_and_runs_with_that_of_the_one_before() {
    let place = Place::new();
    place.done("train tiny.toml --epochs 1 --runs 3 --runs-reuse --out chain");
    place.done("train tiny.toml --epochs 1 --seed 1 --from chain/seed-0/model.safetensors --out second");
    assert!(place.model("second") == place.model("chain/seed-1"));
    let from = place.json("second/run.json")["from"]["file"].as_str().unwrap().to_owned();
    assert!(from.ends_with("chain/seed-0/model.safetensors") && std::path::Path::new(&from).is_absolute());
    // A run that was stopped before its first checkpoint begins with the same model again.
    std::fs::remove_file(place.path("second/checkpoint.safetensors")).unwrap();
    std::fs::remove_file(place.path("second/metrics.jsonl")).unwrap();
    place.done("train --out second --resume");
    assert!(place.model("second") == place.model("chain/seed-1"));
    // The second run of a chain begins better than the first.
    let loss = |seed: u32| place.metrics(&format!("chain/seed-{seed}"))[0]["train_loss"].as_f64().unwrap();
    assert!(loss(1) < loss(0) && loss(2) < loss(1));
    place.write("other.toml", &TINY.replace("convnet2", "quickstart"));
    place.fails("train other.toml --from second/model.safetensors --out wrong", 1, &["model.safetensors"]);
    place.fails("train tiny.toml --from nothing.safetensors --out wrong", 1, &["nothing.safetensors"]);
    assert!(!place.path("wrong").exists());
}

/// A factor of 0 on the rate freezes parameters to the bit; others learn at a rate of their own.
#[test]
fn groups_freeze_and_slow_down() {
    let place = Place::new();
    let optimizer = "[optimizer]\nname = \"ranger\"\nweight_decay = 0.1\n[[optimizer.group]]\npattern = \"layers.0.*\"\n\
                     lr_scale = 0\n[[optimizer.group]]\npattern = \"layers.1.*\"\nlr_scale = 1e-3\n";
    place.write("groups.toml", &format!("{TINY}{optimizer}"));
    place.done("train groups.toml --epochs 1 --out one");
    place.done("train groups.toml --epochs 2 --out two");
    let params =
        |folder: &str| model_file::load(place.path(format!("{folder}/model.safetensors"))).unwrap().params::<f32>();
    let (one, two) = (params("one").unwrap(), params("two").unwrap());
    let moved = |prefix: &str| -> f32 {
        let infos = one.table().iter().filter(|info| info.name.starts_with(prefix));
        infos.flat_map(|info| info.range()).map(|i| (one.values()[i] - two.values()[i]).abs()).fold(0.0, f32::max)
    };
    assert_eq!(moved("layers.0."), 0.0);
    assert!(moved("layers.1.") > 0.0 && moved("layers.1.") < 1e-4, "{}", moved("layers.1."));
    assert!(moved("layers.2.") > 2e-3, "{}", moved("layers.2."));
}

/// Outputs beyond the dataset's classes: trained, evaluated and predicted with one rule.
#[test]
fn a_head_may_have_more_outputs_than_the_dataset_classes() {
    let place = Place::new();
    let train = "train tiny.toml --set model.classes=40 --set train.label_smoothing=0.1 --set train.tta=1";
    let result = place.done(&format!("{train} --out wide --json")).json();
    let model = model_file::load(place.path("wide/model.safetensors")).unwrap();
    assert_eq!((model.info().classes.len(), model.graph().shape(model.graph().output()).c), (10, 40));
    let evaluated = place.done("eval wide/model.safetensors --data data.hgd --json").json();
    assert_eq!(evaluated["accuracy"], result["last"]["accuracy"]);
    assert_eq!(evaluated["per_class"].as_array().unwrap().len(), 10);
    let tta = place.done("eval wide/model.safetensors --data data.hgd --tta 1 --json").json();
    assert_eq!(tta["accuracy"], result["tta_accuracy"]);
    // The softmax is over all outputs, so that the named ones share less than 1.
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pictures/samples.png");
    let predicted = place.done(&format!("predict wide/model.safetensors {picture} --top 40 --json")).json();
    let predictions = predicted[0]["predictions"].as_array().unwrap();
    let sum: f64 = predictions.iter().map(|p| p["probability"].as_f64().unwrap()).sum();
    assert!(predictions.len() == 10 && sum > 0.1 && sum < 0.9999, "{sum} {predicted}");
    // It goes on, and begins another run.
    place.done("train --out wide --resume");
    place.done("train tiny.toml --epochs 1 --set model.classes=40 --from wide/model.safetensors --out more");
    place.done("lr-find tiny.toml --rule torch --set model.classes=40");
    let parameters =
        |more: &str| place.done(&format!("summary tiny.toml --json {more}")).json()["total_params"].as_u64().unwrap();
    place.write("wide.toml", &place.text("wide/recipe.toml"));
    assert_eq!(parameters("--classes 40") - parameters(""), 30 * 81);
    assert_eq!(place.done("summary wide.toml --json").json()["total_params"], parameters("--classes 40"));
    place.done("bench wide.toml --batch 2 --seconds 0.01");
    place.fails("train tiny.toml --set model.classes=9 --out few", 2, &["model.classes", "10 or more"]);
    assert!(!place.path("few").exists());
}

/// Other classes: an error that says what to do, then a head that begins anew, also where the run is resumed from nothing.
#[test]
fn a_run_can_begin_with_a_model_of_other_classes() {
    let place = Place::new();
    place.done("train tiny.toml --epochs 1 --set model.classes=12 --out twelve");
    let from = "--from twelve/model.safetensors";
    let wanted = ["out.weight [12, 80] instead of [10, 80]", "--new-head", "model.classes"];
    place.fails(&format!("train tiny.toml {from} --out a"), 1, &wanted);
    assert!(!place.path("a").exists());
    place.fails("train tiny.toml --new-head --out a", 2, &["--from"]);
    place.done(&format!("train tiny.toml {from} --new-head --out a"));
    let first = place.metrics("a");
    place.done("train tiny.toml --out fresh");
    assert_ne!(first, place.metrics("fresh"));
    for file in ["checkpoint.safetensors", "metrics.jsonl"] {
        std::fs::remove_file(place.path(format!("a/{file}"))).unwrap();
    }
    place.done("train --out a --resume");
    assert_eq!(place.metrics("a"), first);
    place.done(&format!("train tiny.toml --epochs 1 {from} --new-head --runs 2 --runs-reuse --out chain"));
    assert_eq!(place.json("chain/seed-1/run.json")["from"]["new_head"], false);
}
