//! What lies prepared: bias, scale, shift, as far as there are any, then the packed weights.

use super::{ConvNormAct, Product, Residual};
use crate::backend::cpu::conv::{self, Epilogue, Finisher, PackedConvolution, Tail};
use crate::backend::cpu::gemm::LinearGeometry;
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::activation::apply_in_place;
use crate::ops::{Activation, Backward, BatchNorm, Forward, Kernel};

/// Parts of what lies prepared begin at multiples of this many floats.
const ALIGN: usize = 16;

/// The register tile's name for an activation, or `None` where it has none.
pub(super) fn in_tile(act: Option<Activation>) -> Option<conv::Activation> {
    match act {
        None => Some(conv::Activation::None),
        Some(Activation::Relu) => Some(conv::Activation::Relu),
        Some(Activation::LeakyRelu { slope }) => Some(conv::Activation::LeakyRelu(slope as f32)),
        Some(_) => None,
    }
}

impl ConvNormAct {
    fn packed(&self, input: Shape, output: Shape) -> PackedConvolution {
        let level = simd_level();
        match self.product {
            Product::Conv2d(conv) => PackedConvolution::new(level, &conv.geometry(input, output)),
            Product::Linear(linear) => {
                let geometry = LinearGeometry { inputs: input.len(), outputs: linear.outputs };
                PackedConvolution::linear(level, &geometry)
            }
        }
    }

    /// Whether a vector is added to the sums.
    fn has_shift(&self) -> bool {
        self.has_bias() || self.norm.is_some()
    }

    /// The vectors per channel that lie prepared, as many as there are.
    fn vectors(&self) -> usize {
        usize::from(self.has_shift()) + 2 * usize::from(self.norm_behind.is_some())
    }
}

/// Scale and shift of one channel, from the parameters and states of a batch-norm.
fn affine(norm: BatchNorm, params: &[&[f32]], states: &[&[f32]], c: usize) -> (f64, f64) {
    norm.scale_and_shift([params[0][c], params[1][c], states[0][c], states[1][c]].map(f64::from))
}

impl Kernel<Cpu> for ConvNormAct {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize) -> usize {
        self.packed(self.input(inputs), output).scratch(n)
    }

    fn prepared(&self, inputs: &[Shape], output: Shape) -> usize {
        let vector = output.c.next_multiple_of(ALIGN);
        self.vectors() * vector + self.packed(self.input(inputs), output).packed_len()
    }

    fn prepare(&self, inputs: &[Shape], output: Shape, params: &[&[f32]], states: &[&[f32]], prepared: &mut [f32]) {
        let channels = output.c;
        let (product, norms) = params.split_at(1 + usize::from(self.has_bias()));
        let folded = |c: usize| self.norm.map_or((1.0, 0.0), |norm| affine(norm, norms, states, c));
        let (vectors, packed) = prepared.split_at_mut(self.vectors() * channels.next_multiple_of(ALIGN));
        let mut vectors = vectors.chunks_exact_mut(channels.next_multiple_of(ALIGN));
        let mut fill = |value: &dyn Fn(usize) -> f64| {
            let vector = vectors.next().expect("room for each vector");
            vector[channels..].fill(0.0);
            vector[..channels].iter_mut().enumerate().for_each(|(c, v)| *v = value(c) as f32);
        };
        if self.has_shift() {
            let bias = |c: usize| product.get(1).map_or(0.0, |bias| f64::from(bias[c]));
            fill(&|c| {
                let (scale, shift) = folded(c);
                bias(c) * scale + shift
            });
        }
        if let Some(norm) = self.norm_behind {
            let before = 2 * usize::from(self.norm.is_some());
            let behind = |c: usize| affine(norm, &norms[before..], &states[before..], c);
            fill(&|c| behind(c).0);
            fill(&|c| behind(c).1);
        }
        let scales: Vec<f32> = (0..channels).map(|c| folded(c).0 as f32).collect();
        let mut weights = product[0].to_vec();
        for row in weights.chunks_exact_mut(channels) {
            row.iter_mut().zip(&scales).for_each(|(w, scale)| *w *= scale);
        }
        self.packed(self.input(inputs), output).pack(&weights, packed);
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let level = simd_level();
        let (n, h, w, channels) = io.y.dim();
        let x = &io.x[usize::from(self.add == Some(Residual::Other))];
        let input = Shape::new(x.dim().1, x.dim().2, x.dim().3);
        let conv = self.packed(input, Shape::new(h, w, channels));
        let (vectors, packed) = io.prepared.split_at(self.vectors() * channels.next_multiple_of(ALIGN));
        let mut vectors = vectors.chunks_exact(channels.next_multiple_of(ALIGN)).map(|vector| &vector[..channels]);
        let bias = if self.has_shift() { vectors.next() } else { None };
        let scale = vectors.next().zip(vectors.next());
        let residual = self.add.filter(|_| !io.in_place).map(|_| parallel::contiguous(&io.x[0]));
        let (x, y) = (parallel::contiguous(x), parallel::contiguous_mut(&mut io.y));
        let mut run = |epilogue: Epilogue| conv.run(n, x, packed, y, epilogue, io.scratch);

        let epilogue = Epilogue { bias, accumulate: io.in_place, ..Epilogue::NONE };
        let Some(activation) = in_tile(self.act) else {
            // The tile has the sums and the bias, the finisher all the rest.
            let rest = |start: usize, values: &mut [f32]| {
                self.act.into_iter().for_each(|act| apply_in_place(level, act, values));
                if let Some((scale, shift)) = scale {
                    normalise(level, values, scale, shift, start % channels);
                }
                if let Some(residual) = residual {
                    add(level, values, &residual[start..]);
                }
                self.last.into_iter().for_each(|last| apply_in_place(level, last, values));
            };
            return run(Epilogue { tail: Tail { finisher: Some(Finisher(&rest)), ..Tail::NONE }, ..epilogue });
        };
        let tail = Tail { scale, residual, ..Tail::NONE };
        match (in_tile(self.last), self.last) {
            (Some(last), _) => run(Epilogue { activation, tail: Tail { activation: last, ..tail }, ..epilogue }),
            (None, Some(last)) => {
                let finish = |_: usize, values: &mut [f32]| apply_in_place(level, last, values);
                run(Epilogue { activation, tail: Tail { finisher: Some(Finisher(&finish)), ..tail }, ..epilogue });
            }
            (None, None) => unreachable!("no activation is one that the tile has"),
        }
    }

    fn backward(&self, _io: Backward<'_, f32>) {
        unreachable!("no plan runs an op that only infers backwards");
    }
}

// Loops over finished values, which are whole pixels, or channels of one pixel from `first` on.

crate::multiversion! {
    fn normalise(values: &mut [f32], scale: &[f32], shift: &[f32], first: usize) {
        for pixel in values.chunks_mut(scale.len()) {
            let channels = scale[first..].iter().zip(&shift[first..]);
            pixel.iter_mut().zip(channels).for_each(|(value, (scale, shift))| *value = *value * scale + shift);
        }
    }
}

crate::multiversion! {
    fn add(values: &mut [f32], residual: &[f32]) {
        values.iter_mut().zip(residual).for_each(|(value, residual)| *value += residual);
    }
}
