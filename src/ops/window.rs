//! Sliding windows: what convolutions and pools share.

use serde::{Deserialize, Serialize};

use super::Mismatch;
use crate::graph::Shape;

/// A window that slides over a map; every pair is (vertical, horizontal), in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Its size.
    pub kernel: (usize, usize),
    /// The distance between neighbouring windows.
    pub stride: (usize, usize),
    /// Rows and columns added on each side.
    pub pad: (usize, usize),
    /// The distance between the cells of one window.
    pub dilation: (usize, usize),
}

impl Window {
    /// A square window.
    pub const fn square(kernel: usize, stride: usize, pad: usize) -> Self {
        Window { kernel: (kernel, kernel), stride: (stride, stride), pad: (pad, pad), dilation: (1, 1) }
    }

    /// Rows and columns that the window spans.
    fn span(&self) -> Option<(usize, usize)> {
        let span = |kernel: usize, dilation: usize| kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1);
        Some((span(self.kernel.0, self.dilation.0)?, span(self.kernel.1, self.dilation.1)?))
    }

    /// The number of windows on a map, vertically and horizontally: ⌊(in + 2·pad − span)/stride⌋ + 1, or with ⌈⌉ in
    /// ceil mode, where a last window that would start in the padding behind the map is left out (PyTorch's rule).
    ///
    /// # Errors
    /// A [`Mismatch`] where a setting is zero or the window is larger than the padded map.
    pub fn count(&self, input: Shape, ceil: bool) -> Result<(usize, usize), Mismatch> {
        let zero = |(a, b): (usize, usize)| a == 0 || b == 0;
        if zero(self.kernel) || zero(self.stride) || zero(self.dilation) {
            return Err(Mismatch::new(format!("{self:?}"), "kernel, stride and dilation of at least 1"));
        }
        let limit = 1 << 20;
        let pairs = [self.kernel, self.stride, self.pad, self.dilation];
        if pairs.iter().any(|&(a, b)| a > limit || b > limit) || input.h > limit || input.w > limit {
            return Err(Mismatch::new(format!("{self:?} on {input}"), "settings and sides of at most 2^20"));
        }
        let span = self.span().expect("settings are bounded");
        let along = |size: usize, span: usize, stride: usize, pad: usize| {
            let Some(room) = (size + 2 * pad).checked_sub(span) else {
                // PyTorch's rounding up also lets one window hang over a smaller map, by less than a stride.
                return (ceil && span - (size + 2 * pad) < stride).then_some(1);
            };
            let count = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
            Some(if ceil && (count - 1) * stride >= size + pad { count - 1 } else { count })
        };
        let rows = along(input.h, span.0, self.stride.0, self.pad.0);
        let columns = along(input.w, span.1, self.stride.1, self.pad.1);
        rows.zip(columns).ok_or_else(|| {
            let found = format!("a {}×{} map", input.h, input.w);
            let needs = (span.0.saturating_sub(2 * self.pad.0), span.1.saturating_sub(2 * self.pad.1));
            Mismatch::new(found, format!("at least {}×{} for this window", needs.0.max(1), needs.1.max(1)))
        })
    }

    /// The input row that cell `k` of window `o` lies on, or `None` in the padding.
    pub fn row(&self, o: usize, k: usize, input: Shape) -> Option<usize> {
        (o * self.stride.0 + k * self.dilation.0).checked_sub(self.pad.0).filter(|&i| i < input.h)
    }

    /// The input column that cell `k` of window `o` lies on, or `None` in the padding.
    pub fn column(&self, o: usize, k: usize, input: Shape) -> Option<usize> {
        (o * self.stride.1 + k * self.dilation.1).checked_sub(self.pad.1).filter(|&j| j < input.w)
    }

    /// The cells of window (`oh`, `ow`) that lie on the map: (cell index in row-major order, row, column).
    pub fn cells(&self, oh: usize, ow: usize, input: Shape) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let window = *self;
        (0..self.kernel.0).filter_map(move |kh| Some((kh, window.row(oh, kh, input)?))).flat_map(move |(kh, i)| {
            (0..window.kernel.1)
                .filter_map(move |kw| Some((kh * window.kernel.1 + kw, i, window.column(ow, kw, input)?)))
        })
    }
}
