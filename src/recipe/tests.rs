use proptest::prelude::*;

use super::*;
use crate::data::{Affine, Augment, Erase, Flip, Jitter, Outside, RandomCrop};
use crate::infer::Views;
use crate::resample::Framing;
use crate::schedule::Schedule;
use crate::train::whiten::Whiten;

pub(super) const SMALL: &str = r#"
title = "a test"
model = "simplenet"
[data]
dataset = "synth"
[optimizer]
momentum = 0.5
[[phase]]
epochs = 2
lr = 0.1
"#;

fn small() -> Recipe {
    Recipe::parse(SMALL, "small.toml").unwrap()
}

fn sgd(momentum: f64) -> Method {
    Method::Sgd { momentum, nesterov: false }
}

fn message(text: &str) -> String {
    let error = Recipe::parse(text, "my.toml").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    error.to_string()
}

#[test]
fn defaults_are_filled_in() {
    let r = small();
    assert_eq!((r.name.as_str(), r.title.as_str(), r.model.name.as_str()), ("small", "a test", "simplenet"));
    assert_eq!((r.data.size, r.data.batch, r.data.drop_last), (32, 256, false));
    assert_eq!(r.data.normalise, Normalise::Named(NormaliseBy::Dataset));
    assert_eq!(r.data.augment, Augment::NONE);
    assert_eq!((r.optimizer.method, r.optimizer.accumulate, r.optimizer.clip_norm), (sgd(0.5), 1, None));
    assert_eq!((r.train.seed, r.train.tta, r.train.precision), (0, Tta::Passes(0), Precision::F32));
    let phase = Phase { lr: 0.1, lsuv: false, length: Length::Epochs(2), schedule: Schedule::Constant };
    assert_eq!((r.phases, r.train.checkpoint_minutes), (vec![phase], 5.0));
}

#[test]
fn every_built_in_recipe_reads_and_survives_a_round_trip() {
    let mut names = Vec::new();
    for recipe in Recipe::builtins() {
        let recipe = recipe.unwrap();
        let text = recipe.to_toml().unwrap();
        assert_eq!(Recipe::parse(&text, &recipe.name).unwrap(), recipe, "{text}");
        names.push(recipe.name);
    }
    let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes"))
        .unwrap()
        .map(|f| f.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    names.sort();
    assert_eq!(names, files, "recipes/ and the list in builtin.rs differ");
}

/// The published runs of E1, once more: model, weight decay, and for each fit its rate, cycles and epochs.
#[test]
fn the_published_runs_are_the_published_ones() {
    let constant = |lr, epochs| Phase { lr, lsuv: false, length: Length::Epochs(epochs), schedule: Schedule::Constant };
    let sgdr = |lr, cycles, cycle_len, cycle_mult| {
        let schedule = Schedule::Sgdr { cycle_len, cycle_mult, warm_start: true };
        Phase { lr, lsuv: false, length: Length::Cycles(cycles), schedule }
    };
    let (seven, thirty_two) = (sgdr(1e-2, 3, 1, 2), sgdr(1e-2, 8, 4, 1));
    assert_eq!((seven.epochs(), thirty_two.epochs()), (7, 32));
    let first = constant(1e-2, 2);
    for (name, wd, phases) in [
        ("cifar10-simplenet", 0.0, vec![first.clone(), sgdr(1e-2, 2, 1, 1)]),
        ("cifar10-convnet", 0.0, vec![constant(1e-1, 2), sgdr(1e-1, 4, 1, 1)]),
        ("cifar10-convnet2", 0.0, vec![constant(1e-1, 2), sgdr(1e-1, 2, 1, 1)]),
        ("cifar10-convbnnet", 0.0, vec![constant(3e-2, 2), sgdr(1e-1, 4, 1, 1)]),
        ("cifar10-convbnnet2", 0.0, vec![first.clone()]),
        ("cifar10-resnet", 1e-5, vec![first.clone()]),
        ("cifar10-resnet-7ep", 1e-5, vec![first.clone(), seven.clone()]),
        ("cifar10-resnet-32ep", 1e-5, vec![first.clone(), seven.clone(), thirty_two.clone()]),
        ("cifar10-resnet2", 1e-6, vec![first.clone()]),
        ("cifar10-resnet2-7ep", 1e-6, vec![first.clone(), seven.clone()]),
        ("cifar10-resnet2-32ep", 1e-6, vec![first.clone(), seven.clone(), thirty_two.clone()]),
    ] {
        let r = Recipe::builtin(name).unwrap();
        assert_eq!((r.optimizer.weight_decay, &r.phases), (wd, &phases), "{name}");
        assert_eq!((r.optimizer.method, r.optimizer.decay), (sgd(0.9), DecayKind::Coupled));
        assert_eq!((r.data.batch, r.data.drop_last, r.data.augment), (256, false, Augment::CIFAR));
        let (mean, std) = ([0.4914, 0.48216, 0.44653], [0.24703, 0.24349, 0.26159]);
        assert_eq!(r.data.normalise, Normalise::Given { mean, std });
        assert_eq!(r.model.dropout, name.contains("resnet2").then_some(0.2));
        assert_eq!(r.model.published, name.contains("bn") || name.contains("res"), "{name}");
        assert_eq!((r.train.label_smoothing, r.optimizer.clip_norm), (0.0, None));
        if let Ok(fixed) = Recipe::builtin(&format!("{name}-fixed")) {
            let model = ModelRecipe { published: false, ..r.model.clone() };
            assert_eq!(Recipe { name: fixed.name.clone(), title: fixed.title.clone(), model, ..r }, fixed);
        }
    }
}

/// E2's nets: parameters and FLOPs per image, where a figure was published.
#[test]
fn imagewoof_recipes_build_the_published_nets() {
    for (name, params, flops) in [
        ("xse_resnext18", 13_142_123, Some("1.510e9")),
        ("xse_resnext18-twist-published", 71_904_811, Some("7.471e9")),
        ("xse_resnext18-twist-3x3", 66_280_619, None),
        ("xse_resnext18-deep", 15_756_938, Some("1.499e9")),
        ("xse_resnext18-deep-twist-published", 93_371_722, Some("7.574e9")),
        ("xse_resnext18-deep-twist-3x3", 84_124_874, None),
        ("xresnet50", 23_613_291, Some("3.228e9")),
        ("xresnet50-twist-published", 361_698_987, Some("4.193e10")),
        ("xresnet50-twist-3x3", 46_296_171, None),
        ("xse_resnext50", 25_616_155, None),
        ("xse_resnext50-twist-3x3", 160_068_187, None),
    ] {
        let r = Recipe::builtin(&format!("woof-{name}")).unwrap();
        let graph = r.model.build(10, 128).unwrap();
        let summary = graph.summary();
        assert_eq!(summary.total_params, params, "{name}");
        let found = format!("{:.3e}", summary.flops as f64);
        assert!(flops.is_none_or(|flops| flops == found), "{name}: {found}");
        assert_eq!((r.epochs(), r.data.batch, r.data.drop_last, r.train.label_smoothing), (5, 64, true, 0.1));
        assert!(!r.optimizer.decay_norm_and_bias && matches!(r.optimizer.method, Method::Ranger(_)), "{name}");
    }
}

/// E3's nets and the record's, whose sizes tests/fixtures/make_twisted.py counts in PyTorch.
#[test]
fn convtwist_recipes_build_the_published_nets() {
    for (name, params, size, epochs) in [
        ("convtwist-80", 46_283_051, 128, 80),
        ("convtwist-second-80", 13_652_907, 128, 80),
        ("convtwist-second-192-5ep", 13_652_907, 192, 5),
        ("permuted-groups-80", 28_990_123, 128, 80),
        ("permuted-groups-192-5ep", 28_990_123, 192, 5),
        ("depthwise", 42_292_845, 128, 5),
        ("128-5ep-best", 30_826_295, 128, 5),
    ] {
        let r = Recipe::builtin(&format!("woof-{name}")).unwrap();
        let summary = r.model.build(10, r.data.size as usize).unwrap().summary();
        assert_eq!((summary.total_params, r.data.size, r.epochs()), (params, size, epochs), "{name}");
        let Method::Ranger(radam) = r.optimizer.method else { panic!("{name}: {:?}", r.optimizer.method) };
        assert!(radam.eps_before_debias && !r.optimizer.decay_norm_and_bias && r.data.drop_last, "{name}");
        assert_eq!(r.data.framing, Framing::Shorter { to: size as usize + 32 }, "{name}");
    }
}

/// E5 keeps the head of 1000 outputs; its one-cycle runs have 71 steps of 128 images per epoch.
#[test]
fn resnet18_recipes_are_e5s() {
    for name in ["sgd-step", "lr-found", "onecycle", "adamw"] {
        let r = Recipe::builtin(&format!("woof-resnet18-{name}")).unwrap();
        let summary = r.model.build(10, 224).unwrap().summary();
        assert_eq!((summary.total_params, r.data.size, r.data.batch, r.epochs()), (11_689_512, 224, 128, 40), "{name}");
        assert!(r.optimizer.decay_norm_and_bias && !r.data.drop_last, "{name}");
    }
}

#[test]
fn bag_of_tricks_recipes_are_e4s() {
    let lsuv = |name: &str| {
        let r = Recipe::builtin(name).unwrap();
        assert_eq!(r.optimizer.method, sgd(0.0), "{name}");
        let phases = r.phases.iter().map(|phase| (phase.length, phase.lsuv));
        phases.collect::<Vec<_>>()
    };
    let epochs = |epochs, lsuv| (Length::Epochs(epochs), lsuv);
    assert_eq!(lsuv("nette-bag-of-tricks"), [epochs(1, false), epochs(5, false), epochs(5, true)]);
    assert_eq!(lsuv("nette-bag-of-tricks-lsuv-fresh"), [epochs(5, true)]);
}

#[test]
fn unknown_keys_name_line_and_nearest_key() {
    let error = message(&SMALL.replace("momentum", "momentun"));
    assert!(
        error.starts_with("my.toml:7: optimizer.momentun: unknown key (expected one of name, momentum,"),
        "{error}"
    );
    assert!(error.ends_with("hint: did you mean `momentum`?"), "{error}");
    assert!(message(&SMALL.replace("[data]", "[date]")).contains("my.toml:4: date: unknown key"));
    // A misspelt required key is reported as misspelt, not as missing.
    assert!(message(&SMALL.replace("epochs", "epoch")).contains("phase.0.epoch: unknown key"));
    assert!(message(&SMALL.replace("[data]", "[data]\nqqqq = 1")).contains("data.qqqq: unknown key"));
    assert!(message("phse = 1").contains("did you mean `phase`?"));
}

#[test]
fn wrong_values_name_line_key_and_range() {
    for (old, new, wanted) in [
        (
            "momentum = 0.5",
            "momentum = 1.0",
            "my.toml:7: optimizer.momentum: 1.0 (expected a finite number from 0 to below 1)",
        ),
        ("momentum = 0.5", "momentum = \"high\"", "my.toml:7: optimizer.momentum: \"high\" (expected a finite number"),
        ("momentum = 0.5", "momentum = nan", "optimizer.momentum: nan (expected a finite number"),
        ("momentum = 0.5", "momentum = 0\nnesterov = true", "optimizer.nesterov: true without momentum"),
        ("momentum = 0.5", "weight_decay = -1e-4", "optimizer.weight_decay: -1e-4 (expected a finite number from 0)"),
        ("momentum = 0.5", "weight_decay = inf", "optimizer.weight_decay: inf"),
        ("momentum = 0.5", "weight_decay = 1e999", "optimizer.weight_decay: 1e999"),
        ("momentum = 0.5", "clip_norm = 0", "optimizer.clip_norm: 0 (expected a finite number above 0)"),
        ("momentum = 0.5", "accumulate = 0", "optimizer.accumulate: 0 (expected a whole number from 1 to 65536)"),
        ("momentum = 0.5", "decay = \"decouple\"", "did you mean `decoupled`?"),
        ("momentum = 0.5", "group = 3", "optimizer.group: 3 (expected sections: [[optimizer.group]])"),
        ("momentum = 0.5", "[[optimizer.group]]\nlr_scale = 2", "optimizer.group.0.pattern: missing"),
        ("momentum = 0.5", "name = \"rangr\"", "did you mean `ranger`?"),
        ("momentum = 0.5", "name = \"adam\"\nnesterov = true", "optimizer.nesterov: unknown key"),
        ("momentum = 0.5", "sqr_momentum = 0.9", "optimizer.sqr_momentum: unknown key"),
        ("momentum = 0.5", "name = \"adam\"\neps = 0", "optimizer.eps: 0 (expected a finite number above 0)"),
        ("momentum = 0.5", "name = \"adam\"\nsqr_momentum = 1", "optimizer.sqr_momentum: 1 (expected"),
        ("momentum = 0.5", "name = \"muon\"\ndecay = \"coupled\"", "optimizer.decay: \"coupled\" for muon"),
        ("momentum = 0.5", "lookahead = 0", "optimizer.lookahead: 0 (expected a whole number from 1"),
        ("momentum = 0.5", "lookahead_alpha = 0.5", "optimizer.lookahead_alpha: unknown key"),
        ("momentum = 0.5", "name = \"ranger\"\nlookahead_alpha = 2", "optimizer.lookahead_alpha: 2 (expected"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"flat\"", "phase.0.schedule: \"flat\" (expected one of constant"),
        ("lr = 0.1", "lr = 0.1\nstart = 0.5", "phase.0.start: unknown key"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"flat_cosine\"\nstart = 1.5", "phase.0.start: 1.5 (expected"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"cosine_up_down\"\nstart_lr = 1", "phase.0.end_lr: missing"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"one_cycle\"\ndiv = 0", "phase.0.div: 0 (expected"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"multi_step\"", "phase.0.milestones: missing"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"multi_step\"\nmilestones = []", "phase.0.milestones: a list of 0 numbers"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"multi_step\"\nmilestones = 3", "a list of numbers: [1, 2]"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"multi_step\"\nmilestones = [1.5]", "phase.0.milestones: 1.5 (expected"),
        (
            "lr = 0.1",
            "lr = 0.1\nschedule = \"piecewise\"\nat = [0.5, 0.5]\nfactors = [1, 1]",
            "phase.0.at: shares that do not rise",
        ),
        (
            "lr = 0.1",
            "lr = 0.1\nschedule = \"piecewise\"\nat = [0.5]\nfactors = [1, 1]",
            "phase.0.factors: 2 factors for 1 points",
        ),
        ("[data]", "[train]\nema = 1\n[data]", "train.ema: 1 (expected a finite number above 0 to below 1)"),
        ("lr = 0.1", "lr = 0", "my.toml:10: phase.0.lr: 0 (expected a finite number above 0)"),
        ("lr = 0.1", "", "my.toml:8: phase.0.lr: missing"),
        ("lr = 0.1", "lr = 0.1\ncycles = 2", "phase.0.cycles: not a key of this schedule"),
        ("lr = 0.1", "lr = 0.1\nschedule = \"sgdr\"", "phase.0.epochs: not a key of the schedule sgdr"),
        ("epochs = 2", "schedule = \"sgdr\"\ncycles = 900\ncycle_mult = 2", "phase.0.cycles: too many epochs"),
        ("epochs = 2", "epochs = 2.5", "phase.0.epochs: 2.5 (expected a whole number"),
        ("epochs = 2", "epochs = 99999999999999999999", "phase.0.epochs: 99999999999999999999 (expected a whole"),
        ("[data]", "[data]\nbatch = -1", "data.batch: -1 (expected a whole number from 1 to 65536)"),
        ("[data]", "[data]\nsize = 3\naugment = { pad = 4 }", "data.augment: pad 4 (expected at most the size, 3)"),
        ("[data]", "[data]\nnormalise = { mean = [0, 0, 0], std = [1, 0, 1] }", "data.normalise.std: 0 (expected"),
        (
            "[data]",
            "[data]\nnormalise = { mean = [0, 0], std = [1, 1, 1] }",
            "data.normalise.mean: a value of type array",
        ),
        ("[data]", "[data]\nnormalise = { std = [1, 1, 1] }", "data.normalise.mean: missing"),
        ("[data]", "[data]\naugment = \"cipher\"", "did you mean `cifar`?"),
        ("[data]", "[data]\naugment = { pad = 1, crop = {} }", "data.augment: augmentation: crop and pad = 1"),
        (
            "[data]",
            "[data]\naugment = { crop = { min_scale = 0 } }",
            "crop.min_scale: 0 (expected a finite number above",
        ),
        (
            "[data]",
            "[data]\naugment = { crop = { max_scale = 0.05 } }",
            "augment.crop: random crop: scales 0.08 to 0.05",
        ),
        ("[data]", "[data]\naugment = { crop = { ratio = [2, 1] } }", "augment.crop: random crop: scales"),
        ("[data]", "[data]\naugment = { crop = { ratio = 1 } }", "crop.ratio: 1 (expected two numbers"),
        ("[data]", "[data]\naugment = { mixup = -1 }", "augment.mixup: -1 (expected a finite number from 0 up to 100)"),
        ("[data]", "[data]\naugment = { jitter = { hue = 0.6 } }", "augment.jitter.hue: 0.6 (expected"),
        ("[data]", "[data]\naugment = { jitter = { hues = 0.1 } }", "did you mean `hue`?"),
        ("[data]", "[data]\naugment = { affine = { scale = [2, 1] } }", "data.augment.affine: affine map: "),
        ("[data]", "[data]\naugment = { affine = { fill = [0, 0, 0] } }", "affine.fill: unknown key"),
        ("[data]", "[data]\naugment = { affine = { outside = \"reflekt\" } }", "did you mean `reflect`?"),
        (
            "[data]",
            "[data]\naugment = { erase = { max_count = 0 } }",
            "erase.max_count: 0 (expected a whole number from 1",
        ),
        ("[data]", "[data]\naugment = { erase = 0.3 }", "augment.erase: 0.3 (expected a section"),
        ("[data]", "[data]\nframing = \"squish\"", "did you mean `squash`?"),
        ("[data]", "[data]\nframing = { to = 40 }", "data.framing.by: missing"),
        ("[data]", "[data]\nframing = { by = \"fill\", to = 40 }", "data.framing.to: unknown key"),
        (
            "[data]",
            "[data]\nframing = { by = \"shorter\", to = 31 }",
            "framing.to: 31 (expected a whole number from 32",
        ),
        ("\"synth\"", "\"\"", "data.dataset: \"\" (expected a text of one line"),
        ("\"a test\"", "\"a\\ntest\"", "my.toml:2: title: \"a\\ntest\" (expected a text of one line"),
        ("\"simplenet\"", "7", "my.toml:3: model: 7 (expected a text of one line"),
        ("[data]", "[data", "my.toml:4: "),
        ("[data]", "[data]\nsize = 32\nsize = 64", "my.toml:6: duplicate key"),
    ] {
        let error = message(&SMALL.replace(old, new));
        assert!(error.contains(wanted), "{new}:\n{error}\ndoes not contain\n{wanted}");
    }
    let still =
        SMALL.replace("momentum = 0.5", "momentum = 0").replace("lr = 0.1", "lr = 0.1\nschedule = \"one_cycle\"");
    assert!(message(&still).contains("phase.0.cycle_momentum: a momentum that moves, and an optimizer without one"));
    assert!(Recipe::parse(&(still + "cycle_momentum = false"), "my.toml").is_ok());
    assert!(message("").contains("missing"));
    assert!(message(SMALL.split("[[").next().unwrap()).contains("phase: missing"));
    assert!(message(&SMALL.replace("[[phase]]", "[phase]")).contains("expected sections: [[phase]]"));
}

#[test]
fn every_key_has_an_effect_and_survives_a_round_trip() {
    let text = r#"
title = "all of it"
[model]
name = "resnet2"
published = true
classes = 1000
dropout = 0.25
[data]
dataset = "photos/my.hgd"
size = 64
batch = 7
drop_last = true
framing = { by = "squash", to = 72 }
normalise = "none"
augment = { pad = 2, flip = true }
[optimizer]
name = "sgd"
momentum = 0.8
nesterov = true
weight_decay = 1e-3
decay = "decoupled"
decay_norm_and_bias = false
lookahead = 5
lookahead_alpha = 0.25
clip_norm = 2
accumulate = 4
[[optimizer.group]]
pattern = "*.bias"
lr_scale = 2.0
weight_decay = 0
[[optimizer.group]]
pattern = "head.*"
[train]
seed = 9_223_372_036_854_775_807
label_smoothing = 0.1
checkpoint_minutes = 0
tta = 4
ema = 0.875
tensorboard = true
precision = "bf16"
[[phase]]
lr = 1
schedule = "step"
epochs = 6
every_epochs = 2
gamma = 0.5
[[phase]]
lr = 0.1
schedule = "sgdr"
cycles = 3
cycle_len = 2
cycle_mult = 2
warm_start = false
lsuv = true
"#;
    let r = Recipe::parse(text, "a/b/all.toml").unwrap();
    assert_eq!(r.name, "all");
    assert_eq!(
        r.model,
        ModelRecipe {
            name: "resnet2".into(),
            published: true,
            classes: Some(1000),
            dropout: Some(0.25),
            ..Default::default()
        }
    );
    let augment = Augment { pad: 2, flip: Flip::Random, ..Augment::NONE };
    let framing = Framing::Squash { to: (72, 72) };
    let normalise = Normalise::Named(NormaliseBy::None);
    let dataset = "photos/my.hgd".to_string();
    assert_eq!(r.data, DataRecipe { dataset, size: 64, batch: 7, drop_last: true, framing, normalise, augment });
    assert_eq!(r.optimizer.method, Method::Sgd { momentum: 0.8, nesterov: true });
    assert_eq!((r.optimizer.weight_decay, r.optimizer.decay), (1e-3, DecayKind::Decoupled));
    assert!(!r.optimizer.decay_norm_and_bias);
    assert_eq!(r.optimizer.lookahead, Some(LookaheadKeys::of(5, 0.25)));
    let rules = r.optimizer.rules();
    assert_eq!((rules[0].pattern.as_str(), rules[0].lr_scale, rules[0].weight_decay), ("*.bias", 2.0, Some(0.0)));
    assert_eq!((rules[1].pattern.as_str(), rules[1].lr_scale, rules[1].weight_decay), ("head.*", 1.0, None));
    assert_eq!((r.optimizer.clip_norm, r.optimizer.accumulate), (Some(2.0), 4));
    let (seed, precision) = (i64::MAX as u64, Precision::Bf16);
    let train = TrainRecipe {
        seed,
        label_smoothing: 0.1,
        checkpoint_minutes: 0.0,
        tta: Tta::Passes(4),
        ema: Some(0.875),
        precision,
        tensorboard: true,
        whiten: None,
    };
    assert_eq!(r.train, train);
    let step = Schedule::Step { every_epochs: 2, gamma: 0.5 };
    let sgdr = Schedule::Sgdr { cycle_len: 2, cycle_mult: 2, warm_start: false };
    assert_eq!(r.phases[0], Phase { lr: 1.0, lsuv: false, length: Length::Epochs(6), schedule: step });
    assert_eq!(r.phases[1], Phase { lr: 0.1, lsuv: true, length: Length::Cycles(3), schedule: sgdr });
    assert_eq!(r.epochs(), 6 + 2 + 4 + 8);
    assert_eq!(Recipe::parse(&r.to_toml().unwrap(), "all.toml").unwrap(), r);
}

#[test]
fn another_optimizer_or_schedule_begins_with_its_own_defaults() {
    let mut r = small();
    r.set("optimizer.clip_norm=3").unwrap();
    r.set("optimizer.weight_decay=0.5").unwrap();
    r.set("optimizer.name=ranger").unwrap();
    let fresh =
        Recipe::parse(&SMALL.replace("momentum = 0.5", "name = \"ranger\"\nclip_norm = 3"), "small.toml").unwrap();
    assert_eq!(r, fresh);
    r.set("phase.0.schedule=one_cycle").unwrap();
    r.set("phase.0.schedule=flat_cosine").unwrap();
    assert_eq!(r.phases[0].schedule, Schedule::FlatCosine { start: 0.75, end_factor: 1e-5 });
    assert_eq!((r.phases[0].lr, r.phases[0].epochs()), (0.1, 2));
}

#[test]
fn ways_to_an_image_of_the_size_have_names_and_sections() {
    let data =
        |lines: &str| Recipe::parse(&SMALL.replace("[data]", &format!("[data]\n{lines}")), "x.toml").unwrap().data;
    for (lines, framing) in [
        ("", Framing::Exact),
        ("framing = \"exact\"", Framing::Exact),
        ("framing = \"fill\"", Framing::Fill),
        ("framing = \"squash\"", Framing::Squash { to: (32, 32) }),
        ("framing = { by = \"squash\", to = 40 }", Framing::Squash { to: (40, 40) }),
        ("size = 224\nframing = { by = \"shorter\", to = 256 }", Framing::Shorter { to: 256 }),
    ] {
        assert_eq!(data(lines).framing, framing, "{lines}");
    }
    assert_eq!(data("normalise = \"imagenet\"").normalise, Normalise::Named(NormaliseBy::Imagenet));
    let crop = data("augment = { crop = { min_scale = 0.35 }, flip = true }").augment;
    let expected = RandomCrop { min_scale: 0.35, max_scale: 1.0, ratio: [0.75, 4.0 / 3.0] };
    assert_eq!(crop, Augment { flip: Flip::Random, crop: Some(expected), ..Augment::NONE });
    let text = "augment = { mixup = 0.4, cutmix = 1, erase = {}, jitter = { p = 0.8, hue = 0.1, contrast = 0.4 }, \
                affine = { degrees = 10, scale = [0.9, 1.1], outside = \"fill\", fill = [0.5, 0.25, 1] } }";
    let recipe = Recipe::parse(&SMALL.replace("[data]", &format!("[data]\n{text}")), "x.toml").unwrap();
    let fill = Outside::Fill { fill: [0.5, 0.25, 1.0] };
    let expected = Augment {
        mixup: 0.4,
        cutmix: 1.0,
        erase: Some(Erase { p: 0.3, max_share: 0.3, max_count: 3 }),
        jitter: Some(Jitter { p: 0.8, hue: 0.1, contrast: 0.4, ..Jitter::default() }),
        affine: Some(Affine { degrees: 10.0, scale: [0.9, 1.1], outside: fill, ..Affine::default() }),
        ..Augment::NONE
    };
    assert_eq!(recipe.data.augment, expected);
    assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), "x.toml").unwrap(), recipe);
    let text =
        "augment = { crop = { ratio = [0.5, 2] } }\nframing = { by = \"shorter\", to = 36 }\nnormalise = \"imagenet\"";
    let recipe = Recipe::parse(&SMALL.replace("[data]", &format!("[data]\n{text}")), "x.toml").unwrap();
    assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), "x.toml").unwrap(), recipe);
}

#[test]
fn set_reaches_what_experiment_e2_calls_mixup_and_sh() {
    let mut r = small();
    for assignment in [
        "data.augment.mixup=0.4",
        "data.augment.erase.max_share=0.2",
        "data.augment.affine.outside=fill",
        "data.augment.affine.fill=[1, 1, 1]",
    ] {
        r.set(assignment).unwrap();
    }
    let augment = r.data.augment;
    assert_eq!((augment.mixup, augment.erase), (0.4, Some(Erase { max_share: 0.2, ..Erase::default() })));
    assert_eq!(augment.affine.unwrap().outside, Outside::Fill { fill: [1.0; 3] });
    for assignment in ["data.augment.mixup=0", "data.augment.erase=", "data.augment.affine.outside=reflect"] {
        r.set(assignment).unwrap();
    }
    assert_eq!(r.data.augment, Augment { affine: Some(Affine::default()), ..Augment::NONE });
}

#[test]
fn set_changes_one_value_with_the_checks_of_a_file() {
    let mut r = small();
    for assignment in [
        "optimizer.weight_decay=1e-4",
        "optimizer.momentum = .75",
        "phase.0.lr=0.05",
        "data.dataset=some/where/else.hgd",
        "model.dropout=0.5",
        "data.normalise={ mean = [0.5, 0.5, 0.5], std = [1, 1, 1] }",
        "data.normalise.mean=[0.25, 0.5, 0.5]",
        "optimizer.clip_norm=1",
        "optimizer.clip_norm=",
        "train.precision=bf16",
    ] {
        r.set(assignment).unwrap_or_else(|e| panic!("{assignment}: {e}"));
    }
    assert_eq!((r.optimizer.weight_decay, r.optimizer.method, r.phases[0].lr), (1e-4, sgd(0.75), 0.05));
    assert_eq!((r.data.dataset.as_str(), r.model.dropout), ("some/where/else.hgd", Some(0.5)));
    assert_eq!(r.data.normalise, Normalise::Given { mean: [0.25, 0.5, 0.5], std: [1.0; 3] });
    assert_eq!((r.optimizer.clip_norm, r.train.precision), (None, Precision::Bf16));
    r.set_by("--batch", "data.batch", "64").unwrap();
    assert_eq!((r.data.batch, r.name.as_str()), (64, "small"));
}

#[test]
fn a_wrong_set_names_flag_and_key_and_changes_nothing() {
    let deep = format!("{}=1", ["a"; 50_000].join("."));
    for (assignment, wanted) in [
        ("optimizer.weight_decya=1", "--set: optimizer.weight_decya: unknown key"),
        ("optimizer.weight_decya=1", "did you mean `weight_decay`?"),
        ("optimiser.momentum=0", "--set: optimiser: unknown key"),
        ("optimizer.momentum=2", "--set: optimizer.momentum: 2"),
        ("phase.1.lr=2", "--set: phase.1.lr: phase has 1 entries"),
        ("phase.lr=2", "--set: phase.lr: phase is a list: phase.0, phase.1, …"),
        ("phase=2", "--set: phase: 2 (expected sections"),
        ("phase.0.lr=", "--set: phase.0.lr: missing"),
        ("title.x=1", "--set: title.x: title is a single value"),
        ("data.batch", "--set: \"data.batch\" (expected key=value)"),
        ("=3", "--set: : not a key"),
        ("data..batch=3", "not a key"),
        ("data.batch=3\n[x]", "--set: data.batch: \"3\\n[x]\""),
        (deep.as_str(), "not a key"),
    ] {
        let mut r = small();
        let error = r.set(assignment).unwrap_err();
        assert_eq!((error.kind(), &r), (ErrorKind::Usage, &small()));
        assert!(error.to_string().contains(wanted), "{error}\ndoes not contain\n{wanted}");
    }
    let error = small().set_by("--batch", "data.batch", "0").unwrap_err().to_string();
    assert!(error.starts_with("--batch: data.batch: 0 (expected a whole number from 1"), "{error}");
}

#[test]
fn a_number_of_epochs_cuts_or_stretches_the_phases() {
    let lengths = |name: &str, epochs| {
        let mut r = Recipe::builtin(name).unwrap();
        r.set_epochs(epochs).unwrap();
        assert_eq!(Recipe::parse(&r.to_toml().unwrap(), name).unwrap().phases, r.phases);
        r.phases.iter().map(|p| (p.epochs(), p.length)).collect::<Vec<_>>()
    };
    let (epochs, cycles) = (Length::Epochs, Length::Cycles);
    assert_eq!(lengths("cifar10-resnet-32ep", 41), [(2, epochs(2)), (7, cycles(3)), (32, cycles(8))]);
    assert_eq!(lengths("cifar10-resnet-32ep", 10), [(2, epochs(2)), (7, cycles(3)), (1, cycles(1))]);
    assert_eq!(lengths("cifar10-resnet-32ep", 9), [(2, epochs(2)), (7, cycles(3))]);
    assert_eq!(lengths("cifar10-resnet-32ep", 1), [(1, epochs(1))]);
    assert_eq!(lengths("cifar10-resnet", 5), [(5, epochs(5))]);
    assert_eq!(lengths("quickstart", 2), [(2, cycles(1))]);
    assert_eq!(Recipe::builtin("quickstart").unwrap().set_epochs(0).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn the_curve_of_the_rate_runs_through_all_phases() {
    let curve = Recipe::builtin("cifar10-resnet-7ep").unwrap().lr_curve(196);
    assert_eq!(curve.len(), 9 * 196);
    assert_eq!(curve[391], (391.0 / 196.0, 0.01)); // constant
    assert_eq!(curve[392], (2.0, 0.0001)); // warm start
    assert_eq!(curve[3 * 196], (3.0, 0.01)); // second cycle
    let mut long = small();
    long.set("phase.0.epochs=1000000").unwrap();
    let curve = long.lr_curve(u64::MAX);
    assert!(curve.len() < 5000 && curve.iter().all(|(x, lr)| x.is_finite() && *lr == 0.1));
    assert_eq!(long.lr_curve(0).last().unwrap().0, 999_999.0);
}

#[test]
fn load_knows_names_and_files() {
    assert_eq!(Recipe::load("cifar10-resnet").unwrap().name, "cifar10-resnet");
    let error = Recipe::load("cifar10-restnet").unwrap_err();
    assert!(error.to_string().contains("did you mean `cifar10-resnet`?"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(Recipe::load("no/such.toml").unwrap_err().kind(), ErrorKind::Io);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let load = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        Recipe::load(path.to_str().unwrap())
    };
    assert_eq!(load(SMALL.as_bytes()).unwrap().name, "mine");
    assert_eq!(load(b"\xff\xfe").unwrap_err().kind(), ErrorKind::Usage);
    assert!(load(&vec![b'#'; 2 << 20]).unwrap_err().to_string().contains("longer than 1 MiB"));
    assert_eq!(Recipe::load(folder.path().to_str().unwrap()).unwrap_err().kind(), ErrorKind::Io);
}

/// Each `key=value` of the table in docs/recipes.md.
#[test]
fn every_option_of_the_imagewoof_script_has_a_counterpart() {
    let docs = include_str!("../../docs/recipes.md").split("### The options of the published Imagewoof script").nth(1);
    let table = docs.and_then(|rest| rest.split("## ").next()).unwrap();
    let assignments: Vec<&str> = table.split('`').filter(|text| text.contains('=')).collect();
    assert!(assignments.len() >= 22, "{assignments:?}");
    let mut recipe = Recipe::builtin("woof-xse_resnext18").unwrap();
    for assignment in assignments {
        recipe.set(assignment).unwrap_or_else(|e| panic!("{assignment}: {e}"));
        let (key, value) = assignment.split_once('=').unwrap();
        let stored = toml::Value::try_from(&recipe).unwrap();
        let stored = key.split('.').fold(&stored, |table, key| match key.parse::<usize>() {
            Ok(number) => &table[number],
            Err(_) => &table[key],
        });
        let text = stored.to_string();
        let equal = text.trim_matches('"') == value || text.parse::<f64>().is_ok_and(|n| value.parse() == Ok(n));
        assert!(equal, "{assignment}: {text}");
    }
}

#[test]
fn the_documented_example_is_a_recipe() {
    let docs = include_str!("../../docs/recipes.md");
    let example = docs.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let r = Recipe::parse(example, "docs.toml").unwrap();
    assert_eq!((r.phases[0].epochs(), r.phases[1].epochs()), (2, 7));
    for recipe in Recipe::builtins() {
        let name = recipe.unwrap().name;
        let documented =
            ["-7ep", "-32ep", "-fixed"].iter().any(|end| name.ends_with(end)) || !name.starts_with("cifar10");
        assert!(documented || docs.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn precision_reads_its_names() {
    for (name, precision) in Precision::ALL {
        assert_eq!((name.parse::<Precision>().unwrap(), precision.to_string()), (precision, name.to_string()));
    }
    assert_eq!("f64".parse::<Precision>().unwrap_err().kind(), ErrorKind::Usage);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any damage to a recipe's text is an error of the user's or a recipe that can be written and read again.
    #[test]
    fn damaged_texts_are_errors_or_recipes(at in 0usize..600, junk in "[ -~\n]{0,6}|[0-9.e+-]{1,12}|.{0,3}", cut in 0usize..5) {
        let mut text: Vec<char> = Recipe::builtin("cifar10-resnet2-7ep").unwrap().to_toml().unwrap().chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, junk.chars());
        match Recipe::parse(&text.into_iter().collect::<String>(), "damaged.toml") {
            Ok(recipe) => prop_assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), "damaged.toml").unwrap(), recipe),
            Err(e) => prop_assert_eq!(e.kind(), ErrorKind::Usage),
        }
    }

    #[test]
    fn any_set_is_an_error_or_a_recipe(key in "(phase|optimizer|data|model|train|group|0|lr|[a-z.]{0,6}|\\.){1,5}", value in ".{0,12}") {
        let mut recipe = small();
        if recipe.set(&format!("{key}={value}")).is_err() {
            prop_assert_eq!(recipe, small());
        }
    }
}

/// What the speed run has, beyond its own recipe: each key in each of its forms.
#[test]
fn the_speed_runs_keys_have_short_and_long_forms() {
    let read = |from: &str, to: &str| {
        let r = Recipe::parse(&SMALL.replace(from, &format!("{from}\n{to}")), "small.toml").unwrap();
        assert_eq!(Recipe::parse(&r.to_toml().unwrap(), "small.toml").unwrap(), r, "{to}");
        r
    };
    let error = |from: &str, to: &str| {
        Recipe::parse(&SMALL.replace(from, &format!("{from}\n{to}")), "small.toml").unwrap_err().to_string()
    };
    let flip = |text: &str| read("[data]", &format!("augment = {{ flip = {text}, translate = 2 }}")).data.augment;
    for (text, expected) in [("true", Flip::Random), ("false", Flip::Never), ("\"alternating\"", Flip::Alternating)] {
        assert_eq!(flip(text), Augment { flip: expected, translate: 2, ..Augment::NONE });
    }
    assert!(error("[data]", "augment = { flip = \"alternate\" }").contains("alternating"));
    assert!(error("[data]", "augment = { translate = 32 }").contains("less than the size"));
    assert!(error("[data]", "augment = { translate = 1, pad = 1 }").contains("one of them"));

    let train = |text: &str| read("momentum = 0.5", &format!("[train]\n{text}")).train;
    assert_eq!(train("whiten = true").whiten, Some(Whiten { images: 5000, eps: 5e-4 }));
    assert_eq!(train("whiten = false").whiten, None);
    assert_eq!(train("whiten = { images = 7 }").whiten, Some(Whiten { images: 7, eps: 5e-4 }));
    assert_eq!(train("tta = 3").tta, Tta::Passes(3));
    assert_eq!(train("tta = \"flip\"").tta, Tta::Views(Views::Flip));
    assert_eq!(train("tta = \"flip_translate\"").tta, Tta::Views(Views::FlipTranslate));

    let keys = "lookahead = 5\nlookahead_alpha = 1\nlookahead_alpha_end = 0.25\nlookahead_power = 3\n\
                lookahead_states = true\nlookahead_finish = true";
    let ahead = read("momentum = 0.5", keys).optimizer.lookahead.unwrap();
    let expected = LookaheadKeys {
        alpha_end: Some(0.25),
        power: Some(3.0),
        states: true,
        finish: true,
        ..LookaheadKeys::of(5, 1.0)
    };
    assert_eq!(ahead, expected);
    assert_eq!((ahead.alpha_at(0.0), ahead.alpha_at(1.0)), (Some(1.0), Some(0.25)));
    assert_eq!(ahead.alpha_at(0.5), Some(1.0 - 0.75 / 8.0));
    assert!(error("momentum = 0.5", "lookahead = 5\nlookahead_power = 3").contains("lookahead_power"));
    assert!(error("momentum = 0.5", "lookahead_finish = true").contains("lookahead_finish"));

    let group =
        "[[optimizer.group]]\npattern = \"a.bias\"\nepochs = 3\n[[optimizer.group]]\npattern = \"b.*\"\nlr_scale = 0";
    let optimizer = read("momentum = 0.5", group).optimizer;
    let frozen = |name: &str| [0, 2, 3, 9].map(|epoch| optimizer.freezes(name, epoch));
    assert_eq!(frozen("a.bias"), [false, false, true, true]);
    assert_eq!(frozen("b.bias"), [true; 4]);
    assert_eq!(frozen("a.weight"), [false; 4]);
    assert_eq!(optimizer.freezing_epochs(), [0, 3]);
}
