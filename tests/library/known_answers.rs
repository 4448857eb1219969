//! Known answers for single ops: PyTorch's (tests/fixtures), and hand-made ones where the implementations share the code
//! in question, so that comparing them with each other says nothing.

use handgrad::backend::{Cpu, Host, Reference};
use handgrad::graph::Shape;
use handgrad::ops::cases::Case;
use handgrad::ops::conformance::{Delivery, Operands, Passes, Run, run};
use handgrad::ops::{
    Activation, AdaptivePool, AvgPool, BatchNorm, Conv2d, DropPath, Dropout, Layout, Linear, MaxPool, OpSpec,
    ParamSpec, Reduce, SoftmaxCrossEntropy, Statistics, Window,
};
use serde_json::Value;

use crate::golden::{FILES, Fixtures, assert_close, uniform};

fn pass<B: Host>(case: &Case, operands: &Operands, which: Run) -> Passes {
    run::<B>(case, operands, which, Delivery::Write)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
}

fn agree(what: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_close(what, ours, theirs, largest(theirs), tolerance);
}

// ------------------------------------------------------------ PyTorch's ops

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

/// PyTorch's NCHW order to NHWC.
fn nhwc(values: &[f64], dims: &[usize]) -> Vec<f64> {
    let &[n, c, h, w] = dims else { panic!("four sizes, not {dims:?}") };
    let from = |b, i, j, k| values[((b * c + k) * h + i) * w + j];
    let pixels = (0..n).flat_map(|b| (0..h).flat_map(move |i| (0..w).map(move |j| (b, i, j))));
    pixels.flat_map(|(b, i, j)| (0..c).map(move |k| from(b, i, j, k))).collect()
}

fn ours(layout: &Layout, torch: &[f64]) -> Vec<f64> {
    let mut values = vec![f64::NAN; torch.len()];
    layout.for_each_pair(|ours, theirs| values[ours] = torch[theirs]);
    values
}

/// The op that the fixtures' settings describe.
fn spec(settings: &Value) -> OpSpec {
    let one = |key: &str| settings[key].as_u64().unwrap() as usize;
    let both = |key: &str| (one(key), one(key));
    let window = |kernel| Window {
        kernel,
        stride: both("stride"),
        pad: both("padding"),
        dilation: settings["dilation"].as_u64().map_or((1, 1), |d| (d as usize, d as usize)),
    };
    let adaptive = |reduce| {
        let output = sizes(&settings["output_size"]);
        AdaptivePool { reduce, output: (output[0], output[1]) }.into()
    };
    let ceil = settings["ceil_mode"].as_bool();
    match settings["op"].as_str().unwrap() {
        "conv2d" => {
            let w = sizes(&settings["w"]);
            Conv2d { channels: w[0], window: window((w[2], w[3])), groups: one("groups"), bias: true, trim: (0, 0) }
                .into()
        }
        "max_pool2d" => MaxPool { window: window(both("kernel_size")), ceil: ceil.unwrap() }.into(),
        "avg_pool2d" => AvgPool { window: window(both("kernel_size")), ceil: ceil.unwrap() }.into(),
        "adaptive_max_pool2d" => adaptive(Reduce::Max),
        "adaptive_avg_pool2d" => adaptive(Reduce::Mean),
        "mish" => Activation::Mish.into(),
        "silu" => Activation::Silu.into(),
        "sigmoid" => Activation::Sigmoid.into(),
        "tanh" => Activation::Tanh.into(),
        "gelu" => Activation::Gelu.into(),
        "softplus" => Activation::Softplus.into(),
        "leaky_relu" => Activation::LeakyRelu { slope: settings["negative_slope"].as_f64().unwrap() }.into(),
        other => panic!("{other} has a test of its own"),
    }
}

/// Output and gradients of one op of the fixtures.
fn as_pytorch<B: Host>(fixtures: &Fixtures, name: &str, settings: &Value, tolerance: f64) {
    let (spec, x) = (spec(settings), sizes(&settings["x"]));
    let case = Case::new(spec, &[Shape::new(x[2], x[3], x[1])], x[0]);
    let op = case.op.op();
    let y = op.output(&case.inputs).unwrap();
    let y = [x[0], y.c, y.h, y.w];
    let scale = |what: &str| settings[format!("{what}_scale")].as_f64().unwrap_or(1.0);
    let draw = |what: &str, len: usize| uniform(&format!("ops/{name}/{what}"), len, scale(what));
    let params = op.params(&case.inputs);
    let keys = || params.iter().zip(["w", "b"]);
    let operands = Operands::new(
        &case,
        vec![nhwc(&draw("x", x.iter().product()), &x)],
        keys().map(|(param, key)| ours(&param.layout, &draw(key, param.layout.len()))).collect(),
        Vec::new(),
        nhwc(&draw("dy", y.iter().product()), &y),
    );
    let passes = pass::<B>(&case, &operands, Run::Train);
    let at = |what: &str| fixtures.get(&format!("ops/{name}/{what}"));
    let what = |part: &str| format!("{} {name}: {part}", B::NAME);
    agree(&what("y"), &passes.y, &nhwc(&at("y"), &y), tolerance);
    agree(&what("y of evaluation"), &pass::<B>(&case, &operands, Run::Eval).y, &passes.y, tolerance);
    agree(&what("dx"), &passes.dx[0], &nhwc(&at("dx"), &x), tolerance);
    for ((param, key), gradient) in keys().zip(&passes.dparams) {
        agree(&what(&format!("d{key}")), gradient, &ours(&param.layout, &at(&format!("d{key}"))), tolerance);
    }
}

#[test]
fn ops_do_as_pytorch_does() {
    let fixtures = Fixtures::read(FILES[0]);
    let mut seen = 0;
    for (name, settings) in fixtures.golden["ops"].as_object().unwrap() {
        if !["batch_norm", "soft_cross_entropy"].contains(&name.as_str()) {
            as_pytorch::<Reference>(&fixtures, name, settings, 1e-12);
            as_pytorch::<Cpu>(&fixtures, name, settings, 1e-5);
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} ops in the fixtures");
}

/// Output, gradients and state of one layer of the fixtures.
fn layer_as_pytorch<B: Host>(fixtures: &Fixtures, name: &str, settings: &Value, tolerance: f64) {
    let spec: OpSpec = serde_json::from_value(settings["op"].clone()).unwrap();
    let dims: Vec<Vec<usize>> = settings["inputs"].as_array().unwrap().iter().map(sizes).collect();
    let shapes: Vec<Shape> = dims.iter().map(|x| Shape::new(x[2], x[3], x[1])).collect();
    let case = Case::new(spec, &shapes, dims[0][0]);
    let op = case.op.op();
    let y = op.output(&shapes).unwrap();
    let y = [dims[0][0], y.c, y.h, y.w];
    let draw = |what: &str, len: usize| uniform(&format!("layers/{name}/{what}"), len, 1.0);
    let values = |specs: &[ParamSpec]| -> Vec<Vec<f64>> {
        let fill = |spec: &ParamSpec| {
            let mut values = draw(spec.name, spec.layout.len());
            if spec.name == "radii" {
                values.iter_mut().for_each(|v| *v = 1.0 + *v / 2.0);
            }
            ours(&spec.layout, &values)
        };
        specs.iter().map(fill).collect()
    };
    let (params, states) = (op.params(&shapes), op.states(&shapes));
    let x = dims.iter().enumerate().map(|(i, dims)| nhwc(&draw(&format!("x{i}"), dims.iter().product()), dims));
    let x: Vec<Vec<f64>> = x.collect();
    let dy = nhwc(&draw("dy", y.iter().product()), &y);
    let operands = Operands::new(&case, x.clone(), values(&params), values(&states), dy.clone());
    let passes = pass::<B>(&case, &operands, Run::Train);
    let at = |what: &str| fixtures.get(&format!("layers/{name}/{what}"));
    let what = |part: &str| format!("{} {name}: {part}", B::NAME);
    agree(&what("y"), &passes.y, &nhwc(&at("y"), &y), tolerance);
    for (i, (dx, dims)) in passes.dx.iter().zip(&dims).enumerate() {
        agree(&what(&format!("dx{i}")), dx, &nhwc(&at(&format!("dx{i}")), dims), tolerance);
    }
    for (spec, gradient) in params.iter().zip(&passes.dparams) {
        let key = format!("d{}", spec.name);
        agree(&what(&key), gradient, &ours(&spec.layout, &at(&key)), tolerance);
    }
    for (spec, state) in states.iter().zip(&passes.states) {
        agree(&what(spec.name), state, &ours(&spec.layout, &at(spec.name)), tolerance);
    }
    let operands = Operands::new(&case, x, values(&params), passes.states.clone(), dy);
    let eval = pass::<B>(&case, &operands, Run::Eval);
    agree(&what("y of evaluation"), &eval.y, &nhwc(&at("y_eval"), &y), tolerance);
    assert_eq!(eval.states, passes.states, "evaluation leaves state alone");
}

#[test]
fn layers_do_as_pytorch_does() {
    let fixtures = Fixtures::read(FILES[0]);
    for (name, settings) in fixtures.golden["layers"].as_object().unwrap() {
        layer_as_pytorch::<Reference>(&fixtures, name, settings, 1e-12);
        layer_as_pytorch::<Cpu>(&fixtures, name, settings, 1e-5);
    }
}

fn batch_norm_as_pytorch<B: Host>(tolerance: f64) {
    let fixtures = Fixtures::read(FILES[0]);
    let settings = &fixtures.golden["ops"]["batch_norm"];
    let dims = sizes(&settings["shape"]);
    let (len, channels) = (dims.iter().product(), dims[1]);
    let momentum = settings["momentum"].as_f64().unwrap();
    let op = BatchNorm { eps: settings["eps"].as_f64().unwrap(), statistics: Statistics::Running { momentum } };
    let case = Case::new(op, &[Shape::new(dims[2], dims[3], channels)], dims[0]);
    let draw = |what: &str, len: usize, scale: f64| uniform(&format!("ops/batch_norm/{what}"), len, scale);
    let scale: Vec<f64> = draw("w", channels, 0.5).iter().map(|v| 1.0 + v).collect();
    let at = |what: &str| fixtures.get(&format!("ops/batch_norm/{what}"));
    let step = |x: &str, states: &[Vec<f64>], which: Run| {
        let x = vec![nhwc(&draw(x, len, 2.0), &dims)];
        let params = vec![scale.clone(), draw("b", channels, 1.0)];
        let operands = Operands::new(&case, x, params, states.to_vec(), nhwc(&draw("dy", len, 1.0), &dims));
        pass::<B>(&case, &operands, which)
    };
    let first = step("x0", &[vec![0.0; channels], vec![1.0; channels]], Run::TrainForward);
    let second = step("x1", &first.states, Run::Train);
    let what = |part: &str| format!("{} batch_norm: {part}", B::NAME);
    agree(&what("y"), &second.y, &nhwc(&at("y"), &dims), tolerance);
    agree(&what("dx"), &second.dx[0], &nhwc(&at("dx"), &dims), tolerance);
    agree(&what("dw"), &second.dparams[0], &at("dw"), tolerance);
    agree(&what("db"), &second.dparams[1], &at("db"), tolerance);
    agree(&what("running mean"), &second.states[0], &at("running_mean"), tolerance);
    agree(&what("running variance"), &second.states[1], &at("running_var"), tolerance);
    let last = step("x2", &second.states, Run::Eval);
    agree(&what("y of evaluation"), &last.y, &nhwc(&at("y_eval"), &dims), tolerance);
    assert_eq!(last.states, second.states, "evaluation leaves state alone");
}

#[test]
fn batch_norm_does_as_pytorch_does() {
    batch_norm_as_pytorch::<Reference>(1e-12);
    batch_norm_as_pytorch::<Cpu>(1e-5);
}

fn cross_entropy_as_pytorch<B: Host>(tolerance: f64) {
    let fixtures = Fixtures::read(FILES[0]);
    let shape = sizes(&fixtures.golden["ops"]["soft_cross_entropy"]["shape"]);
    let (rows, classes) = (shape[0], shape[1]);
    let draw = |what: &str, scale: f64| uniform(&format!("ops/soft_cross_entropy/{what}"), rows * classes, scale);
    let mut targets: Vec<f64> = draw("t", 1.0).iter().map(|v| v.abs() + 0.01).collect();
    for row in targets.chunks_mut(classes) {
        let total: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= total);
    }
    let case = Case::new(SoftmaxCrossEntropy, &[Shape::flat(classes); 2], rows);
    let share = 1.0 / rows as f64;
    let operands = Operands::new(&case, vec![draw("x", 3.0), targets], Vec::new(), Vec::new(), vec![share; rows]);
    let passes = pass::<B>(&case, &operands, Run::Train);
    let mean = passes.y.iter().sum::<f64>() * share;
    agree("mean loss", &[mean], &fixtures.get("ops/soft_cross_entropy/y"), tolerance);
    agree("scores' gradient", &passes.dx[0], &fixtures.get("ops/soft_cross_entropy/dx"), tolerance);
}

#[test]
fn cross_entropy_does_as_pytorch_does() {
    cross_entropy_as_pytorch::<Reference>(1e-12);
    cross_entropy_as_pytorch::<Cpu>(1e-5);
}

// ------------------------------------------------------------ hand-made

/// Operands without parameters or state.
fn plain(case: &Case, x: Vec<Vec<f64>>, dy: Vec<f64>) -> Operands {
    Operands::new(case, x, Vec::new(), Vec::new(), dy)
}

fn activations_are_their_formulas_on<B: Host>() {
    let x = vec![-8.0, -2.0, -0.0625, 0.0, 0.0625, 0.5, 1.0, 3.0];
    let general = Activation::GeneralRelu { leak: 0.125, sub: 0.5, maxv: Some(0.75) };
    for (op, y, dx) in [
        (Activation::Relu, [0.0, 0.0, 0.0, 0.0, 0.0625, 0.5, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        (
            Activation::LeakyRelu { slope: 0.25 },
            [-2.0, -0.5, -0.015625, 0.0, 0.0625, 0.5, 1.0, 3.0],
            [0.25, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0],
        ),
        (
            general,
            [-1.5, -0.75, -0.5078125, -0.5, -0.4375, 0.0, 0.5, 0.75],
            [0.125, 0.125, 0.125, 0.125, 1.0, 1.0, 1.0, 0.0],
        ),
    ] {
        let case = Case::new(op, &[Shape::flat(x.len())], 1);
        let passes = pass::<B>(&case, &plain(&case, vec![x.clone()], vec![1.0; x.len()]), Run::Train);
        assert_eq!(passes.y, y, "{op:?}");
        assert_eq!(passes.dx[0], dx, "{op:?}");
    }
}

#[test]
fn activations_are_their_formulas() {
    activations_are_their_formulas_on::<Reference>();
    activations_are_their_formulas_on::<Cpu>();
}

fn smooth_activations_have_limits_on<B: Host>() {
    let far = 1e30;
    for (op, y, dx) in [
        (Activation::Mish, [0.0, far], [0.0, 1.0]),
        (Activation::Silu, [0.0, far], [0.0, 1.0]),
        (Activation::Sigmoid, [0.0, 1.0], [0.0, 0.0]),
        (Activation::Tanh, [-1.0, 1.0], [0.0, 0.0]),
        (Activation::Gelu, [0.0, far], [0.0, 1.0]),
        (Activation::Softplus, [0.0, far], [0.0, 1.0]),
    ] {
        let case = Case::new(op, &[Shape::flat(3)], 1);
        let passes = pass::<B>(&case, &plain(&case, vec![vec![-far, far, f64::NAN]], vec![1.0; 3]), Run::Train);
        let ends = |values: &[f64]| [values[0] as f32, values[1] as f32];
        assert_eq!((ends(&passes.y), ends(&passes.dx[0])), (ends(&y), ends(&dx)), "{op:?}");
        assert!(passes.y[2].is_nan() && passes.dx[0][2].is_nan(), "{op:?} loses a NaN");
    }
}

#[test]
fn smooth_activations_have_limits() {
    smooth_activations_have_limits_on::<Reference>();
    smooth_activations_have_limits_on::<Cpu>();
}

fn pools() -> [OpSpec; 2] {
    [
        MaxPool { window: Window::square(2, 2, 0), ceil: false }.into(),
        AdaptivePool { reduce: Reduce::Max, output: (1, 1) }.into(),
    ]
}

fn the_first_of_equals_wins_on<B: Host>() {
    for op in pools() {
        let case = Case::new(op, &[Shape::new(2, 2, 1)], 1);
        let passes = pass::<B>(&case, &plain(&case, vec![vec![0.0, 1.0, 1.0, 1.0]], vec![2.0]), Run::Train);
        assert_eq!((passes.y, passes.dx), (vec![1.0], vec![vec![0.0, 2.0, 0.0, 0.0]]), "{}", case.name());
    }
}

fn a_nan_wins_on<B: Host>() {
    for op in pools() {
        let case = Case::new(op, &[Shape::new(2, 2, 1)], 1);
        for at in 0..4 {
            let mut x = vec![1.0, 2.0, 3.0, 2.0];
            x[at] = f64::NAN;
            for which in [Run::Train, Run::Eval] {
                let passes = pass::<B>(&case, &plain(&case, vec![x.clone()], vec![1.0]), which);
                assert!(passes.y[0].is_nan(), "{} {which:?} {x:?}", case.name());
            }
        }
    }
}

#[test]
fn maxima_choose_as_pytorch_does() {
    the_first_of_equals_wins_on::<Reference>();
    the_first_of_equals_wins_on::<Cpu>();
    a_nan_wins_on::<Reference>();
    a_nan_wins_on::<Cpu>();
}

fn last_batch_statistics_on<B: Host>() {
    let case = Case::new(BatchNorm::last_batch(0.0), &[Shape::new(2, 1, 1)], 2);
    // mean 3, squared deviations 14, of 4 values: variance 14/3
    let (x, std) = ([1.0, 2.0, 3.0, 6.0], (14.0f64 / 3.0).sqrt());
    let params = || vec![vec![2.0], vec![0.5]];
    let y: Vec<f64> = x.iter().map(|x| (x - 3.0) / std * 2.0 + 0.5).collect();
    let operands = Operands::new(&case, vec![x.to_vec()], params(), vec![vec![9.0], vec![9.0]], vec![0.0; 4]);
    let passes = pass::<B>(&case, &operands, Run::TrainForward);
    agree("y", &passes.y, &y, 1e-6);
    agree("mean", &passes.states[0], &[3.0], 1e-6);
    agree("variance", &passes.states[1], &[14.0 / 3.0], 1e-6);
    let operands = Operands::new(&case, vec![x.to_vec()], params(), passes.states.clone(), vec![0.0; 4]);
    let eval = pass::<B>(&case, &operands, Run::Eval);
    agree("y of evaluation", &eval.y, &y, 1e-6);
    assert_eq!(eval.states, passes.states, "evaluation leaves state alone");
}

#[test]
fn the_last_batchs_statistics_have_divisor_n_minus_1() {
    last_batch_statistics_on::<Reference>();
    last_batch_statistics_on::<Cpu>();
}

fn large_scores_on<B: Host>() {
    let case = Case::new(SoftmaxCrossEntropy, &[Shape::flat(3); 2], 2);
    let scores = vec![2000.0, 0.0, -2000.0, -900.0, -900.0, -900.0];
    let targets = vec![0.0, 1.0, 0.0, 1.0, 0.0, 0.0];
    let passes = pass::<B>(&case, &plain(&case, vec![scores, targets], vec![1.0; 2]), Run::Train);
    agree("loss", &passes.y, &[2000.0, 3f64.ln()], 1e-6);
    let third = 1.0 / 3.0;
    agree("gradient", &passes.dx[0], &[1.0, -1.0, 0.0, third - 1.0, third, third], 1e-6);
}

#[test]
fn large_scores_do_not_overflow() {
    large_scores_on::<Reference>();
    large_scores_on::<Cpu>();
}

fn dropout_on<B: Host>() {
    let (p, len, images) = (0.2, 50_000, 2);
    let case = Case::new(Dropout { p }, &[Shape::flat(len)], images);
    let operands = plain(&case, vec![vec![1.0; len * images]], vec![3.0; len * images]);
    let passes = pass::<B>(&case, &operands, Run::Train);
    let kept = passes.y.iter().filter(|&&y| y != 0.0).count() as f64 / (len * images) as f64;
    assert!((kept - 0.8).abs() < 0.01, "{kept} of the values are kept"); // eight standard deviations
    assert!(passes.y.iter().all(|&y| y == 0.0 || (y - 1.25).abs() < 1e-6), "kept values are divided by 1 − p");
    assert!(passes.dx[0].iter().zip(&passes.y).all(|(dx, y)| (dx - 3.0 * y).abs() < 1e-5), "the same mask backward");
    assert_ne!(passes.y[..len], passes.y[len..], "each image has its own mask");
    assert!(pass::<B>(&case, &operands, Run::Eval).y.iter().all(|&y| y == 1.0), "evaluation keeps everything");
}

#[test]
fn dropout_keeps_the_mean() {
    dropout_on::<Reference>();
    dropout_on::<Cpu>();
}

fn drop_path_on<B: Host>() {
    let (p, len, images) = (0.2, 3, 20_000);
    let case = Case::new(DropPath { p }, &[Shape::flat(len)], images);
    let operands = plain(&case, vec![vec![1.0; len * images]], vec![3.0; len * images]);
    let passes = pass::<B>(&case, &operands, Run::Train);
    let kept = passes.y.iter().filter(|&&y| y != 0.0).count() as f64 / (len * images) as f64;
    assert!((kept - 0.8).abs() < 0.02, "{kept} of the images are kept"); // seven standard deviations
    assert!(passes.y.chunks(len).all(|y| y.iter().all(|v| v == &y[0])), "an image is kept or dropped as a whole");
    assert!(passes.y.iter().all(|&y| y == 0.0 || (y - 1.25).abs() < 1e-6), "kept values are divided by 1 − p");
    assert!(passes.dx[0].iter().zip(&passes.y).all(|(dx, y)| (dx - 3.0 * y).abs() < 1e-5), "the same images backward");
    assert!(pass::<B>(&case, &operands, Run::Eval).y.iter().all(|&y| y == 1.0), "evaluation keeps everything");
}

#[test]
fn drop_path_keeps_the_mean() {
    drop_path_on::<Reference>();
    drop_path_on::<Cpu>();
}

fn linear_on<B: Host>() {
    let case = Case::new(Linear::new(2), &[Shape::flat(3)], 1);
    let params = vec![vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0], vec![0.5, -0.5]];
    let operands = Operands::new(&case, vec![vec![1.0, -1.0, 2.0]], params, Vec::new(), vec![1.0, 2.0]);
    let passes = pass::<B>(&case, &operands, Run::Train);
    assert_eq!(passes.y, [5.5, 49.5]);
    assert_eq!(passes.dx[0], [21.0, 42.0, 63.0]);
    assert_eq!(passes.dparams, [vec![1.0, 2.0, -1.0, -2.0, 2.0, 4.0], vec![1.0, 2.0]]);
}

#[test]
fn linear_layers_multiply_from_the_left() {
    linear_on::<Reference>();
    linear_on::<Cpu>();
}
