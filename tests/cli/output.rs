//! What the program prints: text for people, JSON for scripts, and readers that leave early.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::common::{Place, keys, ran};

#[test]
fn json_outputs_have_the_keys_that_scripts_rely_on() {
    let place = Place::new();
    let recipes = place.done("recipes --json").json();
    let recipes = recipes.as_array().unwrap();
    assert!(recipes.iter().all(|r| r["name"].is_string() && r["title"].is_string()));
    for name in ["simplenet", "convnet", "convnet2", "convbnnet", "convbnnet2", "resnet", "resnet2"] {
        assert!(recipes.iter().any(|r| r["name"] == format!("cifar10-{name}")), "{name}");
    }

    let bench = place.done("bench tiny.toml --batch 4 --size 16 --threads 1 --seconds 0.05 --json").json();
    for key in ["train_images_per_second", "infer_images_per_second", "latency_ms", "peak_bytes"] {
        assert!(bench[key].as_f64().unwrap() > 0.0, "{bench}");
    }
    assert_eq!((&bench["batch"], &bench["size"], &bench["threads"]), (&4.into(), &16.into(), &1.into()));

    assert!(bench["first_loss"].as_f64().unwrap() > 0.0 && bench["loss"].is_f64(), "{bench}");

    let profile = place.done("bench tiny.toml --batch 4 --size 16 --layers --seconds 0.01 --json").json();
    let steps = profile["steps"].as_array().unwrap();
    let of = |op: &str, backward: bool| steps.iter().find(|s| s["op"] == op && s["backward"] == backward).unwrap();
    assert_eq!(of("linear", true)["flops"].as_u64(), of("linear", false)["flops"].as_u64().map(|flops| 2 * flops));
    assert!(steps.iter().all(|step| step["seconds"].as_f64().unwrap() > 0.0), "{profile}");

    let result = place.done("train tiny.toml --json").json();
    assert_eq!(keys(&result), ["best_accuracy", "best_epoch", "last", "seconds", "tta_accuracy"]);
    assert_eq!(result["last"]["epoch"], 2);
    assert_eq!(result["tta_accuracy"], serde_json::Value::Null);
    assert_eq!(result, place.json("runs/tiny/result.json"));

    let summary = place.done("summary tiny.toml --json").json();
    assert!(summary["total_params"].as_u64().unwrap() > 30_000 && summary["layers"].is_array());

    let evaluated = place.done("eval runs/tiny/model.safetensors --data data.hgd --json").json();
    assert_eq!(evaluated["accuracy"], result["last"]["accuracy"]);
    assert_eq!(evaluated["top5"], result["last"]["top5"]);
    let (a, b) = (evaluated["loss"].as_f64().unwrap(), result["last"]["valid_loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-6, "{a} {b}");
}

#[test]
fn a_bench_trains_the_same_net_wherever_its_weights_come_from() {
    let place = Place::new();
    let bench = |more: &str| place.done(&format!("bench tiny.toml --batch 8 --seconds 0.01 --json {more}")).json();
    let trained = bench("--warm-up 9 --lr 0.1 --export same.safetensors");
    let (first, last) = (trained["first_loss"].as_f64().unwrap(), trained["loss"].as_f64().unwrap());
    assert!(last < first - 0.01, "{trained}");
    // Random weights of another seed would begin elsewhere; those of the file begin where the exporting run began.
    let again = bench("--warm-up 9 --lr 0.1 --from same.safetensors");
    assert_eq!((&again["first_loss"], &again["loss"]), (&trained["first_loss"], &trained["loss"]));
    let still = bench("--from same.safetensors");
    assert!((still["loss"].as_f64().unwrap() - first).abs() < 1e-5, "{still}");
    let exported = std::fs::read(place.path("same.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&exported).unwrap();
    assert_eq!(tensors.tensor("extra/images").unwrap().shape(), [8 * 16 * 16 * 3]);
    assert_eq!(tensors.tensor("extra/targets").unwrap().shape(), [8 * 10]);
    assert_eq!(tensors.tensor("layers.0.conv.weight").unwrap().shape(), [20, 3, 3, 3]);

    place.fails("bench tiny.toml --from nowhere.safetensors", 1, &["nowhere.safetensors"]);
    place.fails("bench cifar10-simplenet --from same.safetensors", 1, &["same.safetensors", "missing"]);
}

#[test]
fn backends_are_compared_on_the_same_weights_and_images() {
    let place = Place::new();
    let compared =
        place.done("bench --compare reference,cpu tiny.toml --batch 3 --seconds 0.01 --set model.name=resnet --json");
    let compared = compared.json();
    let [reference, cpu] = &compared.as_array().unwrap()[..] else { panic!("{compared}") };
    assert_eq!((&reference["backend"], &cpu["backend"]), (&"reference".into(), &"cpu".into()));
    let difference = |of: &serde_json::Value, what: &str| of[what].as_f64().unwrap();
    for what in ["loss_difference", "gradient_difference"] {
        assert_eq!(difference(reference, what), 0.0, "{compared}");
        // That of f32: something, and little.
        assert!((1e-12..1e-3).contains(&difference(cpu, what)), "{compared}");
    }
    assert!(cpu["gradient"].as_str().unwrap().contains('.'), "{compared}");
    let table = place.done("bench --compare cpu,cpu tiny.toml --batch 3 --seconds 0.01").out;
    assert!(table.lines().filter(|line| line.starts_with("cpu ") && line.contains("0.0e0")).count() == 2, "{table}");
}

#[test]
fn tta_is_reported_where_the_recipe_asks_for_it() {
    let place = Place::new();
    let result = place.done("train tiny.toml --epochs 1 --set train.tta=3 --json").json();
    let accuracy = result["tta_accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy));
    let evaluated = place.done("eval runs/tiny/model.safetensors --data data.hgd --tta 3 --json").json();
    assert_eq!(evaluated["accuracy"].as_f64(), Some(accuracy));

    let result = place.done("train tiny.toml --epochs 1 --set train.tta=flip --out flip --json").json();
    let evaluated = place.done("eval flip/model.safetensors --data data.hgd --tta flip --json").json();
    assert_eq!((&evaluated["accuracy"], &evaluated["tta"]), (&result["tta_accuracy"], &"flip".into()));
    let ran = place.done("eval flip/model.safetensors --data data.hgd --tta flip_translate");
    assert!(ran.out.contains("mean scores of 6 views"), "{}", ran.out);
    place.fails("eval flip/model.safetensors --data data.hgd --tta flop", 2, &["--tta", "flip_translate"]);
}

#[test]
fn people_get_tables_and_what_to_do_next() {
    let place = Place::new();
    let ran = place.done("train tiny.toml --epochs 1");
    for text in ["epoch", "train loss", "accuracy", "runs/tiny/model.safetensors", "curves.svg", "MiB at most"] {
        assert!(ran.out.contains(text), "no {text} in\n{}", ran.out);
    }
    let next = ran.out.lines().find_map(|line| line.strip_prefix("next:")).unwrap().trim();
    // The very program that ran, wherever it lies: it need not be on the PATH.
    let ran = place.done(next.strip_prefix(env!("CARGO_BIN_EXE_handgrad")).unwrap());
    assert!(ran.out.contains("accuracy"), "{ran:?}");

    for mode in ["train", "eval", "infer"] {
        for backend in ["cpu", "reference"] {
            let ran = place.done(&format!("plan cifar10-resnet2 --mode {mode} --batch 8 --backend {backend}"));
            assert!(ran.out.contains("layers.0.conv") && ran.out.contains("MiB"), "{}", ran.out);
        }
    }
    let list = place.done("recipes").out;
    assert!(list.lines().count() >= 18 && list.lines().all(|line| line.split("  ").count() >= 2), "{list}");
    assert!(place.done("--version").out.starts_with("handgrad "));
    for command in ["train", "eval", "predict", "summary", "bench", "plan", "recipes"] {
        let help = place.done(&format!("{command} --help")).out;
        assert!(help.contains("Usage") && help.contains("handgrad"), "{help}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error_and_stops_no_training() {
    let place = Place::new();
    for args in ["recipes", "recipes --json", "plan cifar10-resnet2", "summary quickstart", "train tiny.toml"] {
        let mut child = place.command(args.split(' ')).spawn().unwrap();
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, child.stdout.take().unwrap());
        reader.read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        drop(reader);
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args}");
    }
    // The training went on to its end.
    assert_eq!(place.metrics("runs/tiny").len(), 2);
}

#[test]
fn a_closed_standard_error_changes_no_exit_code() {
    let place = Place::new();
    for (args, code) in [("train tiny.toml --json", 0), ("train tiny.toml --epochs 0", 2), ("train none.toml", 1)] {
        let mut child = place.command(args.split(' ')).stdout(Stdio::null()).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{args}");
    }
    assert_eq!(place.metrics("runs/tiny").len(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let place = Place::new();
    for args in ["recipes", "recipes --json", "plan quickstart"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = place.command(args.split(' ')).stdout(full).output().unwrap();
        let ran = ran(output);
        assert_eq!(ran.code, Some(1), "{args}");
        ran.says(&["standard output"]);
    }
}
