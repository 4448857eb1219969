//! `eval` and `predict` on the driver double: what the CPU says of the same model, to 1e-4.

use std::path::Path;

use serde_json::Value;

use super::training::{handgrad, text, without_driver};

/// Batch-norms behind activations, sums, pooling: on the CPU these run fused, on a GPU one by one.
const RECIPE: &str = r#"
title = "tiny"
[model]
name = "resnet"
published = false
[data]
dataset = "data.hgd"
size = 8
batch = 16
[optimizer]
momentum = 0.9
[[phase]]
lr = 0.01
epochs = 1
"#;

/// A model that has seen an epoch, 21 images to evaluate, and some to predict.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let config = handgrad::data::synth::SynthConfig { train: 64, valid: 21, size: 8, seed: 0 };
    handgrad::data::synth::write(&config, &place.path().join("data.hgd")).unwrap();
    std::fs::write(place.path().join("tiny.toml"), RECIPE).unwrap();
    std::fs::create_dir(place.path().join("images")).unwrap();
    for (i, (width, height)) in [(8, 8), (19, 11), (5, 30)].into_iter().enumerate() {
        let pixel = |x: u32, y: u32| image::Rgb([(13 * x + 7 * y) as u8, (x * y + 40 * i as u32) as u8, (5 * y) as u8]);
        let image = image::RgbImage::from_fn(width, height, pixel);
        image.save(place.path().join(format!("images/{i}.png"))).unwrap();
    }
    let output = handgrad(place.path(), "train tiny.toml --out run");
    assert!(output.status.success(), "{}", text(&output));
    place
}

/// Of a command that prints JSON, on the CPU and on the device.
fn on_both(place: &Path, arguments: &str) -> [Value; 2] {
    ["cpu", "cuda:0"].map(|backend| {
        let output = handgrad(place, &format!("{arguments} --json --backend {backend}"));
        assert!(output.status.success(), "{arguments} on {backend}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

/// The same objects with numbers that differ by 1e-4 at most.
fn close(what: &str, cpu: &Value, gpu: &Value) {
    match (cpu, gpu) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{what}: {a} on the CPU, {b} on the device");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{what}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| close(&format!("{what}[{i}]"), a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{what}");
            a.iter().for_each(|(key, a)| close(&format!("{what}.{key}"), a, &b[key]));
        }
        _ => assert_eq!(cpu, gpu, "{what}"),
    }
}

#[test]
fn a_model_says_on_a_gpu_what_it_says_on_the_cpu() {
    let place = place();
    for tta in ["0", "2", "flip", "flip_translate"] {
        // The last batch has five images.
        let arguments = format!("eval run/model.safetensors --data data.hgd --batch 8 --top-losses 6 --tta {tta}");
        let [cpu, gpu] = on_both(place.path(), &arguments);
        assert_eq!((&gpu["images"], gpu["top_losses"].as_array().unwrap().len()), (&21.into(), 6));
        close(&arguments, &cpu, &gpu);
    }
    for tta in ["one", "flip"] {
        let arguments = format!("predict run/model.safetensors images --top 10 --tta {tta}");
        let [cpu, gpu] = on_both(place.path(), &arguments);
        assert_eq!(gpu[2]["predictions"].as_array().unwrap().len(), 10);
        close(&arguments, &cpu, &gpu);
    }
}

#[test]
fn without_a_driver_eval_and_predict_say_what_to_install() {
    let place = place();
    for command in ["eval run/model.safetensors --data data.hgd", "predict run/model.safetensors images"] {
        let output = without_driver(place.path(), &format!("{command} --backend cuda"));
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in ["--backend cuda", "/nowhere/libcuda.so.1", "install NVIDIA's driver", "--backend cpu"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(without_driver(place.path(), command).status.success());
        for (backend, code, part) in
            [("cuda:99", 2, "no such device"), ("cuda:x", 2, "cuda:N"), ("reference", 2, "cpu or cuda[:N]")]
        {
            let output = handgrad(place.path(), &format!("{command} --backend {backend}"));
            assert!(output.status.code() == Some(code) && text(&output).contains(part), "{backend}: {}", text(&output));
        }
    }
}

/// A recipe that ends with averaged passes makes them where it was trained.
#[test]
fn passes_at_the_end_of_a_run_are_made_on_the_gpu() {
    let place = place();
    let arguments = "train tiny.toml --set train.tta=flip --set model.name=simplenet --backend cuda --out gpu --json";
    let output = handgrad(place.path(), arguments);
    assert!(output.status.success(), "{}", text(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let evaluated = "eval gpu/model.safetensors --data data.hgd --tta flip --backend cuda --json";
    let output = handgrad(place.path(), evaluated);
    let evaluated: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["tta_accuracy"], evaluated["accuracy"]);
}
