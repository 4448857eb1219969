//! `handgrad schedule` and `handgrad lr-find`.

use crate::common::{Place, TINY};

/// E2's schedule: 5 epochs of 141 steps.
const FLAT: &str = "schedule tiny.toml --steps-per-epoch 141 --set phase.0.schedule=flat_cosine --set phase.0.epochs=5 \
                    --set phase.0.lr=3e-3";

#[test]
fn a_schedule_is_shown_as_table_json_and_picture() {
    let place = Place::new();
    let ran = place.done(&format!("{FLAT} --out lr.svg"));
    let rows: Vec<Vec<&str>> = ran.out.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(ran.out.lines().next().unwrap(), "tiny: 5 epochs of 141 steps");
    assert_eq!(rows[0], ["0.00", "0", "3.000e-3", "0.9000"]);
    assert_eq!(rows[4][..2], ["4.00", "564"]);
    assert_eq!(rows[5], ["4.99", "704", "2.683e-7", "0.9000"]);
    assert_eq!(rows[6], ["curves:", "lr.svg"]);
    let svg = place.text("lr.svg");
    assert!(svg.contains("Learning rate") && svg.contains("Momentum"));

    let json = place.done(&format!("{FLAT} --json")).json();
    let points = json["points"].as_array().unwrap();
    assert_eq!((json["steps_per_epoch"].as_u64(), points.len()), (Some(141), 705));
    assert_eq!(points[528]["lr"], 3e-3);
    assert!((points[704]["lr"].as_f64().unwrap() - 2.6828e-7).abs() < 5e-12);

    // One cycle moves the momentum too. The steps are those of the dataset: 300 images in batches of 32.
    let json = place.done("schedule tiny.toml --set phase.0.schedule=one_cycle --json").json();
    assert_eq!(json["steps_per_epoch"], 10);
    assert_eq!(json["points"][5]["momentum"], 0.85);
    let json = place.done("schedule quickstart --set data.drop_last=true --set data.batch=1000 --json").json();
    assert_eq!(json["steps_per_epoch"], 20);
    place.done("schedule cifar10-resnet-32ep");
    place.fails("schedule tiny.toml --steps-per-epoch 0", 2, &["--steps-per-epoch"]);
    place.fails("schedule tiny.toml --set phase.0.schedule=flat", 2, &["flat_cosine"]);
}

#[test]
fn the_finder_suggests_rates_and_leaves_no_trace() {
    let place = Place::new();
    place.done("train tiny.toml --epochs 1 --out before");
    let files = place.list("");
    let json = place.done("lr-find tiny.toml --json").json();
    let points = json["points"].as_array().unwrap();
    assert!((20..=100).contains(&points.len()), "{}", points.len());
    assert_eq!(points[0]["lr"], 1e-7);
    for name in ["valley", "steep", "minimum"] {
        let lr = json["suggestions"][name].as_f64().unwrap();
        assert!((1e-8..10.0).contains(&lr), "{name} {lr}");
    }
    assert_eq!(place.list(""), files);
    // The same again, and the run after it is the run before it.
    assert_eq!(place.done("lr-find tiny.toml --json --threads 1").json(), json);
    place.done("train tiny.toml --epochs 1 --out after");
    assert!(place.model("before") == place.model("after"));

    let ran = place.done("lr-find tiny.toml --rule torch --set optimizer.name=adamw --batch 64 --out lr.svg");
    for text in ["valley:", "steep:", "minimum:", "curve:    lr.svg"] {
        assert!(ran.out.contains(text), "{text}:\n{}", ran.out);
    }
    assert!(place.text("lr.svg").contains("valley"));
    // An epoch of 10 steps is too short for E1's rule; with accumulation it is shorter still.
    let ran = place.done("lr-find tiny.toml --rule e1");
    assert!(ran.out.starts_with("steps:    10, too few"), "{}", ran.out);
    let json = place.done("lr-find tiny.toml --rule e1 --set optimizer.accumulate=3 --json").json();
    assert_eq!((json["points"].as_array().unwrap().len(), &json["suggestions"]), (4, &serde_json::Value::Null));
    place.fails("lr-find tiny.toml --rule smith", 2, &["--rule", "fastai, e1 or torch"]);
    place.write("bn.toml", &TINY.replace("convnet2", "convnet9"));
    place.fails("lr-find bn.toml", 2, &["convnet9"]);
}

#[test]
fn an_estimate_measures_steps_and_leaves_no_trace() {
    let place = Place::new();
    let estimate = place.done("estimate tiny.toml --steps 6 --json").json();
    let number = |key: &str| estimate[key].as_f64().unwrap_or_else(|| panic!("{key}: {estimate}"));
    for key in ["images_per_second", "evaluated_per_second", "peak_bytes", "hours"] {
        assert!(number(key) > 0.0, "{key}: {estimate}");
    }
    assert_eq!((&estimate["steps"], &estimate["epochs"]), (&6.into(), &2.into()));
    // The first step is that of a run, whose seed it has.
    let trained = place.done("train tiny.toml --json").json();
    assert!(number("first_loss") > trained["last"]["train_loss"].as_f64().unwrap(), "{estimate} {trained}");
    let hours = 2.0 * (300.0 / number("images_per_second") + 100.0 / number("evaluated_per_second")) / 3600.0;
    assert!((number("hours") / hours - 1.0).abs() < 1e-9, "{estimate}");
    assert!(!place.path("runs/tiny-2").exists());
    let text = place.done("estimate tiny.toml --steps 4").out;
    assert!(text.contains("hours for 2 epochs"), "{text}");
    place.fails("estimate tiny.toml --steps 0", 2, &["--steps"]);
    place.fails("estimate tiny.toml --set phase.0.lr=1e30", 1, &["not finite"]);
}
