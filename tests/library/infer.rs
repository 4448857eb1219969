//! Prediction: the same numbers as the engine's, for any batch size and number of threads.

use std::sync::Arc;

use handgrad::ErrorKind;
use handgrad::backend::Cpu;
use handgrad::data::{Augment, Dataset, DatasetWriter, Loader, LoaderConfig, Normalise, Split};
use handgrad::engine::Engine;
use handgrad::infer::{EvalConfig, Model, Views, evaluate, in_pool};
use handgrad::io::model_file::{self, Extra, ModelInfo, Preprocessing};
use handgrad::models::{self, ModelOptions};
use handgrad::resample::Framing;
use handgrad::rng::Key;
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};
use ndarray::{Array2, Array3, Array4, Axis, s};

use crate::model_file::{info, odd_graph, random_params};

fn resnet() -> Model {
    let options = ModelOptions { published: false, ..Default::default() };
    let graph = models::build("resnet", &options).unwrap();
    Model::from_parts(&graph, &random_params::<f32>(&graph, 3), info(&graph)).unwrap()
}

fn images(n: usize, h: usize, w: usize) -> Array4<u8> {
    let mut stream = Key::new(12).stream();
    Array4::from_shape_simple_fn((n, h, w, 3), || stream.u64() as u8)
}

fn probabilities(model: &Model, max_batch: usize, images: &Array4<u8>) -> Array2<f32> {
    let mut session = model.session(max_batch).unwrap();
    let mut all = Array2::zeros((images.dim().0, model.classes().len()));
    for (images, mut out) in
        images.axis_chunks_iter(Axis(0), max_batch).zip(all.axis_chunks_iter_mut(Axis(0), max_batch))
    {
        session.predict_into(images, out.view_mut()).unwrap();
    }
    all
}

fn bits(values: &Array2<f32>) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn models_and_sessions_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Model>();
    crosses::<handgrad::infer::Session>();
}

#[test]
fn a_loaded_model_gives_the_engines_scores() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let graph = odd_graph();
    let mut engine = Engine::<Cpu>::new(&graph, 4, 9).unwrap();
    let params = random_params::<f32>(&graph, 4);
    engine.params_mut().values_mut().copy_from_slice(params.values());
    engine.params_mut().states_mut().copy_from_slice(params.states());
    model_file::save(&path, &graph, engine.params(), &info(&graph), &Extra::default()).unwrap();

    let mut stream = Key::new(2).stream();
    let images = Array4::from_shape_simple_fn((4, 9, 12, 3), || stream.normal() as f32);
    let targets = Array2::from_elem((4, 5), 0.2);
    engine.evaluate(images.view(), targets.view()).unwrap();
    let model = Model::load(&path).unwrap();
    let mut session = model.session(4).unwrap();
    let scores = session.scores(images.view()).unwrap().to_owned();
    // The file changes no bit of the model; fused layers round otherwise than the engine's, which run one by one.
    let never_saved = Model::from_parts(&graph, engine.params(), info(&graph)).unwrap();
    assert_eq!(never_saved.session(4).unwrap().scores(images.view()).unwrap(), scores);
    let largest = engine.eval_scores(4).iter().fold(0.0, |m: f32, s| m.max(s.abs()));
    for (ours, engines) in scores.iter().zip(engine.eval_scores(4)) {
        assert!((ours - engines).abs() <= 1e-6 * largest, "{ours} and {engines}");
    }
    // Not contiguous: the same images with rows the other way round, turned back by the view.
    let turned = images.slice(s![.., ..;-1, .., ..]).to_owned();
    assert_eq!(session.scores(turned.slice(s![.., ..;-1, .., ..])).unwrap(), scores);

    let mut out = Array2::zeros((4, 5));
    session.predict_normalised_into(images.view(), out.view_mut()).unwrap();
    for (p, scores) in out.outer_iter().zip(engine.eval_scores(4).outer_iter()) {
        let sum: f64 = scores.iter().map(|&s| f64::from(s).exp()).sum();
        assert!(p.iter().zip(scores).all(|(&p, &s)| (f64::from(p) - f64::from(s).exp() / sum).abs() < 1e-6));
    }
}

#[test]
fn bytes_are_normalised_as_the_file_says() {
    let model = resnet();
    let images = images(3, 32, 32);
    let Preprocessing { mean, std, .. } = model.info().preprocessing;
    let normalised = Array4::from_shape_fn(images.dim(), |(i, y, x, c)| {
        ((f64::from(images[[i, y, x, c]]) / 255.0 - mean[c]) / std[c]) as f32
    });
    let mut session = model.session(3).unwrap();
    let (mut a, mut b) = (Array2::zeros((3, 10)), Array2::zeros((3, 10)));
    session.predict_into(images.view(), a.view_mut()).unwrap();
    session.predict_normalised_into(normalised.view(), b.view_mut()).unwrap();
    assert_eq!(bits(&a), bits(&b));
    assert!(a.iter().any(|p| (p - a[[0, 0]]).abs() > 1e-3), "the images are told apart: {a}");
}

#[test]
fn the_batch_size_changes_no_bit() {
    let model = resnet();
    let images = images(13, 32, 32);
    let all = probabilities(&model, 13, &images);
    for batch in [1, 4, 32] {
        assert_eq!(bits(&probabilities(&model, batch, &images)), bits(&all), "batches of {batch}");
    }
    for (i, image) in images.outer_iter().enumerate() {
        let prediction = model.predict(&image).unwrap();
        assert!(prediction.classes().iter().all(|c| c.probability.to_bits() == all[[i, c.class]].to_bits()), "{i}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let model = resnet();
    let images = images(9, 32, 32);
    let run = |threads| in_pool(threads, || bits(&probabilities(&model, 9, &images))).unwrap();
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}

#[test]
fn threads_share_a_model() {
    let model = resnet();
    let images = images(4, 32, 32);
    let expected = bits(&probabilities(&model, 1, &images));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert_eq!(bits(&probabilities(&model, 1, &images)), expected);
                    model.predict(&images.index_axis(Axis(0), 1)).unwrap();
                }
            });
        }
    });
}

#[test]
fn image_files_of_any_size_are_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let model = resnet();
    let picture = RgbImage::from_fn(80, 50, |x, y| Rgb([(3 * x) as u8, (5 * y) as u8, (x + y) as u8]));
    let path = folder.path().join("a.png");
    picture.save(&path).unwrap();
    let from_file = model.predict_path(&path).unwrap();
    let pixels = Array3::from_shape_fn((50, 80, 3), |(y, x, c)| picture.get_pixel(x as u32, y as u32)[c]);
    assert_eq!(model.predict(&pixels.view()).unwrap(), from_file);
    assert_eq!(model.predict_image(&DynamicImage::ImageRgb8(picture.clone())).unwrap(), from_file);
    // The centre square alone decides.
    let square = pixels.slice(s![.., 15..65, ..]);
    assert_eq!(model.predict(&square).unwrap(), from_file);
    let with_alpha = RgbaImage::from_fn(80, 50, |x, y| {
        let Rgb([r, g, b]) = *picture.get_pixel(x, y);
        Rgba([r, g, b, 255])
    });
    assert_eq!(model.predict_image(&with_alpha.into()).unwrap(), from_file);

    let sum: f32 = from_file.classes().iter().map(|c| c.probability).sum();
    assert!((sum - 1.0).abs() < 1e-5 && from_file.best().unwrap().probability > 0.1);
    std::fs::write(&path, "no image").unwrap();
    let error = model.predict_path(&path).unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Format, path.to_str().unwrap()));
    assert!(model.predict_path(folder.path().join("none.png")).is_err());
}

#[test]
fn what_does_not_fit_a_session_is_an_error() {
    let model = resnet();
    let mut session = model.session(2).unwrap();
    let mut predict = |n: usize, h: usize, out: (usize, usize)| {
        session.predict_into(Array4::zeros((n, h, 32, 3)).view(), Array2::zeros(out).view_mut()).map_err(|e| e.kind())
    };
    assert_eq!(predict(2, 32, (2, 10)), Ok(()));
    for (n, h, out) in [(0, 32, (0, 10)), (3, 32, (3, 10)), (1, 31, (1, 10)), (1, 32, (1, 9)), (1, 32, (2, 10))] {
        assert_eq!(predict(n, h, out), Err(ErrorKind::Shape), "{n} {h} {out:?}");
    }
    assert_eq!(model.session(0).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(model.session(usize::MAX).unwrap_err().kind(), ErrorKind::Usage);
    assert!(model.predict(&Array3::zeros((0, 5, 3)).view()).is_err());
    assert!(model.predict(&Array3::zeros((5, 5, 4)).view()).is_err());
    assert_eq!(in_pool(5000, || ()).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn scores_that_are_no_numbers_are_an_error() {
    let graph = models::build("linear", &Default::default()).unwrap();
    let mut params = random_params::<f32>(&graph, 1);
    params.values_mut()[0] = f32::NAN;
    let model = Model::from_parts(&graph, &params, info(&graph)).unwrap();
    let image = Array3::from_elem((32, 32, 3), 9);
    assert_eq!(model.predict(&image.view()).unwrap_err().kind(), ErrorKind::NonFinite);
}

/// 23 validation images of 3 classes, 8×8 pixels.
fn dataset(folder: &std::path::Path) -> Arc<Dataset> {
    let path = folder.join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &["class 0", "class 1", "class 2"].map(String::from)).unwrap();
    let mut stream = Key::new(1).stream();
    for i in 0..30 {
        let pixels: Vec<u8> = (0..8 * 8 * 3).map(|_| (stream.u64() % 128) as u8 + 40 * (i % 3) as u8).collect();
        let split = if i < 7 { Split::Train } else { Split::Valid };
        writer.push(split, i % 3, 8, 8, &pixels).unwrap();
    }
    writer.finish().unwrap();
    Arc::new(Dataset::open(&path).unwrap())
}

fn small_model(dataset: &Dataset) -> Model {
    let graph = models::build("convnet2", &ModelOptions { classes: 3, size: 8, ..Default::default() }).unwrap();
    let as_f64 = |values: [f32; 3]| values.map(f64::from);
    let (mean, std) = (as_f64(dataset.mean()), as_f64(dataset.std()));
    let info = ModelInfo::new(dataset.classes().to_vec(), Preprocessing::new((8, 8), mean, std));
    Model::from_parts(&graph, &random_params::<f32>(&graph, 1), info).unwrap()
}

#[test]
fn evaluation_is_the_engines() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let model = small_model(&dataset);
    let mut engine = Engine::<Cpu>::new(model.graph(), 23, 0).unwrap();
    engine.params_mut().values_mut().copy_from_slice(random_params::<f32>(model.graph(), 1).values());
    let loader = Loader::new(dataset.clone(), LoaderConfig::valid(&dataset, 23)).unwrap();
    let batch = loader.epoch(0, 0).unwrap().next().unwrap().unwrap();
    let expected = engine.evaluate(batch.images(), batch.targets()).unwrap();

    for size in [23, 5, 1000] {
        let evaluation = evaluate(&model, &dataset, &EvalConfig { batch: size, ..Default::default() }).unwrap();
        assert_eq!(evaluation.images, 23);
        assert_eq!(evaluation.accuracy, expected.correct as f64 / 23.0);
        assert_eq!(evaluation.top5, 1.0);
        assert!((evaluation.loss - expected.loss).abs() < 1e-5);
        let matrix = evaluation.confusion(3);
        assert_eq!(matrix.iter().sum::<u64>(), 23);
        assert_eq!((0..3).map(|c| matrix[4 * c]).sum::<u64>(), expected.correct as u64);
        assert_eq!((0..3).map(|c| evaluation.of_class(c).0).collect::<Vec<_>>(), [7, 8, 8]);
    }
}

#[test]
fn test_time_augmentation_averages_probabilities() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let model = small_model(&dataset);
    let plain = evaluate(&model, &dataset, &EvalConfig::default()).unwrap();
    // Passes without any change: the mean is the plain pass.
    let idle = EvalConfig { tta: 3, augment: Augment::NONE, batch: 4, ..Default::default() };
    let same = evaluate(&model, &dataset, &idle).unwrap();
    assert_eq!((same.accuracy, &same.pairs), (plain.accuracy, &plain.pairs));
    assert!((same.loss - plain.loss).abs() < 1e-5);

    // Two augmented passes, written out.
    let config = EvalConfig { tta: 2, batch: 8, seed: 5, ..Default::default() };
    let averaged = evaluate(&model, &dataset, &config).unwrap();
    assert_ne!(averaged.loss, plain.loss);
    let mut mean = Array2::<f64>::zeros((23, 3));
    let mut labels = Vec::new();
    for run in 0..=2 {
        let loader = LoaderConfig {
            augment: if run == 0 { Augment::NONE } else { Augment::CIFAR },
            normalise: Normalise { mean: dataset.mean(), std: dataset.std() },
            key: Key::new(5).with_name("tta"),
            run,
            ..LoaderConfig::valid(&dataset, 23)
        };
        let batch = Loader::new(dataset.clone(), loader).unwrap().epoch(0, 0).unwrap().next().unwrap().unwrap();
        let mut out = Array2::zeros((23, 3));
        model.session(23).unwrap().predict_normalised_into(batch.images(), out.view_mut()).unwrap();
        mean += &out.mapv(|p| f64::from(p) / 3.0);
        labels = batch.labels().to_vec();
    }
    let loss = labels.iter().zip(mean.outer_iter()).map(|(&l, p)| -p[l as usize].ln()).sum::<f64>() / 23.0;
    assert!((averaged.loss - loss).abs() < 1e-5, "{} {loss}", averaged.loss);
    assert_eq!(evaluate(&model, &dataset, &config).unwrap(), averaged);
}

/// The mean of the scores of each view, written out: of the mirror image, and of translations.
#[test]
fn views_average_scores() {
    let model = resnet();
    let plain =
        Array4::from_shape_fn((3, 32, 32, 3), |(i, y, x, c)| ((7 * i + 3 * y + x * x + 5 * c) % 41) as f32 / 20.0);
    let moved = |by: isize, flip: bool| {
        let at = |p: usize| {
            let p = (p as isize + by).unsigned_abs();
            if p > 31 { 62 - p } else { p }
        };
        Array4::from_shape_fn(plain.dim(), |(i, y, x, c)| plain[[i, at(y), at(if flip { 31 - x } else { x }), c]])
    };
    let scores = |images: &Array4<f32>| model.session(3).unwrap().scores(images.view()).unwrap().to_owned();
    let pair = |by| (scores(&moved(by, false)) + scores(&moved(by, true))) / 2.0;
    let flip = pair(0);
    let both = &flip / 2.0 + (pair(-1) + pair(1)) / 4.0;
    for (views, expected) in [(Views::One, scores(&plain)), (Views::Flip, flip), (Views::FlipTranslate, both)] {
        let mut session = model.session(4).unwrap().with_views(views).unwrap();
        let found = session.scores(plain.view()).unwrap().to_owned();
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-4, "{views}: {off}");
        // Probabilities are the softmax of that mean, and a call leaves nothing for the next.
        let mut out = Array2::zeros((3, 10));
        session.predict_normalised_into(plain.view(), out.view_mut()).unwrap();
        for (row, scores) in out.outer_iter().zip(found.outer_iter()) {
            let sum: f32 = scores.iter().map(|s| s.exp()).sum();
            assert!(row.iter().zip(scores).all(|(p, s)| (p - s.exp() / sum).abs() < 1e-5), "{views}");
        }
    }
}

#[test]
fn evaluation_looks_at_views() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let model = small_model(&dataset);
    let config = EvalConfig { views: Views::Flip, batch: 8, ..Default::default() };
    let loader = Loader::new(dataset.clone(), LoaderConfig::valid(&dataset, 23)).unwrap();
    let batch = loader.epoch(0, 0).unwrap().next().unwrap().unwrap();
    let mut session = model.session(23).unwrap().with_views(Views::Flip).unwrap();
    let mut out = Array2::zeros((23, 3));
    session.predict_normalised_into(batch.images(), out.view_mut()).unwrap();
    let losses = batch.labels().iter().zip(out.outer_iter()).map(|(&l, p)| -f64::from(p[l as usize]).ln());
    let found = evaluate(&model, &dataset, &config).unwrap();
    assert!((found.loss - losses.sum::<f64>() / 23.0).abs() < 1e-5);
    assert_ne!(found.loss, evaluate(&model, &dataset, &EvalConfig::default()).unwrap().loss);
}

/// A model that was validated on squashed images predicts and evaluates squashed ones.
#[test]
fn predictions_frame_images_as_validation_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &["class 0", "class 1", "class 2"].map(String::from)).unwrap();
    let mut stream = Key::new(6).stream();
    let photos: Vec<Array3<u8>> = (0..12)
        .map(|i| Array3::from_shape_simple_fn((8 + i % 5, 8 + i % 7, 3), || (stream.u64() % 200) as u8 + 5 * i as u8))
        .collect();
    for (i, photo) in photos.iter().enumerate() {
        let (h, w, _) = photo.dim();
        writer.push(Split::Valid, i as u32 % 3, h, w, photo.as_slice().unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let dataset = Arc::new(Dataset::open(&path).unwrap());
    let model = |framing| {
        let own = small_model(&dataset);
        let mut info = own.info().clone();
        info.preprocessing.framing = framing;
        Model::from_parts(own.graph(), &random_params::<f32>(own.graph(), 1), info).unwrap()
    };
    let exact = evaluate(&model(Framing::Exact), &dataset, &EvalConfig::default()).unwrap_err();
    assert_eq!(exact.kind(), ErrorKind::Shape);
    let mut losses = Vec::new();
    for framing in [Framing::Fill, Framing::Squash { to: (10, 10) }, Framing::Shorter { to: 9 }] {
        let model = model(framing);
        let evaluation = evaluate(&model, &dataset, &EvalConfig::default()).unwrap();
        let loss: f64 = photos
            .iter()
            .enumerate()
            .map(|(i, photo)| {
                let prediction = model.predict(&photo.view()).unwrap();
                let own = prediction.classes().iter().find(|c| c.class == i % 3).unwrap();
                -f64::from(own.probability).ln()
            })
            .sum::<f64>()
            / photos.len() as f64;
        // Bytes are rounded on one way and not on the other.
        assert!((loss - evaluation.loss).abs() < 2e-2, "{framing:?}: {loss} {}", evaluation.loss);
        losses.push(evaluation.loss);
    }
    assert!((losses[0] - losses[1]).abs() > 1e-3 && (losses[1] - losses[2]).abs() > 1e-3, "{losses:?}");
    // Preprocessing that does not fit the model is refused.
    let own = small_model(&dataset);
    let mut info = own.info().clone();
    info.preprocessing.framing = Framing::Shorter { to: 7 };
    let wrong = Model::from_parts(own.graph(), &random_params::<f32>(own.graph(), 1), info).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Shape);
}

#[test]
fn a_dataset_of_other_classes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let error = evaluate(&resnet(), &dataset, &EvalConfig::default()).unwrap_err();
    assert!(error.to_string().contains("the model's 10 classes"), "{error}");
}
