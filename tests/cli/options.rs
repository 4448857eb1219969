//! The options of E2's script, by the keys and flags that docs/recipes.md names for them.

use handgrad::recipe::Recipe;

use crate::common::Place;

/// Option, assignments, and what the recipe then says.
const OPTIONS: [(&str, &[&str], &[&str]); 19] = [
    ("lr", &["phase.0.lr=8e-3"], &["lr = 0.008"]),
    ("size", &["data.framing.to=224", "data.size=192"], &["size = 192", "to = 224"]),
    ("sqr_mom", &["optimizer.sqr_momentum=0.98"], &["sqr_momentum = 0.98"]),
    ("mom", &["optimizer.momentum=0.9"], &["\nmomentum = 0.9\n"]),
    ("eps", &["optimizer.eps=1e-4"], &["\neps = 0.0001\n"]),
    ("epochs", &["phase.0.epochs=80"], &["epochs = 80"]),
    ("bs", &["data.batch=32"], &["batch = 32"]),
    ("mixup", &["data.augment.mixup=0.2"], &["mixup = 0.2"]),
    ("sh", &["data.augment.erase.max_share=0.25"], &["max_share = 0.25", "\np = 0.3", "max_count = 3"]),
    ("opt", &["optimizer.name=adam"], &["name = \"adam\""]),
    ("arch", &["model.name=xresnet50"], &["name = \"xresnet50\""]),
    ("sa", &["model.sa=false"], &["sa = false"]),
    ("sym", &["model.sym=true"], &["sym = true"]),
    ("beta", &["optimizer.beta=50"], &["\nbeta = 50.0"]),
    ("act_fn", &["model.act=relu"], &["act = \"relu\""]),
    ("fp16", &["train.precision=fp16"], &["precision = \"fp16\""]),
    ("pool", &["model.pool=max_blur"], &["pool = \"max_blur\""]),
    ("wd", &["optimizer.weight_decay=1e-3"], &["weight_decay = 0.001"]),
    ("woof or nette", &["data.dataset=imagenette2-320"], &["dataset = \"imagenette2-320\""]),
];

const RECIPE: &str = "woof-xse_resnext18";

#[test]
fn every_option_of_e2_is_a_key() {
    let published = Recipe::load(RECIPE).unwrap().to_toml().unwrap();
    for (option, assignments, wanted) in OPTIONS {
        let mut recipe = Recipe::load(RECIPE).unwrap();
        assignments.iter().for_each(|assignment| recipe.set(assignment).unwrap());
        let text = recipe.to_toml().unwrap();
        for line in wanted {
            assert!(text.contains(line), "{option}: no {line} in\n{text}");
            // What the published run does not say anyway.
            assert!(!published.contains(line) || *line == "sa = false", "{option}");
        }
        assert_eq!(Recipe::parse(&text, &format!("{RECIPE}.toml")).unwrap(), recipe, "{option}");
    }
}

/// All of them at once: `--set`, the short flags, `runs`.
#[test]
fn a_run_takes_all_options_together() {
    let place = Place::new();
    place.draw("nette.hgd", 12, 10, 0);
    let sets = "phase.0.lr=8e-3 data.size=64 optimizer.sqr_momentum=0.98 optimizer.momentum=0.9 optimizer.eps=1e-4 \
                model.sa=true model.sym=true optimizer.beta=50 model.act=silu model.pool=max_blur \
                optimizer.weight_decay=1e-3";
    let sets: String = sets.split_whitespace().map(|set| format!(" --set {set}")).collect();
    let args = format!("{RECIPE}{sets} --epochs 1 --batch 6 --data nette.hgd --runs 2 --runs-reuse --out runs");
    place.done(&format!("train {args}"));
    for seed in [0, 1] {
        let text = place.text(format!("runs/seed-{seed}/recipe.toml"));
        for line in [
            "lr = 0.008",
            "size = 64",
            "sqr_momentum = 0.98",
            "eps = 0.0001",
            "batch = 6",
            "beta = 50.0",
            "sym = true",
            "act = \"silu\"",
            "pool = \"max_blur\"",
            "weight_decay = 0.001",
            "epochs = 1",
            &format!("seed = {seed}"),
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert_eq!(place.metrics(&format!("runs/seed-{seed}")).len(), 1);
    }
    assert_eq!(place.json("runs/summary.json")["reuse"], true);
    // The precision is asked for, and refused: this backend has f32.
    place.fails(&format!("train {RECIPE} --precision fp16 --data nette.hgd"), 2, &["precision", "fp16", "f32"]);
}

/// `dump`: the model before it is trained, with every change.
#[test]
fn a_summary_shows_the_changed_model() {
    let place = Place::new();
    let params = |args: &str| place.done(&format!("summary {args} --json")).json()["total_params"].as_u64().unwrap();
    assert_eq!(params(RECIPE), 13_142_123);
    assert_eq!(params(&format!("{RECIPE} --set model.sa=false")), 13_142_123 - 64 * 64 - 1);
    assert_eq!(params(&format!("{RECIPE} --set model.name=xresnet50")), 23_613_291);
    place.fails(&format!("summary {RECIPE} --set model.sale=1"), 2, &["model.sale", "did you mean"]);
    place.done("train tiny.toml --epochs 1 --out a");
    place.fails("summary a/model.safetensors --set model.sa=true", 2, &["--set"]);
}
