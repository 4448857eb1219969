//! Floor: the products of the shape's way (see the module above) at the rate of multiply-adds.
//!
//! Images are dealt to groups, which run side by side; each has working memory and a partial weight gradient of its
//! own, added in order at the end. How many groups there are depends on the batch alone.

use std::ops::Range;

use rayon::prelude::*;

use super::SelfAttention;
use crate::backend::cpu::alone;
use crate::backend::cpu::gemm::Product;
use crate::backend::cpu::simd::Level;
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

/// The most groups of images.
const GROUPS: usize = 16;

fn product(rows: usize, inner: usize, columns: usize) -> Product {
    Product { rows, inner, columns }
}

/// The sizes of one pass.
#[derive(Clone, Copy)]
struct Sizes {
    level: Level,
    pixels: usize,
    channels: usize,
    by_channels: bool,
    /// Elements of the two products of an image.
    products: usize,
    /// Elements of an image.
    image: usize,
}

impl Sizes {
    fn new(input: Shape) -> Self {
        Sizes {
            level: simd_level(),
            pixels: input.h * input.w,
            channels: input.c,
            by_channels: SelfAttention::by_channels(input),
            products: SelfAttention::products(input),
            image: input.len(),
        }
    }

    /// Scratch of the products that either pass computes.
    fn gemm_scratch(&self) -> usize {
        let (n, c) = (self.pixels, self.channels);
        let all = [
            product(c, n, c),
            product(c, c, c),
            product(n, c, c),
            product(n, c, n),
            product(n, n, c),
        ];
        let used = if self.by_channels { &all[..3] } else { &all[..] };
        used.iter().map(|p| p.scratch(self.level)).max().unwrap_or(0)
    }

    /// Working memory of a group in the backward pass: the partial dV and dγ, then matrices of one image.
    fn backward_scratch(&self) -> usize {
        let (n, c) = (self.pixels, self.channels);
        let matrices = if self.by_channels { 3 * c * c } else { 2 * n * n + n * c };
        c * c + 1 + matrices + self.gemm_scratch()
    }

    /// Of a group in a forward pass: the products, where nothing is saved.
    fn forward_scratch(&self) -> usize {
        self.products + self.gemm_scratch()
    }

    /// Images per group of a batch of `n`.
    fn group(&self, n: usize) -> usize {
        n.div_ceil(GROUPS).max(1)
    }

    /// y = γ·(…) + a for one image; leaves G and M, or H and P, in `products`.
    fn forward(&self, a: &[f32], weight: &[f32], gamma: f32, y: &mut [f32], products: &mut [f32], gemm: &mut [f32]) {
        let (n, c, level) = (self.pixels, self.channels, self.level);
        if self.by_channels {
            let (gram, m) = products.split_at_mut(c * c);
            product(c, n, c).atb(level, a, a, gram, false, gemm);
            product(c, c, c).atb(level, weight, gram, m, false, gemm);
            product(n, c, c).ab(level, a, m, y, false, gemm);
        } else {
            let (convolved, pairs) = products.split_at_mut(n * c);
            product(n, c, c).abt(level, a, weight, convolved, false, gemm);
            product(n, c, n).abt(level, convolved, a, pairs, false, gemm);
            product(n, n, c).ab(level, pairs, a, y, false, gemm);
        }
        parallel::combine(level, y, a, |y, a| a + gamma * y);
    }

    /// One image's part of the gradients: adds to the group's dV and dγ, and to dx unless it is empty.
    fn backward(&self, image: Image<'_>, weight: &[f32], gamma: f32, dx: &mut [f32], work: &mut [f32]) {
        let (n, c, level) = (self.pixels, self.channels, self.level);
        let Image { a, dy, products } = image;
        let (dweight, rest) = work.split_at_mut(c * c);
        let (dgamma, rest) = rest.split_first_mut().expect("room for dγ");
        if self.by_channels {
            let (gram, m) = products.split_at(c * c);
            let (k, rest) = rest.split_at_mut(c * c);
            let (sums, rest) = rest.split_at_mut(c * c);
            let (scaled, gemm) = rest.split_at_mut(c * c);
            let channels = product(c, c, c);
            product(c, n, c).atb(level, a, dy, k, false, gemm);
            *dgamma += dot(level, k, m);
            parallel::apply(level, k, |k| gamma * k);
            channels.abt(level, gram, k, dweight, true, gemm);
            if dx.is_empty() {
                return;
            }
            channels.ab(level, weight, k, scaled, false, gemm);
            for (row, sums) in sums.chunks_mut(c).enumerate() {
                sums.iter_mut().enumerate().for_each(|(i, sum)| *sum = scaled[row * c + i] + scaled[i * c + row]);
            }
            parallel::combine(level, scaled, m, |_, m| gamma * m);
            parallel::combine(level, dx, dy, |dx, dy| dx + dy);
            product(n, c, c).ab(level, a, sums, dx, true, gemm);
            product(n, c, c).abt(level, dy, scaled, dx, true, gemm);
        } else {
            let (convolved, pairs) = products.split_at(n * c);
            let (q, rest) = rest.split_at_mut(n * n);
            let (scaled, rest) = rest.split_at_mut(n * n);
            let (dconvolved, gemm) = rest.split_at_mut(n * c);
            product(n, c, n).abt(level, dy, a, q, false, gemm);
            *dgamma += dot(level, q, pairs);
            parallel::apply(level, q, |q| gamma * q);
            product(n, n, c).ab(level, q, a, dconvolved, false, gemm);
            product(c, n, c).atb(level, dconvolved, a, dweight, true, gemm);
            if dx.is_empty() {
                return;
            }
            parallel::combine(level, scaled, pairs, |_, p| gamma * p);
            parallel::combine(level, dx, dy, |dx, dy| dx + dy);
            product(n, n, c).atb(level, scaled, dy, dx, true, gemm);
            product(n, n, c).atb(level, q, convolved, dx, true, gemm);
            product(n, c, c).ab(level, dconvolved, weight, dx, true, gemm);
        }
    }
}

/// What a backward pass reads of one image.
struct Image<'a> {
    a: &'a [f32],
    dy: &'a [f32],
    products: &'a [f32],
}

/// Runs `work` on this thread alone where there are several groups to share the threads.
fn in_group<R>(several: bool, work: impl FnOnce() -> R) -> R {
    if several { alone(work) } else { work() }
}

impl SelfAttention {
    /// W/σ.
    fn normalised(&self, w: &[f32], sigma: f32, weight: &mut [f32]) {
        let channels = weight.len().isqrt();
        for (o, row) in weight.chunks_mut(channels).enumerate() {
            row.iter_mut().enumerate().for_each(|(i, value)| *value = self.weight(w, channels, o, i) / sigma);
        }
    }
}

impl Kernel<Cpu> for SelfAttention {
    fn scratch(&self, inputs: &[Shape], _output: Shape, n: usize) -> usize {
        let sizes = Sizes::new(inputs[0]);
        let group = sizes.forward_scratch().max(sizes.backward_scratch());
        inputs[0].c.pow(2) + n.min(GROUPS) * group
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let (n, h, w, c) = io.x[0].dim();
        let sizes = Sizes::new(Shape::new(h, w, c));
        let (w, gamma) = (io.params[0], io.params[1][0]);
        let (u, v) = io.states.split_at_mut(1);
        if io.training {
            self.iterate(w, u[0], v[0]);
        }
        let sigma = self.sigma(w, u[0], v[0]) as f32;
        if !io.saved.is_empty() {
            let values = u[0].iter().chain(&*v[0]).chain(std::iter::once(&sigma));
            io.saved[0].iter_mut().zip(values).for_each(|(saved, value)| *saved = *value);
        }
        let (weight, work) = io.scratch.split_at_mut(c * c);
        self.normalised(w, sigma, weight);
        let weight = &*weight;

        let (per, size) = (sizes.group(n), sizes.forward_scratch());
        let several = n > per;
        let x = parallel::contiguous(&io.x[0]);
        let y = parallel::contiguous_mut(&mut io.y);
        let groups = y.par_chunks_mut(per * sizes.image).zip(x.par_chunks(per * sizes.image));
        let groups = groups.zip(work.par_chunks_mut(size));
        // Products of image i lie at i·step: apart where they are saved, else each over those before it.
        let group = |y: &mut [f32], x: &[f32], products: &mut [f32], step: usize, gemm: &mut [f32]| {
            in_group(several, || {
                for (i, (y, x)) in y.chunks_mut(sizes.image).zip(x.chunks(sizes.image)).enumerate() {
                    sizes.forward(x, weight, gamma, y, &mut products[i * step..][..sizes.products], gemm);
                }
            });
        };
        if !io.saved.is_empty() {
            let saved = io.saved[1].par_chunks_mut(per * sizes.products);
            groups.zip(saved).for_each(|(((y, x), work), saved)| group(y, x, saved, sizes.products, work));
        } else {
            groups.for_each(|((y, x), work)| {
                let (products, gemm) = work.split_at_mut(sizes.products);
                group(y, x, products, 0, gemm);
            });
        }
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (n, h, w, c) = io.x[0].dim();
        let sizes = Sizes::new(Shape::new(h, w, c));
        let (w, gamma) = (io.params[0], io.params[1][0]);
        let (u, v) = io.saved[0].split_at(c);
        let (v, sigma) = (&v[..c], v[c]);
        let (weight, work) = io.scratch.split_at_mut(c * c);
        self.normalised(w, sigma, weight);
        let weight = &*weight;

        let (per, size) = (sizes.group(n), sizes.backward_scratch());
        let several = n > per;
        let work = &mut work[..n.div_ceil(per).max(1) * size];
        work[..c * c + 1].fill(0.0);
        let x = parallel::contiguous(&io.x[0]);
        let dy = &*parallel::contiguous_mut(&mut io.dy);
        let products = io.saved[1];
        let group = |index: usize, dx: &mut [f32], work: &mut [f32]| {
            work[..c * c + 1].fill(0.0);
            let images: Range<usize> = index * per..((index + 1) * per).min(n);
            in_group(several, || {
                for (i, image) in images.enumerate() {
                    let range = |len: usize| image * len..(image + 1) * len;
                    let operands = Image {
                        a: &x[range(sizes.image)],
                        dy: &dy[range(sizes.image)],
                        products: &products[range(sizes.products)],
                    };
                    let dx = if dx.is_empty() { &mut [][..] } else { &mut dx[i * sizes.image..][..sizes.image] };
                    sizes.backward(operands, weight, gamma, dx, work);
                }
            });
        };
        match io.dx[0].sum() {
            None => work.par_chunks_mut(size).enumerate().for_each(|(index, work)| group(index, &mut [], work)),
            Some(dx) => {
                let dx = parallel::contiguous_mut(dx).par_chunks_mut(per * sizes.image);
                let groups = work.par_chunks_mut(size).zip(dx).enumerate();
                groups.for_each(|(index, (work, dx))| group(index, dx, work));
            }
        }

        let (first, others) = work.split_at_mut(size);
        for other in others.chunks(size) {
            first[..c * c + 1].iter_mut().zip(other).for_each(|(sum, value)| *sum += value);
        }
        let dweight = &first[..c * c];
        let inner: f64 =
            (0..c * c).map(|k| f64::from(dweight[k]) * f64::from(self.weight(w, c, k / c, k % c))).sum();
        let pull = inner / f64::from(sigma).powi(2);
        let dw = |o: usize, i: usize| {
            let (u, v) = (f64::from(u[o]), f64::from(v[i]));
            f64::from(dweight[o * c + i]) / f64::from(sigma) - pull * u * v
        };
        for o in 0..c {
            for i in 0..c {
                let value = if self.sym { 0.5 * (dw(o, i) + dw(i, o)) } else { dw(o, i) };
                io.dparams[0].put(o * c + i, value as f32);
            }
        }
        io.dparams[1].put(0, first[c * c]);
    }
}

/// Partial sums of a product that is summed up: enough for the widest vectors.
const LANES: usize = 32;

crate::multiversion! {
    /// Σ a·b.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0.0f32; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum += a * b;
            }
        }
        sums.iter().sum()
    }
}
