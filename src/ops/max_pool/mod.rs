//! Maximum over a sliding window, per channel; cells in the padding do not count.
//!
//! y[o] = max over cells k of x[o·s + k·d − p]; dx of the first cell (in row-major order) that holds the maximum gets
//! dy[o]. A NaN wins over every number, as in PyTorch. Forward saves the winning cell.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Kernel, Mismatch, Op, Saved, Window, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// Maximum over a sliding window: `[h, w, c]` → `[oh, ow, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool {
    /// Kernel, stride, padding (at most half the kernel), dilation.
    pub window: Window,
    /// Whether a last, partial window counts.
    pub ceil: bool,
}

impl Op for MaxPool {
    fn kind(&self) -> &'static str {
        "max_pool"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        let (h, w) = pooled(&self.window, x, self.ceil)?;
        Ok(Shape::new(h, w, x.c))
    }

    fn saved(&self, _inputs: &[Shape], output: Shape) -> Vec<Saved> {
        vec![Saved { per_image: output.len(), fixed: 0 }]
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

/// The size of a pool's output, with the rule that keeps at least one cell of each window on the map.
pub(super) fn pooled(window: &Window, x: Shape, ceil: bool) -> Result<(usize, usize), Mismatch> {
    let (h, w) = window.count(x, ceil)?;
    if window.pad.0 * 2 > window.kernel.0 || window.pad.1 * 2 > window.kernel.1 {
        return Err(Mismatch::new(format!("padding {:?}", window.pad), "at most half the kernel"));
    }
    // Of a window's cells, only the first that does not lie in the padding before the map needs a look.
    let first = |o: usize, stride: usize, pad: usize, dilation: usize| pad.saturating_sub(o * stride).div_ceil(dilation);
    let Window { kernel, stride, pad, dilation } = *window;
    let row = |o| Some(first(o, stride.0, pad.0, dilation.0)).filter(|&k| k < kernel.0 && window.row(o, k, x).is_some());
    let column =
        |o| Some(first(o, stride.1, pad.1, dilation.1)).filter(|&k| k < kernel.1 && window.column(o, k, x).is_some());
    let empty = (0..h).any(|o| row(o).is_none()) || (0..w).any(|o| column(o).is_none());
    if empty {
        return Err(Mismatch::new(format!("{window:?} on {x}"), "windows with at least one cell on the map"));
    }
    Ok((h, w))
}
