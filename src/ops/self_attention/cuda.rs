//! Floor: the products of the shape's way (see the module above) at the rate of multiply-adds.

use super::SelfAttention;
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{
    Backward, Forward, Grad, Gpu, Kernel, Launch, ParamGrad, Parts, Ptr, blocks, int, kernels, per_one,
};
use crate::graph::Shape;
use crate::ops::flatten::cuda::pass_on;

kernels! { "attention":
    /// `saved`: u, v and σ, after a power iteration that changes the states u and v where `iterate`.
    /// Grid 1; block 1024.
    fn attention_spectral(w: Ptr, u: Ptr, v: Ptr, saved: Ptr, c: i32, sym: i32, iterate: i32);
    /// V, the weight over σ.
    /// Grid ⌈c²/256⌉, at most 65535; block 256.
    fn attention_weight(w: Ptr, saved: Ptr, weight: Ptr, c: i32, sym: i32);
    /// out = base + alpha·a·b for a batch of matrices; alpha is one number in memory, or null for 1, base null for 0, or what out
    /// is added to, which may be out itself.
    /// Grid (⌈columns/64⌉, ⌈rows/64⌉, ⌈count/per⌉), at most 65535 each; block 256.
    fn attention_gemm(a: Ptr, b: Ptr, base: Ptr, out: Ptr, alpha: Ptr, sizes: Gemm);
    /// t = s + sᵀ for `count` matrices c × c; t is not s.
    /// Grid (⌈c/32⌉, ⌈c/32⌉, count), at most 65535 each; block (32, 8).
    fn attention_symmetrise(s: Ptr, t: Ptr, c: i32, count: i32);
    /// Each block's Σ a·b over `chunk` neighbouring values of `count` runs of n at the strides of a and b.
    /// Grid ⌈count·n/chunk⌉, as many as `partial` has numbers; block 256.
    fn attention_dot(a: Ptr, b: Ptr, partial: Ptr, n: i32, count: i32, stride_a: i32, stride_b: i32, chunk: i32);
    /// Adds the blocks up: into `sum` and into a gradient, written or added, each null where nobody reads it.
    /// Grid 1; block 256.
    fn attention_dot_finish(partial: Ptr, count: i32, sum: Ptr, gradient: Ptr, add: i32);
    /// Adds `count` runs of `n` numbers up.
    /// Grid ⌈n/256⌉, at most 65535; block 256.
    fn attention_sum(parts: Ptr, out: Ptr, n: i32, count: i32);
    /// dW, written or added, from dV and `inner`, which is ⟨dV, V⟩.
    /// Grid ⌈c²/256⌉, at most 65535; block 256.
    fn attention_weight_gradient(dv: Ptr, saved: Ptr, inner: Ptr, dw: Ptr, c: i32, sym: i32, add: i32);
}

/// The most parts of dV, each the sum of neighbouring images.
const PARTS: usize = 16;
/// The most blocks of an inner product.
const DOT_BLOCKS: usize = 512;
/// The fewest products that a block of one sums.
const DOT_CHUNK: usize = 1024;

/// What `attention_gemm` takes by value.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gemm {
    rows: i32,
    inner: i32,
    columns: i32,
    count: i32,
    per: i32,
    stride_a: i32,
    stride_b: i32,
    stride_out: i32,
    a_turned: i32,
    b_turned: i32,
}

/// A matrix of each image, or one that all share.
#[derive(Clone, Copy)]
struct Matrices {
    at: Ptr,
    rows: usize,
    columns: usize,
    /// From one to the next; 0 where all share one.
    stride: usize,
    /// Whether memory has the transpose, row-major.
    turned: bool,
}

impl Matrices {
    /// One behind the other.
    fn new(at: Ptr, rows: usize, columns: usize) -> Self {
        Matrices { at, rows, columns, stride: rows * columns, turned: false }
    }

    fn every(self, stride: usize) -> Self {
        Matrices { stride, ..self }
    }

    /// The transposes.
    fn t(self) -> Self {
        Matrices { rows: self.columns, columns: self.rows, turned: !self.turned, ..self }
    }
}

/// base + alpha·a·b.
#[derive(Clone, Copy)]
struct Product {
    a: Matrices,
    b: Matrices,
    base: Ptr,
    alpha: Ptr,
    per: usize,
}

impl Product {
    fn of(a: Matrices, b: Matrices) -> Self {
        Product { a, b, base: Ptr::NULL, alpha: Ptr::NULL, per: 1 }
    }

    /// That times a number in memory.
    fn times(self, alpha: Ptr) -> Self {
        Product { alpha, ..self }
    }

    /// Added to matrices that lie as the output's do.
    fn onto(self, base: Ptr) -> Self {
        Product { base, ..self }
    }

    /// Sums of `per` neighbouring products.
    fn sums(self, per: usize) -> Self {
        Product { per, ..self }
    }

    /// Of `count` images.
    fn write(self, gpu: &Gpu, count: usize, out: Matrices) -> Result<()> {
        let Product { a, b, base, alpha, per } = self;
        let across = |size: usize| blocks(size, 64, 65535);
        let grid = [across(out.columns), across(out.rows), blocks(count, per, 65535)];
        let sizes = Gemm {
            rows: int(a.rows),
            inner: int(a.columns),
            columns: int(b.columns),
            count: int(count),
            per: int(per),
            stride_a: int(a.stride),
            stride_b: int(b.stride),
            stride_out: int(out.stride),
            a_turned: i32::from(a.turned),
            b_turned: i32::from(b.turned),
        };
        let launch = Launch { grid, block: [256, 1, 1], shared: 0 };
        attention_gemm(gpu, launch, a.at, b.at, base, out.at, alpha, sizes)
    }
}

/// `n` images of `pixels × channels`.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    pixels: usize,
    channels: usize,
    by_channels: bool,
    /// Elements of the two products of an image.
    products: usize,
}

/// Where forward has what.
struct ForwardRoom {
    weight: Ptr,
    /// u, v and σ.
    spectral: Ptr,
    /// G and M, or H and P.
    products: Ptr,
}

/// Where backward has what.
struct BackwardRoom {
    weight: Ptr,
    /// K, then T; or Q.
    first: Ptr,
    /// S; or E.
    second: Ptr,
    /// Of dV.
    parts: Ptr,
    dweight: Ptr,
    /// The f64 sums of an inner product's blocks.
    partial: Ptr,
    /// ⟨dV, V⟩ in f64.
    inner: Ptr,
}

impl Sizes {
    fn new(input: Shape, n: usize) -> Self {
        Sizes {
            n,
            pixels: input.h * input.w,
            channels: input.c,
            by_channels: SelfAttention::by_channels(input),
            products: SelfAttention::products(input),
        }
    }

    fn forward_room(&self, parts: &mut Parts, saved: &[Ptr]) -> ForwardRoom {
        let weight = parts.take(self.channels.pow(2));
        let [spectral, products] = match *saved {
            [spectral, products] => [spectral, products],
            _ => [parts.take(2 * self.channels + 1), parts.take(self.n * self.products)],
        };
        ForwardRoom { weight, spectral, products }
    }

    fn backward_room(&self, parts: &mut Parts) -> BackwardRoom {
        let matrix = self.channels.pow(2);
        let [first, second] =
            if self.by_channels { [matrix; 2] } else { [self.pixels.pow(2), self.pixels * self.channels] };
        BackwardRoom {
            weight: parts.take(matrix),
            first: parts.take(self.n * first),
            second: parts.take(self.n * second),
            parts: parts.take(self.n.min(PARTS) * matrix),
            dweight: parts.take(matrix),
            partial: parts.take(2 * DOT_BLOCKS),
            inner: parts.take(2),
        }
    }

    /// A matrix `pixels × channels` of each image.
    fn images(&self, at: Ptr) -> Matrices {
        Matrices::new(at, self.pixels, self.channels)
    }

    /// A matrix between channels of each image.
    fn between_channels(&self, at: Ptr) -> Matrices {
        Matrices::new(at, self.channels, self.channels)
    }

    /// A matrix between pixels of each image.
    fn between_pixels(&self, at: Ptr) -> Matrices {
        Matrices::new(at, self.pixels, self.pixels)
    }

    /// V.
    fn shared(&self, weight: Ptr) -> Matrices {
        self.between_channels(weight).every(0)
    }

    /// G and M, or H and P.
    fn products(&self, at: Ptr) -> [Matrices; 2] {
        let (n, c) = (self.pixels, self.channels);
        let both = if self.by_channels {
            [self.between_channels(at), self.between_channels(at.at(c * c))]
        } else {
            [self.images(at), self.between_pixels(at.at(n * c))]
        };
        both.map(|matrices| matrices.every(self.products))
    }

    /// Neighbouring images whose parts of dV are summed up in one product.
    fn per(&self) -> usize {
        self.n.div_ceil(PARTS).max(1)
    }
}

impl SelfAttention {
    /// Writes V.
    fn normalise(&self, gpu: &Gpu, w: Ptr, spectral: Ptr, weight: Matrices) -> Result<()> {
        let c = weight.rows;
        attention_weight(gpu, per_one(c * c), w, spectral, weight.at, int(c), i32::from(self.sym))
    }
}

impl Kernel for SelfAttention {
    fn scratch(&self, inputs: &[Shape], _output: Shape, n: usize, _precision: Precision) -> usize {
        let sizes = Sizes::new(inputs[0], n);
        let (mut forward, mut backward) = (Parts::of(Ptr::NULL), Parts::of(Ptr::NULL));
        sizes.forward_room(&mut forward, &[]);
        sizes.backward_room(&mut backward);
        forward.len().max(backward.len())
    }

    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let (gpu, n, sizes) = (io.gpu, io.n, Sizes::new(io.inputs[0], io.n));
        let ForwardRoom { weight, spectral, products } = sizes.forward_room(&mut Parts::of(io.scratch), &io.saved);
        let [w, gamma, u, v] = [io.params[0], io.params[1], io.states[0], io.states[1]];
        let (c, sym, iterate) = (int(sizes.channels), i32::from(self.sym), i32::from(io.training));
        attention_spectral(gpu, Launch::line(1, 1024), w, u, v, spectral, c, sym, iterate)?;
        let weight = sizes.shared(weight);
        self.normalise(gpu, w, spectral, weight)?;

        let [x, y] = [io.x[0], io.y].map(|at| sizes.images(at));
        let attended = if sizes.by_channels {
            let [g, m] = sizes.products(products);
            Product::of(x.t(), x).write(gpu, n, g)?;
            Product::of(weight.t(), g).write(gpu, n, m)?;
            Product::of(x, m)
        } else {
            let [h, p] = sizes.products(products);
            Product::of(x, weight.t()).write(gpu, n, h)?;
            Product::of(h, x.t()).write(gpu, n, p)?;
            Product::of(p, x)
        };
        attended.times(gamma).onto(x.at).write(gpu, n, y)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let (gpu, n, sizes) = (io.gpu, io.n, Sizes::new(io.inputs[0], io.n));
        let room = sizes.backward_room(&mut Parts::of(io.scratch));
        let (weight, spectral) = (sizes.shared(room.weight), io.saved[0]);
        self.normalise(gpu, io.params[0], spectral, weight)?;
        let pass = BackwardPass { io, sizes, weight, room };
        if sizes.by_channels { pass.by_channels()? } else { pass.by_pixels()? }

        let (dw, room) = (io.dparams[0], &pass.room);
        if !dw.needed {
            return Ok(());
        }
        let (c, len, parts) = (sizes.channels, sizes.channels.pow(2), n.div_ceil(sizes.per()));
        attention_sum(gpu, per_one(len), room.parts, room.dweight, int(len), int(parts))?;
        pass.dot([sizes.shared(room.dweight), weight], 1, room.inner, ParamGrad { needed: false, ..dw })?;
        let (sym, add) = (i32::from(self.sym), i32::from(dw.add));
        attention_weight_gradient(gpu, per_one(len), room.dweight, spectral, room.inner, dw.at, int(c), sym, add)
    }
}

struct BackwardPass<'a> {
    io: &'a Backward<'a>,
    sizes: Sizes,
    /// V.
    weight: Matrices,
    room: BackwardRoom,
}

impl BackwardPass<'_> {
    fn x(&self) -> Matrices {
        self.sizes.images(self.io.x[0])
    }

    /// The upstream gradient.
    fn d(&self) -> Matrices {
        self.sizes.images(self.io.dy)
    }

    /// Σ a·b over the matrices of `count` images: an f64, null where nobody reads it, and a gradient.
    fn dot(&self, [a, b]: [Matrices; 2], count: usize, sum: Ptr, gradient: ParamGrad) -> Result<()> {
        let (gpu, partial, len) = (self.io.gpu, self.room.partial, a.rows * a.columns);
        let chunk = (len * count).div_ceil(DOT_BLOCKS).max(DOT_CHUNK);
        let parts = blocks(len * count, chunk, u32::MAX);
        let [n, count, stride_a, stride_b, chunk] = [len, count, a.stride, b.stride, chunk].map(int);
        attention_dot(gpu, Launch::line(parts, 256), a.at, b.at, partial, n, count, stride_a, stride_b, chunk)?;
        let (once, add) = (Launch::line(1, 256), i32::from(gradient.add));
        attention_dot_finish(gpu, once, partial, int(parts as usize), sum, gradient.wanted(), add)
    }

    /// dγ = ⟨a, b⟩.
    fn gamma_gradient(&self, products: [Matrices; 2]) -> Result<()> {
        let dgamma = self.io.dparams[1];
        if dgamma.needed { self.dot(products, self.sizes.n, Ptr::NULL, dgamma) } else { Ok(()) }
    }

    /// Parts of dV: sums over neighbouring images.
    fn weight_gradient(&self, of_image: Product) -> Result<()> {
        let parts = self.sizes.between_channels(self.room.parts);
        if !self.io.dparams[0].needed {
            return Ok(());
        }
        of_image.sums(self.sizes.per()).write(self.io.gpu, self.sizes.n, parts)
    }

    /// dA = D + Σ products, or that added.
    fn input_gradient(&self, products: &[Product]) -> Result<()> {
        let Some((dx, add)) = self.io.dx[0].target() else { return Ok(()) };
        let (gpu, n, images) = (self.io.gpu, self.sizes.n, self.sizes.images(dx));
        if add {
            pass_on(gpu, self.io.dy, self.io.dx[0], n * self.io.output.len())?;
        }
        let mut so_far = if add { dx } else { self.io.dy };
        for product in products {
            product.onto(so_far).write(gpu, n, images)?;
            so_far = dx;
        }
        Ok(())
    }

    fn by_channels(&self) -> Result<()> {
        let (gpu, n, gamma, weight, x, d) = (self.io.gpu, self.sizes.n, self.io.params[1], self.weight, self.x(), self.d());
        let [g, m] = self.sizes.products(self.io.saved[1]);
        let [k, s] = [self.room.first, self.room.second].map(|at| self.sizes.between_channels(at));
        Product::of(x.t(), d).write(gpu, n, k)?;
        self.gamma_gradient([k, m])?;
        self.weight_gradient(Product::of(g, k.t()).times(gamma))?;
        if self.io.dx[0] == Grad::Skip {
            return Ok(());
        }
        Product::of(weight, k).times(gamma).write(gpu, n, s)?;
        // T takes the place of K.
        let across = blocks(self.sizes.channels, 32, 65535);
        let launch = Launch { grid: [across, across, blocks(n, 1, 65535)], block: [32, 8, 1], shared: 0 };
        attention_symmetrise(gpu, launch, s.at, k.at, int(self.sizes.channels), int(n))?;
        self.input_gradient(&[Product::of(x, k), Product::of(d, m.t()).times(gamma)])
    }

    fn by_pixels(&self) -> Result<()> {
        let (gpu, n, gamma, weight, x, d) = (self.io.gpu, self.sizes.n, self.io.params[1], self.weight, self.x(), self.d());
        let [h, p] = self.sizes.products(self.io.saved[1]);
        let (q, e) = (self.sizes.between_pixels(self.room.first), self.sizes.images(self.room.second));
        Product::of(d, x.t()).write(gpu, n, q)?;
        self.gamma_gradient([q, p])?;
        Product::of(q, x).times(gamma).write(gpu, n, e)?;
        self.weight_gradient(Product::of(e.t(), x))?;
        self.input_gradient(&[
            Product::of(p.t(), d).times(gamma),
            Product::of(q.t(), h).times(gamma),
            Product::of(e, weight),
        ])
    }
}
