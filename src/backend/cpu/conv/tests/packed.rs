//! Prepared weights and all that may follow the sums.

use super::*;
use crate::backend::cpu::gemm::LinearGeometry;

/// Runs `conv` on `n` images with NaN in all memory that it is to write.
fn run(conv: &PackedConvolution, n: usize, x: &[f32], w: &[f32], epilogue: Epilogue, y: &mut [f32]) {
    let mut packed = poison(conv.packed_len());
    conv.pack(w, &mut packed);
    conv.run(n, x, &packed, y, epilogue, &mut poison(conv.scratch(n)));
}

#[test]
fn packed_forward_is_right() {
    each_case(|level, g, n| {
        let conv = PackedConvolution::new(level, g);
        let (x, w, bias) = (random(g.input_len(n), 1), random(g.weight_len(), 2), random(g.out_c, 3));
        let (scale, shift, residual) = (random(g.out_c, 4), random(g.out_c, 5), random(g.output_len(n), 6));
        let mut truth = Truth::new(g.output_len(n));
        for_each_product(g, n, |i, k, o| truth.add(o, f64::from(x[i]) * f64::from(w[k])));
        let negated = |_: usize, values: &mut [f32]| values.iter_mut().for_each(|v| *v = -*v);
        for (scaled, adds, finished) in [(true, 1, false), (false, 2, true), (true, 0, true), (true, 2, false)] {
            // 1: a residual of its own, 2: what y holds.
            let tail = Tail {
                scale: scaled.then_some((&scale[..], &shift[..])),
                residual: (adds == 1).then_some(&residual[..]),
                activation: Activation::LeakyRelu(0.5),
                finisher: finished.then_some(Finisher(&negated)),
            };
            let activation = Activation::LeakyRelu(0.25);
            let epilogue = Epilogue { bias: Some(&bias), activation, accumulate: adds == 2, tail };
            let mut y = if adds == 2 { residual.clone() } else { poison(g.output_len(n)) };
            run(&conv, n, &x, &w, epilogue, &mut y);
            let leaky = |v: f64, slope: f64| if v < 0.0 { slope * v } else { v };
            let finish = |i: usize, sum: f64| {
                let c = i % g.out_c;
                let mut v = leaky(sum + f64::from(bias[c]), 0.25);
                if scaled {
                    v = v * f64::from(scale[c]) + f64::from(shift[c]);
                }
                if adds > 0 {
                    v += f64::from(residual[i]);
                }
                leaky(v, 0.5) * if finished { -1.0 } else { 1.0 }
            };
            truth.check(&y, finish, &format!("packed {level:?} {g:?} × {n}"));
        }
    });
}

/// Every image alone, and in one batch.
fn check_alone(conv: &PackedConvolution, n: usize, x: &[f32], w: &[f32], channels: usize, len: usize) {
    let (scale, shift) = (random(channels, 4), random(channels, 5));
    let tail = Tail { scale: Some((&scale, &shift)), ..Tail::NONE };
    let epilogue = Epilogue { activation: Activation::Relu, tail, ..Epilogue::NONE };
    let mut together = poison(n * len);
    run(conv, n, x, w, epilogue, &mut together);
    for (x, together) in x.chunks(x.len() / n).zip(together.chunks(len)) {
        let mut alone = poison(len);
        run(conv, 1, x, w, epilogue, &mut alone);
        assert_eq!(alone, together, "{conv:?}");
    }
}

#[test]
fn an_image_gives_the_same_bits_in_any_batch() {
    for level in levels_available() {
        for g in SHAPES.iter().map(geometry) {
            let (x, w) = (random(g.input_len(9), 1), random(g.weight_len(), 2));
            check_alone(&PackedConvolution::new(level, &g), 9, &x, &w, g.out_c, g.output_len(1));
        }
        for (inputs, outputs) in [(5, 3), (1030, 40), (70, 17), (33, 200), (129, 16)] {
            let (x, w) = (random(inputs * 9, 1), random(inputs * outputs, 2));
            let conv = PackedConvolution::linear(level, &LinearGeometry { inputs, outputs });
            check_alone(&conv, 9, &x, &w, outputs, outputs);
        }
    }
}
