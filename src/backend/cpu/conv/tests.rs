//! Every pass at every level against naive loops in f64, and the same bits for any number of threads.

use super::*;
use crate::backend::cpu::simd::levels_available;

mod packed;

/// Input height, width, channels; output channels; kernel, stride, pad, dilation; groups.
pub(super) type Shape =
    (usize, usize, usize, usize, (usize, usize), (usize, usize), (usize, usize), (usize, usize), usize);

/// Odd on purpose.
const SHAPES: &[Shape] = &[
    (5, 7, 3, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (9, 6, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (9, 6, 5, 17, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (8, 8, 17, 33, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    (32, 32, 3, 20, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    (12, 11, 3, 16, (7, 7), (1, 1), (1, 1), (1, 1), 1),
    (13, 10, 33, 80, (5, 5), (3, 3), (2, 2), (1, 1), 1),
    (11, 14, 5, 10, (2, 2), (2, 2), (0, 0), (1, 1), 1),
    (11, 14, 16, 16, (3, 2), (1, 2), (2, 0), (1, 1), 1),
    (11, 14, 5, 33, (2, 5), (3, 2), (1, 4), (1, 1), 1),
    (10, 12, 3, 17, (3, 3), (1, 1), (2, 2), (2, 2), 1),
    (10, 13, 16, 5, (3, 3), (2, 2), (3, 1), (2, 2), 1),
    (10, 13, 6, 9, (3, 3), (3, 2), (2, 1), (2, 3), 3),
    (6, 7, 6, 10, (3, 3), (1, 1), (1, 1), (1, 1), 2),
    (6, 7, 33, 66, (3, 3), (2, 1), (1, 1), (1, 1), 3),
    (6, 7, 5, 5, (3, 3), (1, 1), (1, 1), (1, 1), 5),
    (9, 7, 33, 33, (5, 3), (2, 3), (2, 1), (1, 2), 33),
    (7, 9, 80, 80, (3, 3), (1, 1), (1, 1), (1, 1), 80),
    (6, 5, 4, 12, (3, 3), (2, 2), (1, 1), (1, 1), 4),
    // Groups that share vectors, at one level or another: 2 to 12 channels of 2, 4 or 8.
    (6, 7, 32, 32, (3, 3), (1, 1), (1, 1), (1, 1), 8),
    (9, 6, 16, 32, (3, 3), (2, 2), (1, 1), (1, 1), 8),
    (7, 5, 32, 16, (3, 2), (1, 2), (1, 0), (2, 1), 8),
    (5, 6, 8, 8, (2, 3), (1, 1), (1, 1), (1, 1), 4),
    (6, 5, 12, 16, (3, 3), (1, 1), (1, 1), (1, 1), 4),
    (6, 5, 24, 16, (3, 3), (2, 1), (1, 1), (1, 1), 4),
    (8, 9, 64, 32, (3, 3), (1, 1), (1, 1), (1, 1), 8),
    (5, 5, 96, 32, (3, 3), (1, 1), (1, 1), (1, 1), 8),
    (9, 9, 64, 128, (3, 3), (2, 2), (1, 1), (1, 1), 16),
    (2, 2, 2200, 8, (1, 1), (1, 1), (0, 0), (1, 1), 2),
    (3, 3, 80, 80, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 3, 530, 21, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 2, 1100, 7, (2, 1), (1, 1), (0, 0), (1, 1), 1),
    (3, 2, 5, 16, (3, 3), (5, 5), (3, 3), (1, 1), 1),
    (70, 40, 40, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (4, 4, 3, 3, (1, 1), (1, 1), (2, 2), (1, 1), 1),
    (9, 8, 40, 64, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (10, 7, 72, 32, (3, 3), (1, 1), (0, 2), (1, 1), 1),
    (4, 6, 72, 208, (3, 3), (1, 1), (2, 0), (1, 1), 1),
    (8, 9, 64, 40, (3, 3), (1, 1), (2, 2), (1, 1), 1),
    (8, 8, 200, 72, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (11, 10, 136, 224, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (9, 8, 137, 135, (1, 1), (2, 3), (0, 0), (1, 1), 1),
    (5, 6, 520, 129, (1, 1), (1, 2), (0, 0), (1, 1), 1),
];

/// 1 × 1 kernels over many channels, with their batches: partial sums of one and two chunks of pixels, work items that share
/// rows or columns, a linear layer.
const PRODUCTS: &[(Shape, usize)] = &[
    ((66, 64, 128, 129, (1, 1), (1, 1), (0, 0), (1, 1), 1), 1),
    ((6, 7, 130, 580, (1, 1), (1, 1), (0, 0), (1, 1), 1), 9),
    ((7, 9, 580, 130, (1, 1), (2, 1), (0, 0), (1, 1), 1), 13),
    ((1, 1, 200, 1000, (1, 1), (1, 1), (0, 0), (1, 1), 1), 300),
];

pub(super) fn geometry(shape: &Shape) -> ConvGeometry {
    let &(in_h, in_w, in_c, out_c, kernel, stride, pad, dilation, groups) = shape;
    let out = |i: usize, k: usize, s: usize, p: usize, d: usize| (i + 2 * p - d * (k - 1) - 1) / s + 1;
    ConvGeometry {
        in_h,
        in_w,
        in_c,
        out_h: out(in_h, kernel.0, stride.0, pad.0, dilation.0),
        out_w: out(in_w, kernel.1, stride.1, pad.1, dilation.1),
        out_c,
        kernel,
        stride,
        pad,
        dilation,
        groups,
    }
}

pub(super) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Calls `f(input index, weight index, output index)` for every product of the convolution.
fn for_each_product(g: &ConvGeometry, n: usize, mut f: impl FnMut(usize, usize, usize)) {
    let (in_group, out_group) = (g.in_c / g.groups, g.out_c / g.groups);
    for image in 0..n {
        for (oy, ox) in (0..g.out_h).flat_map(|y| (0..g.out_w).map(move |x| (y, x))) {
            for (ky, kx) in (0..g.kernel.0).flat_map(|y| (0..g.kernel.1).map(move |x| (y, x))) {
                let y = (oy * g.stride.0 + ky * g.dilation.0).wrapping_sub(g.pad.0);
                let x = (ox * g.stride.1 + kx * g.dilation.1).wrapping_sub(g.pad.1);
                if y >= g.in_h || x >= g.in_w {
                    continue;
                }
                for o in 0..g.out_c {
                    for c in 0..in_group {
                        let input = ((image * g.in_h + y) * g.in_w + x) * g.in_c + o / out_group * in_group + c;
                        let weight = ((ky * g.kernel.1 + kx) * in_group + c) * g.out_c + o;
                        f(input, weight, ((image * g.out_h + oy) * g.out_w + ox) * g.out_c + o);
                    }
                }
            }
        }
    }
}

/// Sums of products with the sums of their magnitudes, by which rounding errors are judged.
struct Truth(Vec<(f64, f64)>);

impl Truth {
    fn new(len: usize) -> Truth {
        Truth(vec![(0.0, 0.0); len])
    }

    fn add(&mut self, i: usize, product: f64) {
        self.0[i].0 += product;
        self.0[i].1 += product.abs();
    }

    #[track_caller]
    fn check(&self, got: &[f32], finish: impl Fn(usize, f64) -> f64, what: &str) {
        assert_eq!(got.len(), self.0.len());
        for (i, (&got, &(sum, magnitude))) in got.iter().zip(&self.0).enumerate() {
            let expected = finish(i, sum);
            let error = (f64::from(got) - expected).abs();
            assert!(error <= 2e-6 * (magnitude + 1.0), "{what} [{i}]: {got}, expected {expected}");
        }
    }
}

/// A buffer of exactly the promised size, full of NaN.
pub(super) fn poison(len: usize) -> Vec<f32> {
    vec![f32::NAN; len]
}

fn each_case(mut f: impl FnMut(Level, &ConvGeometry, usize)) {
    for level in levels_available() {
        for shape in SHAPES {
            for n in [1, 2, 5, 9] {
                f(level, &geometry(shape), n);
            }
        }
    }
}

#[test]
fn forward_is_right() {
    each_case(|level, g, n| {
        let (x, w, bias) = (random(g.input_len(n), 1), random(g.weight_len(), 2), random(g.out_c, 3));
        let mut truth = Truth::new(g.output_len(n));
        for_each_product(g, n, |i, k, o| truth.add(o, f64::from(x[i]) * f64::from(w[k])));
        let mut scratch = poison(forward_scratch(level, g, n).max(forward_in_training_scratch(level, g, n)));
        for (activation, slope) in
            [(Activation::None, 1.0), (Activation::Relu, 0.0), (Activation::LeakyRelu(0.25), 0.25)]
        {
            for (accumulate, bias) in [(false, None), (false, Some(&bias)), (true, None), (true, Some(&bias))] {
                let old = random(g.output_len(n), 4);
                let mut y = if accumulate { old.clone() } else { poison(g.output_len(n)) };
                let epilogue = Epilogue { bias: bias.map(Vec::as_slice), activation, accumulate, ..Epilogue::NONE };
                forward(level, g, n, &x, &w, &mut y, epilogue, &mut scratch);
                let finish = |i: usize, sum: f64| {
                    let v = sum + bias.map_or(0.0, |b| f64::from(b[i % g.out_c]));
                    v.max(0.0) + slope * v.min(0.0) + if accumulate { f64::from(old[i]) } else { 0.0 }
                };
                truth.check(&y, finish, &format!("{level:?} n {n} {epilogue:?} {g:?}"));
                let mut y = if accumulate { old.clone() } else { poison(g.output_len(n)) };
                forward_in_training(level, g, n, &x, &w, &mut y, epilogue, &mut scratch);
                truth.check(&y, finish, &format!("in training, {level:?} n {n} {epilogue:?} {g:?}"));
            }
        }
    });
}

#[test]
fn input_gradient_is_right() {
    each_case(|level, g, n| {
        let (dy, w) = (random(g.output_len(n), 1), random(g.weight_len(), 2));
        let mut truth = Truth::new(g.input_len(n));
        for_each_product(g, n, |i, k, o| truth.add(i, f64::from(dy[o]) * f64::from(w[k])));
        let mut scratch = poison(input_gradient_scratch(level, g, n));
        for add in [false, true] {
            let old = random(g.input_len(n), 4);
            let mut dx = if add { old.clone() } else { poison(g.input_len(n)) };
            input_gradient(level, g, n, &dy, &w, &mut dx, add, &mut scratch);
            let finish = |i: usize, sum: f64| sum + if add { f64::from(old[i]) } else { 0.0 };
            truth.check(&dx, finish, &format!("{level:?} n {n} add {add} {g:?}"));
        }
    });
}

#[test]
fn weight_gradient_is_right() {
    each_case(weight_gradient_is_right_for);
    for level in levels_available() {
        for (shape, n) in PRODUCTS {
            weight_gradient_is_right_for(level, &geometry(shape), *n);
        }
    }
}

fn weight_gradient_is_right_for(level: Level, g: &ConvGeometry, n: usize) {
    let (x, dy) = (random(g.input_len(n), 1), random(g.output_len(n), 2));
    let mut truth = Truth::new(g.weight_len());
    for_each_product(g, n, |i, k, o| truth.add(k, f64::from(x[i]) * f64::from(dy[o])));
    let mut scratch = poison(weight_gradient_scratch(level, g, n));
    for add in [false, true] {
        let old = random(g.weight_len(), 4);
        let mut dw = if add { old.clone() } else { poison(g.weight_len()) };
        weight_gradient(level, g, n, &x, &dy, &mut dw, add, &mut scratch);
        let finish = |i: usize, sum: f64| sum + if add { f64::from(old[i]) } else { 0.0 };
        truth.check(&dw, finish, &format!("{level:?} n {n} add {add} {g:?}"));
    }
}

#[test]
fn bias_gradient_is_right() {
    for level in levels_available() {
        for (rows, channels) in [(0, 3), (1, 1), (7, 33), (1000, 17), (40_000, 10)] {
            let dy = random(rows * channels, 1);
            let mut truth = Truth::new(channels);
            dy.iter().enumerate().for_each(|(i, &v)| truth.add(i % channels, f64::from(v)));
            let mut scratch = poison(bias_gradient_scratch(channels, rows));
            let mut db = poison(channels);
            bias_gradient(level, &dy, &mut db, false, &mut scratch);
            truth.check(&db, |_, sum| sum, "written");
            let written = db.clone();
            bias_gradient(level, &dy, &mut db, true, &mut scratch);
            truth.check(&db, |i, sum| sum + f64::from(written[i]), "added");
        }
    }
}

#[test]
fn no_images_leave_outputs_alone_and_give_zero_weight_gradients() {
    for level in levels_available() {
        for shape in [&SHAPES[0], &SHAPES[15]] {
            let g = geometry(shape);
            let w = random(g.weight_len(), 1);
            forward(level, &g, 0, &[], &w, &mut [], Epilogue::NONE, &mut []);
            input_gradient(level, &g, 0, &[], &w, &mut [], false, &mut []);
            let mut dw = poison(g.weight_len());
            let mut scratch = poison(weight_gradient_scratch(level, &g, 0));
            weight_gradient(level, &g, 0, &[], &[], &mut dw, false, &mut scratch);
            assert!(dw.iter().all(|&v| v == 0.0));
        }
    }
}

/// Scratch for the largest batch serves every smaller one.
#[test]
fn scratch_is_enough_for_smaller_batches() {
    for level in levels_available() {
        for shape in SHAPES {
            let g = geometry(shape);
            for n in 0..40 {
                assert!(forward_in_training_scratch(level, &g, n) <= forward_in_training_scratch(level, &g, n + 1));
                assert!(forward_scratch(level, &g, n) <= forward_scratch(level, &g, n + 1));
                assert!(input_gradient_scratch(level, &g, n) <= input_gradient_scratch(level, &g, n + 1));
                assert!(weight_gradient_scratch(level, &g, n) <= weight_gradient_scratch(level, &g, n + 1));
            }
        }
    }
}

/// What an image gives does not depend on the batch that it comes in, although small batches are tiled differently.
#[test]
fn batches_do_not_change_an_image() {
    for level in levels_available() {
        for shape in SHAPES {
            let g = geometry(shape);
            let n = 17;
            let (x, w, dy) = (random(g.input_len(n), 1), random(g.weight_len(), 2), random(g.output_len(n), 3));
            let run = |n: usize| {
                let (mut y, mut dx) = (poison(g.output_len(n)), poison(g.input_len(n)));
                let (x, dy) = (&x[..g.input_len(n)], &dy[..g.output_len(n)]);
                forward(level, &g, n, x, &w, &mut y, Epilogue::NONE, &mut poison(forward_scratch(level, &g, n)));
                let mut scratch = poison(input_gradient_scratch(level, &g, n));
                input_gradient(level, &g, n, dy, &w, &mut dx, false, &mut scratch);
                (y, dx)
            };
            let ((all_y, all_dx), (y, dx)) = (run(n), run(1));
            assert!(all_y[..y.len()] == y && all_dx[..dx.len()] == dx, "{level:?} {g:?}");
        }
    }
}

/// All outputs of the three passes and the bias gradient.
fn all_passes(level: Level, g: &ConvGeometry, n: usize) -> Vec<u32> {
    let (x, w, dy) = (random(g.input_len(n), 1), random(g.weight_len(), 2), random(g.output_len(n), 3));
    let (mut y, mut dx) = (poison(g.output_len(n)), poison(g.input_len(n)));
    let (mut dw, mut db) = (poison(g.weight_len()), poison(g.out_c));
    forward(level, g, n, &x, &w, &mut y, Epilogue::NONE, &mut poison(forward_scratch(level, g, n)));
    input_gradient(level, g, n, &dy, &w, &mut dx, false, &mut poison(input_gradient_scratch(level, g, n)));
    weight_gradient(level, g, n, &x, &dy, &mut dw, false, &mut poison(weight_gradient_scratch(level, g, n)));
    let rows = n * g.out_h * g.out_w;
    bias_gradient(level, &dy, &mut db, false, &mut poison(bias_gradient_scratch(g.out_c, rows)));
    let mut trained = poison(g.output_len(n));
    let mut scratch = poison(forward_in_training_scratch(level, g, n));
    forward_in_training(level, g, n, &x, &w, &mut trained, Epilogue::NONE, &mut scratch);
    [y, dx, dw, db, trained].concat().into_iter().map(f32::to_bits).collect()
}

#[test]
fn threads_do_not_change_a_bit() {
    let shapes: &[(Shape, usize)] = &[
        ((16, 16, 16, 32, (3, 3), (2, 2), (1, 1), (1, 1), 1), 40),
        ((4, 4, 128, 144, (3, 3), (1, 1), (1, 1), (1, 1), 1), 9),
        ((40, 40, 24, 24, (3, 3), (1, 1), (1, 1), (1, 1), 1), 5),
        ((12, 12, 32, 32, (3, 3), (1, 1), (1, 1), (1, 1), 32), 70),
        ((16, 15, 64, 128, (3, 3), (1, 1), (1, 1), (1, 1), 32), 20),
        ((1, 1, 700, 40, (1, 1), (1, 1), (0, 0), (1, 1), 1), 300),
        ((9, 8, 48, 96, (3, 3), (1, 1), (1, 1), (1, 1), 1), 40),
        ((4, 4, 256, 264, (3, 3), (1, 1), (1, 1), (1, 1), 1), 30),
        ((8, 8, 96, 512, (1, 1), (1, 1), (0, 0), (1, 1), 1), 1),
    ];
    let pools = [1, 2, 5].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for level in levels_available() {
        for (shape, n) in shapes.iter().chain(PRODUCTS) {
            let g = geometry(shape);
            let [one, two, five] = pools.each_ref().map(|pool| pool.install(|| all_passes(level, &g, *n)));
            assert!(one == two && one == five, "{level:?} {g:?}");
            assert!(one.iter().all(|&bits| f32::from_bits(bits).is_finite()));
        }
    }
}
