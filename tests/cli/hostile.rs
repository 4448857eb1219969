//! Recipes that somebody damaged, by chance or on purpose: an error or a recipe that works, never a panic.

use handgrad::backend::{Cpu, Reference};
use handgrad::optim::ParamTable;
use handgrad::plan::{Mode, Plan};
use handgrad::recipe::Recipe;
use handgrad::rng::{Key, Stream};
use handgrad::{ErrorKind, Params};

const CASES: usize = 6000;

const NUMBERS: [&str; 27] = [
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3",
    "5",
    "7",
    "64",
    "4096",
    "65536",
    "65537",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "99999999999999999999999",
    "1e308",
    "1e-308",
    "-1e999",
    "nan",
    "inf",
    "-inf",
    "0.5",
    "0x7fffffff",
    "1_0",
];

const JUNK: [&str; 20] = [
    "\u{0}",
    "\u{202e}",
    "\u{fffe}",
    "🦀",
    "é\u{301}\u{301}",
    "[[",
    "]]",
    "\"\"\"",
    "'",
    "=",
    "\n",
    "[phase]",
    "a.b.c = 1",
    "{",
    "}",
    "1979-05-27T07:32:00Z",
    "true",
    "[]",
    "#",
    "\u{feff}",
];

const MODELS: [&str; 10] = [
    "linear",
    "simplenet",
    "convnet",
    "convnet2",
    "convbnnet",
    "convbnnet2",
    "resnet",
    "resnet2",
    "quickstart",
    "none",
];

/// Texts to damage: every built-in recipe as written and in full, and one with every key.
fn originals() -> Vec<String> {
    let mut texts: Vec<String> = Recipe::builtins().map(|r| r.unwrap().to_toml().unwrap()).collect();
    texts.push(
        r#"
title = "all"
[model]
name = "resnet2"
published = true
dropout = 0.25
[data]
dataset = "photos/my.hgd"
size = 64
batch = 7
drop_last = true
normalise = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }
augment = { pad = 2, mixup = 0.4, erase = {}, jitter = { hue = 0.1 }, affine = { outside = "fill", fill = [0, 0, 1] } }
[optimizer]
name = "sgd"
momentum = 0.8
nesterov = true
weight_decay = 1e-3
decay = "decoupled"
clip_norm = 2
accumulate = 4
[[optimizer.group]]
pattern = "*.bias"
lr_scale = 2.0
weight_decay = 0
[train]
seed = 3
label_smoothing = 0.1
checkpoint_minutes = 1
tta = 4
precision = "f32"
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
"#
        .to_owned(),
    );
    texts
}

fn pick<'a, T: ?Sized>(random: &mut Stream, items: &[&'a T]) -> &'a T {
    items[random.below(items.len() as u64) as usize]
}

/// One change of one line, or of the whole.
fn damage(text: &str, random: &mut Stream) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = random.below(lines.len() as u64) as usize;
    let key = lines[at].split('=').next().unwrap_or_default().trim().to_owned();
    match random.below(9) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 | 3 => lines[at] = format!("{key} = {}", pick(random, &NUMBERS)),
        4 => lines[at] = format!("{key} = \"{}\"", pick(random, &MODELS)),
        5 => {
            let other = random.below(lines.len() as u64) as usize;
            lines.swap(at, other);
        }
        6 => lines[at] = format!("{}{}", lines[at], pick(random, &JUNK)),
        7 => {
            let mut chars: Vec<char> = lines[at].chars().collect();
            let place = random.below(chars.len() as u64 + 1) as usize;
            chars.splice(place..(place + 1).min(chars.len()), pick(random, &JUNK).chars());
            lines[at] = chars.into_iter().collect();
        }
        _ => {
            let depth = 1 << random.below(14);
            let value = match random.below(3) {
                0 => format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
                1 => format!("{}1{}", "{a=".repeat(depth), "}".repeat(depth)),
                _ => format!("\"{}\"", "x".repeat(depth)),
            };
            lines[at] = format!("{key} = {value}");
        }
    }
    lines.join("\n")
}

/// Does with a recipe what a training does before its first step, short of the memory.
fn exercise(recipe: &Recipe) {
    let again = Recipe::parse(&recipe.to_toml().unwrap(), "again.toml").unwrap();
    assert_eq!((&again.model, &again.data, &again.phases), (&recipe.model, &recipe.data, &recipe.phases));
    let curve = recipe.lr_curve(3);
    assert!(!curve.is_empty() && curve.iter().all(|(epoch, lr)| epoch.is_finite() && lr.is_finite()));
    let mut short = recipe.clone();
    short.set_epochs(5).unwrap();
    assert_eq!(short.epochs(), 5);
    for classes in [2, 1000] {
        let Ok(graph) = recipe.model.build(classes, recipe.data.size as usize) else { continue };
        for mode in [Mode::Train, Mode::Eval, Mode::Infer] {
            let _ = Plan::compile::<Cpu>(&graph, 2, mode);
            let _ = Plan::compile::<Cpu>(&graph, recipe.data.batch as usize, mode).map(|plan| plan.to_string());
            let _ = Plan::compile::<Reference>(&graph, 65_536, mode);
        }
        if recipe.data.size <= 64 && classes == 2 {
            let params = Params::<f32>::zeros(&graph).unwrap();
            let table = ParamTable::of(&params, &recipe.optimizer.rules());
            let _ = table.and_then(|table| recipe.optimizer.build::<f32>(table, 0));
        }
    }
}

#[test]
fn damaged_recipes_are_errors_or_work() {
    let originals = originals();
    let mut random = Key::new(11).stream();
    let mut good = 0;
    for i in 0..CASES {
        let mut text = originals[i % originals.len()].clone();
        for _ in 0..=random.below(3) {
            text = damage(&text, &mut random);
        }
        match Recipe::parse(&text, "damaged.toml") {
            Ok(recipe) => {
                good += 1;
                exercise(&recipe);
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Usage, "{text}");
                assert!(e.to_string().starts_with("damaged.toml"), "{e}");
                assert!(e.to_string().len() < 10_000, "an endless message for\n{text}");
            }
        }
    }
    assert!((CASES / 20..CASES).contains(&good), "{good}: the damage is too little or too much to test anything");
}

#[test]
fn the_originals_work() {
    originals().iter().for_each(|text| exercise(&Recipe::parse(text, "original.toml").unwrap()));
}

#[test]
fn nesting_does_not_overflow_the_stack() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("[{a=", "}]")] {
        for depth in [100, 10_000, 200_000] {
            let text = format!("title = {}1{}", open.repeat(depth), close.repeat(depth));
            assert!(Recipe::parse(&text, "deep.toml").is_err());
        }
    }
    let dotted = format!("{}x = 1", "a.".repeat(200_000));
    assert!(Recipe::parse(&dotted, "deep.toml").is_err());
    let header = format!("[{}x]", "a.".repeat(200_000));
    assert!(Recipe::parse(&header, "deep.toml").is_err());
}
