//! Model files: both precisions come back bit for bit, PyTorch's tools can read them, damage is always an error.

use std::path::PathBuf;

use handgrad::backend::{Cpu, Host, Real, Reference};
use handgrad::engine::Engine;
use handgrad::graph::{Graph, Shape};
use handgrad::io::model_file::{self, Dtype, Extra, ModelFile, ModelInfo, Preprocessing};
use handgrad::models::{self, ModelOptions};
use handgrad::ops::{
    Activation, AdaptivePool, Add, AvgPool, BatchNorm, Conv2d, Dropout, Flatten, Linear, MaxPool, Reduce, Scale, Window,
};
use handgrad::resample::Framing;
use handgrad::rng::{Key, Stream};
use handgrad::{ErrorKind, Params};
use ndarray::{Array2, Array4};
use safetensors::SafeTensors;
use tempfile::TempDir;

/// Class names and an uneven normalisation.
pub fn info(graph: &Graph) -> ModelInfo {
    let images = graph.shape(graph.images());
    let preprocessing = Preprocessing::new((images.h, images.w), [0.4914, 0.1, 1.0 / 3.0], [0.2470, 0.3, 0.1 + 0.2]);
    let mut info = ModelInfo::new((0..graph.shape(graph.output()).c).map(|i| format!("class {i}")), preprocessing);
    info.notes.insert("accuracy".into(), "0.5 \"of all\"\n".into());
    info
}

/// A graph with a Flatten of a non-square map, batch-norm of both kinds, a shared layer, settings that have no short
/// decimal form.
pub fn odd_graph() -> Graph {
    let mut g = Graph::new(Shape::new(9, 12, 3));
    let x = g.node("conv", Conv2d::square(4, 3, 1, 1).no_bias(), &[g.images()]).unwrap();
    let x = g.node("bn", BatchNorm::running(), &[x]).unwrap();
    let x = g.node("act", Activation::LeakyRelu { slope: 0.1 + 0.2 }, &[x]).unwrap();
    let first = g.node("again", Conv2d::square(4, 3, 1, 1), &[x]).unwrap();
    let x = g.shared("again@2", first, &[first]).unwrap();
    let y = g.node("scale", Scale { factor: 1.0 / 3.0 }, &[x]).unwrap();
    let y = g.node("grouped", Conv2d { groups: 2, ..Conv2d::square(4, 3, 1, 2) }, &[y]).unwrap();
    let y = g.node("mean", AvgPool { window: Window::square(3, 1, 0), ceil: true }, &[y]).unwrap();
    let x = g.node("add", Add, &[x, y]).unwrap();
    let x = g.node("general", Activation::GeneralRelu { leak: 0.1, sub: 0.4, maxv: Some(6.0) }, &[x]).unwrap();
    let x = g.node("cells", AdaptivePool { reduce: Reduce::Max, output: (5, 7) }, &[x]).unwrap();
    let x = g.node("norm", BatchNorm::last_batch(1e-5), &[x]).unwrap();
    let x = g.node("pool", MaxPool { window: Window::square(2, 2, 0), ceil: true }, &[x]).unwrap();
    let x = g.node("flatten", Flatten, &[x]).unwrap();
    let x = g.node("drop", Dropout { p: 0.3 }, &[x]).unwrap();
    g.node("out", Linear::new(5), &[x]).unwrap();
    g
}

/// A small model with trained-like values and states.
pub fn random_params<E: Real>(graph: &Graph, seed: u64) -> Params<E> {
    let mut params = Params::new(graph, Key::new(seed)).unwrap();
    let mut stream = Key::new(seed).with_name("states").stream();
    for info in params.state_table().to_vec() {
        params.states_mut()[info.range()].fill_with(|| E::of(0.5 + stream.f64()));
    }
    params
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    (folder, path)
}

fn bits<E: Real>(values: &[E]) -> Vec<u64> {
    values.iter().map(|v| v.wide().to_bits()).collect()
}

fn scores<B: Host>(graph: &Graph, params: &Params<B::Elem>) -> Vec<u64> {
    let mut engine = Engine::<B>::new(graph, 3, 0).unwrap();
    engine.params_mut().values_mut().copy_from_slice(params.values());
    engine.params_mut().states_mut().copy_from_slice(params.states());
    let Shape { h, w, c, .. } = graph.shape(graph.images());
    let mut stream = Key::new(8).stream();
    let images = Array4::from_shape_simple_fn((3, h, w, c), || B::Elem::of(stream.normal()));
    let targets = Array2::from_elem((3, graph.shape(graph.output()).c), B::Elem::of(0.1));
    engine.evaluate(images.view(), targets.view()).unwrap();
    bits(engine.eval_scores(3).as_slice().unwrap())
}

fn round_trip<B: Host>(graph: &Graph) {
    let (_folder, path) = folder();
    let params = random_params::<B::Elem>(graph, 5);
    model_file::save(&path, graph, &params, &info(graph), &Extra::default()).unwrap();
    let file = model_file::load(&path).unwrap();
    assert_eq!(file.info(), &info(graph));
    assert_eq!(file.graph().to_json(), graph.to_json());
    assert_eq!(file.program(), env!("CARGO_PKG_VERSION"));
    let read = file.params::<B::Elem>().unwrap();
    assert_eq!(bits(read.values()), bits(params.values()));
    assert_eq!(bits(read.states()), bits(params.states()));
    assert_eq!(scores::<B>(file.graph(), &read), scores::<B>(graph, &params));
}

#[test]
fn models_of_both_precisions_come_back_bit_for_bit() {
    // One of each family: the others differ in numbers only.
    let some = |name: &str| {
        !name.starts_with('x') && !["resnet34", "resnet50"].contains(&name)
            || ["xresnet18", "xse_resnext18", "xse_resnet50"].contains(&name)
    };
    for (name, _) in models::names().filter(|(name, _)| some(name)) {
        let dropout = if name == "resnet2" { 0.2 } else { 0.0 };
        let widen = if name.starts_with('x') { 0.5 } else { 1.0 };
        let graph = models::build(&name, &ModelOptions { dropout, widen, ..Default::default() }).unwrap();
        round_trip::<Cpu>(&graph);
    }
    round_trip::<Cpu>(&odd_graph());
    round_trip::<Reference>(&odd_graph());
}

#[test]
fn either_engine_reads_the_others_file() {
    let (_folder, path) = folder();
    let graph = odd_graph();
    let exact = random_params::<f64>(&graph, 1);
    model_file::save(&path, &graph, &exact, &info(&graph), &Extra::default()).unwrap();
    let file = model_file::load(&path).unwrap();
    assert_eq!(file.dtype(), Dtype::F64);
    let rounded = file.params::<f32>().unwrap();
    assert!(rounded.values().iter().zip(exact.values()).all(|(a, b)| *a == *b as f32));

    model_file::save(&path, &graph, &rounded, &info(&graph), &Extra::default()).unwrap();
    let file = model_file::load(&path).unwrap();
    assert_eq!(file.dtype(), Dtype::F32);
    let widened = file.params::<f64>().unwrap();
    assert!(widened.values().iter().zip(rounded.values()).all(|(a, b)| *a == f64::from(*b)));
}

#[test]
fn extras_come_back_and_do_not_mix_with_the_model() {
    let (_folder, path) = folder();
    let graph = odd_graph();
    let params = random_params::<f32>(&graph, 1);
    let moments = [1.5f32, f32::MIN_POSITIVE, -0.0];
    let extra = Extra {
        values: [("conv.weight".to_owned(), &moments[..]), ("empty".to_owned(), &[][..])].into(),
        counters: [("position".to_owned(), vec![0, u64::MAX])].into(),
        texts: [("recipe".to_owned(), "a = 1\n".to_owned())].into(),
    };
    model_file::save(&path, &graph, &params, &info(&graph), &extra).unwrap();
    let file = model_file::load(&path).unwrap();
    assert_eq!(file.extra_text("recipe"), Some("a = 1\n"));
    assert_eq!(bits(&file.extra_values::<f32>("conv.weight").unwrap()), bits(&moments));
    assert!(file.extra_values::<f32>("empty").unwrap().is_empty());
    assert_eq!(file.extra_counters("position").unwrap(), [0, u64::MAX]);
    assert_eq!(file.extras().count(), 4);
    assert!(file.extra_counters("conv.weight").is_err());
    assert!(file.extra_values::<f32>("position").is_err());
    assert!(file.extra_values::<f32>("nothing").unwrap_err().to_string().contains("extra/nothing"));
    assert_eq!(bits(file.params::<f32>().unwrap().values()), bits(params.values()));

    let clash = Extra { counters: [("empty".to_owned(), vec![1])].into(), ..extra };
    let error = model_file::save(&path, &graph, &params, &info(&graph), &clash).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn the_safetensors_crate_reads_the_file_in_pytorchs_order() {
    let (_folder, path) = folder();
    let graph = odd_graph();
    let params = random_params::<f32>(&graph, 1);
    let extra = Extra { counters: [("n".to_owned(), vec![1])].into(), ..Default::default() };
    model_file::save(&path, &graph, &params, &info(&graph), &extra).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for info in params.table().iter().chain(params.state_table()) {
        let tensor = tensors.tensor(&info.name).unwrap();
        assert_eq!(tensor.shape(), info.layout.torch_shape(), "{}", info.name);
        let values: Vec<f32> =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(values, params.to_torch(&info.name).unwrap(), "{}", info.name);
        assert_eq!(tensor.data().as_ptr() as usize % 4, bytes.as_ptr() as usize % 4, "{} is aligned", info.name);
    }
    assert_eq!(tensors.tensor("conv.weight").unwrap().shape(), [4, 3, 3, 3]);
    assert_eq!(tensors.len(), params.table().len() + params.state_table().len() + 1);
}

#[test]
fn what_does_not_fit_is_refused_when_saved() {
    let (_folder, path) = folder();
    let graph = odd_graph();
    let params = random_params::<f32>(&graph, 1);
    let mut wrong = info(&graph);
    wrong.classes.push("one too many".into());
    let save = |graph: &Graph, info: &ModelInfo| model_file::save(&path, graph, &params, info, &Extra::default());
    assert!(save(&graph, &wrong).unwrap_err().to_string().contains("6 class names for 5 scores"));
    wrong.classes.clear();
    assert!(save(&graph, &wrong).unwrap_err().to_string().contains("0 class names for 5 scores"));
    let mut wrong = info(&graph);
    wrong.preprocessing.size = (12, 9);
    assert!(save(&graph, &wrong).is_err());
    let mut wrong = info(&graph);
    wrong.preprocessing.std[1] = 0.0;
    assert!(save(&graph, &wrong).is_err());
    let other = models::build("linear", &Default::default()).unwrap();
    assert!(save(&other, &info(&other)).unwrap_err().to_string().contains("parameters of another graph"));
    let empty = Graph::new(Shape::new(1, 1, 3));
    assert!(save(&empty, &info(&empty)).is_err());
    assert!(!path.exists());
}

/// A valid file of a tiny model.
fn tiny() -> Vec<u8> {
    let mut g = Graph::new(Shape::new(4, 5, 3));
    let x = g.node("conv", Conv2d::square(2, 3, 1, 1), &[g.images()]).unwrap();
    let x = g.node("bn", BatchNorm::running(), &[x]).unwrap();
    let x = g.node("pool", AdaptivePool::global(Reduce::Mean), &[x]).unwrap();
    g.node("out", Linear::new(3), &[x]).unwrap();
    let (_folder, path) = folder();
    let extra = Extra { counters: [("step".to_owned(), vec![7])].into(), ..Default::default() };
    model_file::save(&path, &g, &random_params::<f32>(&g, 2), &info(&g), &extra).unwrap();
    std::fs::read(&path).unwrap()
}

/// Splits a file into its JSON header and its data.
fn split(bytes: &[u8]) -> (serde_json::Value, Vec<u8>) {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + len]).unwrap(), bytes[8 + len..].to_vec())
}

/// A file of this header and data; the checksum is waived so that later checks are reached.
fn join(header: &serde_json::Value, data: &[u8]) -> Vec<u8> {
    let mut header = header.clone();
    if header["__metadata__"].is_object() {
        header["__metadata__"]["handgrad.checksum"] = "none".into();
    }
    let text = serde_json::to_vec(&header).unwrap();
    [&(text.len() as u64).to_le_bytes()[..], &text, data].concat()
}

/// Opens a file and uses all of it, as far as it lets one.
fn use_all(bytes: Vec<u8>) -> handgrad::Result<()> {
    let file = ModelFile::from_bytes(bytes)?;
    file.params::<f32>()?;
    let _ = file.graph().summary().to_string();
    for name in file.extras() {
        let _ = (file.extra_values::<f64>(name), file.extra_counters(name), file.extra_text(name));
    }
    let model = handgrad::infer::Model::from_file(&file)?;
    let (h, w) = model.size();
    if h * w < 1 << 12 {
        model.predict(&ndarray::Array3::zeros((h, w, 3)).view())?;
    }
    Ok(())
}

#[test]
fn every_truncation_and_every_flipped_bit_is_an_error() {
    let good = tiny();
    use_all(good.clone()).unwrap();
    for len in 0..good.len() {
        assert!(use_all(good[..len].to_vec()).is_err(), "cut to {len} of {}", good.len());
    }
    for bit in 0..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if bytes[bit / 8] == good[bit / 8] || ModelFile::from_bytes(bytes.clone()).is_err() {
            continue;
        }
        // What still passes says the same in other words: spaces between the header and the data.
        assert!(good[bit / 8].is_ascii_whitespace() && bytes[bit / 8].is_ascii_whitespace(), "bit {bit}");
    }
    let longer = [good, vec![0]].concat();
    assert!(use_all(longer).is_err());
}

#[test]
fn forged_headers_are_errors() {
    let (header, data) = split(&tiny());
    let try_with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut header = header.clone();
        change(&mut header);
        use_all(join(&header, &data))
    };
    try_with(&|_| {}).unwrap();
    let huge = u64::MAX;
    // Offsets, shapes and types; sums of sizes that wrap around 2^64.
    let tensors: [serde_json::Value; 6] = [
        serde_json::json!({ "dtype": "F32", "shape": [huge, huge], "data_offsets": [0, 8] }),
        serde_json::json!({ "dtype": "F32", "shape": [1u64 << 61], "data_offsets": [0, huge] }),
        serde_json::json!({ "dtype": "F32", "shape": [2], "data_offsets": [8, 0] }),
        serde_json::json!({ "dtype": "F32", "shape": [2, 3, 3, 3], "data_offsets": [huge - 215, huge] }),
        serde_json::json!({ "dtype": "F16", "shape": [2], "data_offsets": [0, 4] }),
        serde_json::json!({ "dtype": "F32", "shape": [], "data_offsets": [-1, 3] }),
    ];
    for tensor in tensors {
        for name in ["conv.weight", "new"] {
            assert!(try_with(&|h| h[name] = tensor.clone()).is_err(), "{name}: {tensor}");
        }
    }
    let metadata = |name: &str, value: &str| try_with(&|h| h["__metadata__"][name] = value.into()).unwrap_err();
    assert_eq!(metadata("handgrad.version", "2").kind(), ErrorKind::Unsupported);
    assert!(metadata("handgrad.grahp", "").to_string().contains("handgrad.grahp"));
    assert!(metadata("handgrad.classes", "[]").to_string().contains("0 class names for 3 scores"));
    metadata("handgrad.preprocessing", "{}");
    metadata("handgrad.notes", "[]");
    metadata("handgrad.graph", &"[".repeat(500_000));
    metadata("handgrad.graph", &" ".repeat(2_000_000));
    let foreign = try_with(&|h| drop(h.as_object_mut().unwrap().remove("__metadata__"))).unwrap_err();
    assert!(foreign.to_string().contains("was not written by handgrad"), "{foreign}");
    let bare = try_with(&|h| drop(h["__metadata__"].as_object_mut().unwrap().remove("handgrad.checksum")));
    bare.unwrap(); // `join` puts it back
    let missing = try_with(&|h| {
        let bias = h.as_object_mut().unwrap().remove("conv.bias").unwrap();
        h["conv.bais"] = bias;
    });
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("no tensor conv.bias") && missing.contains("[2]"), "{missing}");
}

#[test]
fn a_header_of_any_depth_length_or_double_name_is_an_error() {
    let file = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    for text in ["", "{", "[]", "null", "{}", "{\"a\":1}", "{\"__metadata__\":{\"a\":1}}"] {
        assert!(use_all(file(text)).is_err(), "{text}");
    }
    assert!(use_all(file(&"{\"a\":".repeat(200_000))).is_err());
    assert!(use_all(u64::MAX.to_le_bytes().to_vec()).is_err());
    let empty = "{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}";
    let twice = use_all(file(&format!("{{\"a\":{empty},\"a\":{empty}}}"))).unwrap_err();
    assert!(twice.to_string().contains("occurs twice"), "{twice}");
}

/// Changes a few numbers and letters of a text.
fn scramble(text: &str, random: &mut Stream) -> String {
    const NUMBERS: [&str; 12] = [
        "0",
        "1",
        "2",
        "3",
        "7",
        "-1",
        "4294967296",
        "9223372036854775808",
        "18446744073709551615",
        "1e308",
        "0.5",
        "null",
    ];
    let mut tokens: Vec<String> = Vec::new();
    for c in text.chars() {
        match tokens.last_mut() {
            Some(last) if c.is_ascii_digit() && last.ends_with(|d: char| d.is_ascii_digit()) => last.push(c),
            _ => tokens.push(c.to_string()),
        }
    }
    let digits = |t: &String| t.starts_with(|d: char| d.is_ascii_digit());
    let numbers: Vec<usize> = (0..tokens.len()).filter(|&i| digits(&tokens[i])).collect();
    for _ in 0..=random.below(3) {
        if random.chance(0.8) {
            let at = numbers[random.below(numbers.len() as u64) as usize];
            tokens[at] = NUMBERS[random.below(NUMBERS.len() as u64) as usize].into();
        } else {
            let (a, b) = (random.below(tokens.len() as u64) as usize, random.below(tokens.len() as u64) as usize);
            tokens[a] = tokens[b].clone();
        }
    }
    tokens.concat()
}

#[test]
fn thousands_of_hostile_graphs_neither_panic_nor_take_the_memory() {
    let (_folder, path) = folder();
    let graph = odd_graph();
    model_file::save(&path, &graph, &random_params::<f32>(&graph, 2), &info(&graph), &Extra::default()).unwrap();
    let mut random = Key::new(6).stream();
    let mut read = 0;
    for bytes in [tiny(), std::fs::read(&path).unwrap()] {
        let (header, data) = split(&bytes);
        let graph = header["__metadata__"]["handgrad.graph"].as_str().unwrap().to_owned();
        for _ in 0..2000 {
            let mut header = header.clone();
            header["__metadata__"]["handgrad.graph"] = scramble(&graph, &mut random).into();
            read += usize::from(use_all(join(&header, &data)).is_ok());
        }
        let text = serde_json::to_string(&header).unwrap();
        for _ in 0..2000 {
            let text = scramble(&text, &mut random);
            let file = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &data].concat();
            let _ = use_all(file);
        }
    }
    assert!(read > 20, "the changes are so wild that only {read} graphs were read");
}

#[test]
fn folders_and_missing_files_are_errors() {
    let (folder, path) = folder();
    assert_eq!(model_file::load(&path).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(model_file::load(folder.path()).unwrap_err().kind(), ErrorKind::Io);
    std::fs::write(&path, "hello").unwrap();
    assert_eq!(model_file::load(&path).unwrap_err().kind(), ErrorKind::Format);
}

#[test]
fn files_that_say_no_framing_had_images_of_the_size() {
    let old = r#"{"size":[8,9],"mean":[0.5,0.5,0.5],"std":[1.0,1.0,1.0]}"#;
    let read: Preprocessing = serde_json::from_str(old).unwrap();
    assert_eq!(read, Preprocessing::new((8, 9), [0.5; 3], [1.0; 3]));
    let newer = Preprocessing { framing: Framing::Squash { to: (10, 12) }, ..read };
    let text = serde_json::to_string(&newer).unwrap();
    assert_eq!(serde_json::from_str::<Preprocessing>(&text).unwrap(), newer);
}
