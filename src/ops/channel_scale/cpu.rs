//! Floor: forward reads x and writes y once; backward reads x and dy and writes dx once.

use rayon::prelude::*;

use super::ChannelScale;
use crate::backend::cpu::simd::Level;
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Kernel<Cpu> for ChannelScale {
    fn scratch(&self, inputs: &[Shape], _output: Shape, n: usize) -> usize {
        // per image: the sums of ds, and those of one row of pixels
        2 * n * inputs[0].c
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let (level, (_, h, w, c)) = (simd_level(), io.y.dim());
        let (in_place, s) = (io.in_place, parallel::contiguous(&io.x[1]));
        let x = if in_place { &[] } else { parallel::contiguous(&io.x[0]) };
        // One row of an image at a time, so that a single image keeps several threads busy.
        parallel::rows_mut(parallel::contiguous_mut(&mut io.y), w * c, w * c, |start, y| {
            let s = &s[start / (h * w * c) * c..][..c];
            if in_place {
                scale_in_place(level, y, s);
            } else {
                scale(level, y, &x[start..start + y.len()], s, false);
            }
        });
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (_, h, w, c) = io.x[0].dim();
        let (x, s) = (parallel::contiguous(&io.x[0]), parallel::contiguous(&io.x[1]));
        let (first, rest) = io.dx.split_first_mut().expect("two inputs");
        let dy = &*parallel::contiguous_mut(&mut io.dy);
        let image = Image { level: simd_level(), row: w * c, wanted: !matches!(rest[0], Grad::Skip) };
        let len = h * w * c;
        let sums = &mut io.scratch[..x.len() / len.max(1) * 2 * c];
        let add = matches!(first, Grad::Add(_));
        let part = |n: usize| (&x[n * len..][..len], &s[n * c..][..c]);
        match first {
            Grad::Skip => sums.par_chunks_mut(2 * c).enumerate().for_each(|(n, sums)| {
                let (x, s) = part(n);
                image.backward(x, s, &dy[n * len..][..len], &mut [], add, sums);
            }),
            Grad::InPlace(dx) => {
                let images = sums.par_chunks_mut(2 * c).zip(parallel::contiguous_mut(dx).par_chunks_mut(len));
                images.enumerate().for_each(|(n, (sums, dx))| {
                    let (x, s) = part(n);
                    image.backward(x, s, &[], dx, add, sums);
                });
            }
            Grad::Write(dx) | Grad::Add(dx) => {
                let images = sums.par_chunks_mut(2 * c).zip(parallel::contiguous_mut(dx).par_chunks_mut(len));
                images.enumerate().for_each(|(n, (sums, dx))| {
                    let (x, s) = part(n);
                    image.backward(x, s, &dy[n * len..][..len], dx, add, sums);
                });
            }
        }
        if let Some((ds, add)) = rest[0].target() {
            for (ds, sums) in parallel::contiguous_mut(ds).chunks_mut(c).zip(sums.chunks(2 * c)) {
                ds.iter_mut().zip(sums).for_each(|(ds, sum)| *ds = if add { *ds + sum } else { *sum });
            }
        }
    }
}

/// What the images of a backward pass have in common.
struct Image {
    level: Level,
    /// Values of a row of pixels.
    row: usize,
    /// Whether the factors' gradient is wanted.
    wanted: bool,
}

impl Image {
    /// One image, row by row while it lies in the L1 cache. No `dy`: dx holds it. No `dx`: only the sums are wanted.
    fn backward(&self, x: &[f32], s: &[f32], dy: &[f32], dx: &mut [f32], add: bool, sums: &mut [f32]) {
        let (total, of_row) = sums.split_at_mut(s.len());
        total.fill(0.0);
        for start in (0..x.len()).step_by(self.row) {
            let range = start..start + self.row;
            if self.wanted {
                // Sums of rows first: fewer roundings of a large sum.
                of_row.fill(0.0);
                let dy = if dy.is_empty() { &dx[range.clone()] } else { &dy[range.clone()] };
                products(self.level, &x[range.clone()], dy, of_row);
                total.iter_mut().zip(&*of_row).for_each(|(total, sum)| *total += sum);
            }
            if dy.is_empty() {
                scale_in_place(self.level, &mut dx[range], s);
            } else if !dx.is_empty() {
                scale(self.level, &mut dx[range.clone()], &dy[range], s, add);
            }
        }
    }
}

crate::multiversion! {
    /// y = x·s per pixel, or that added.
    fn scale(y: &mut [f32], x: &[f32], s: &[f32], add: bool) {
        for (y, x) in y.chunks_mut(s.len()).zip(x.chunks(s.len())) {
            for ((y, x), s) in y.iter_mut().zip(x).zip(s) {
                let old = if add { *y } else { 0.0 };
                *y = old + x * s;
            }
        }
    }
}

crate::multiversion! {
    /// y = y·s per pixel.
    fn scale_in_place(y: &mut [f32], s: &[f32]) {
        for y in y.chunks_mut(s.len()) {
            y.iter_mut().zip(s).for_each(|(y, s)| *y *= s);
        }
    }
}

crate::multiversion! {
    /// sums += Σ x·dy over pixels.
    fn products(x: &[f32], dy: &[f32], sums: &mut [f32]) {
        for (x, dy) in x.chunks(sums.len()).zip(dy.chunks(sums.len())) {
            sums.iter_mut().zip(x.iter().zip(dy)).for_each(|(sum, (x, dy))| *sum += x * dy);
        }
    }
}
