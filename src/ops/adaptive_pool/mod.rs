//! Maximum or mean over a fixed number of cells that cover the map; 1×1 is global pooling.
//!
//! Output row o covers input rows ⌊o·h/oh⌋ to ⌈(o+1)·h/oh⌉ − 1, columns likewise (PyTorch's rule: cells may overlap).
//!
//! - mean: y[o] = (1/m)·Σ x over the m pixels of the cell; each of their dx gets dy[o]/m
//! - max: the first largest pixel in row-major order gets dy[o]; forward saves which

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Kernel, Mismatch, Op, Saved, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// How a pool reduces the pixels of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// The largest.
    Max,
    /// The average.
    Mean,
}

/// Maximum or mean over a fixed number of cells: `[h, w, c]` → `[rows, columns, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptivePool {
    /// How pixels are reduced.
    pub reduce: Reduce,
    /// Output rows and columns.
    pub output: (usize, usize),
}

impl AdaptivePool {
    /// Global pooling: one cell.
    pub const fn global(reduce: Reduce) -> Self {
        AdaptivePool { reduce, output: (1, 1) }
    }

    /// The input pixels of one cell, as (row, column) in row-major order.
    fn cell(&self, oh: usize, ow: usize, x: Shape) -> impl Iterator<Item = (usize, usize)> {
        let range = |o: usize, count: usize, size: usize| o * size / count..((o + 1) * size).div_ceil(count);
        let (rows, columns) = (range(oh, self.output.0, x.h), range(ow, self.output.1, x.w));
        rows.flat_map(move |i| columns.clone().map(move |j| (i, j)))
    }
}

impl Op for AdaptivePool {
    fn kind(&self) -> &'static str {
        match (self.reduce, self.output) {
            (Reduce::Max, (1, 1)) => "global_max_pool",
            (Reduce::Mean, (1, 1)) => "global_avg_pool",
            (Reduce::Max, _) => "adaptive_max_pool",
            (Reduce::Mean, _) => "adaptive_avg_pool",
        }
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        // A pixel's index is saved as a floating-point number: f32 counts to 2^24.
        let limit = 1 << 24;
        let area = |h: usize, w: usize| h.checked_mul(w).is_some_and(|a| a > 0 && a <= limit);
        if !area(x.h, x.w) || !area(self.output.0, self.output.1) {
            let found = format!("{x} pooled to {:?}", self.output);
            return Err(Mismatch::new(found, "1 to 2^24 pixels in and out"));
        }
        Ok(Shape::new(self.output.0, self.output.1, x.c))
    }

    fn saved(&self, _inputs: &[Shape], output: Shape) -> Vec<Saved> {
        match self.reduce {
            Reduce::Max => vec![Saved { per_image: output.len(), fixed: 0 }],
            Reduce::Mean => Vec::new(),
        }
    }

    fn reference(&self) -> &dyn Kernel<Reference> {
        self
    }

    fn cpu(&self) -> &dyn Kernel<Cpu> {
        self
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Option<&dyn crate::backend::cuda::Kernel> {
        Some(self)
    }
}
