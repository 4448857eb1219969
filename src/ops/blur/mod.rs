//! Blurs a map and halves its size: what follows the maximum in MaxBlurPool (after Zhang 2019).
//!
//! As published: blur with [1 4 6 4 1]²/256 after padding by reflection, then shrink bilinearly to ⌊h/2⌋ × ⌊w/2⌋, which
//! averages two neighbours in each direction. Together one kernel, f = [1 5 10 10 5 1]/32 in each direction, with
//! stride 2 (for odd sizes as well: the last row and column then count through the reflection only):
//!
//! - y[o, p] = Σₖ Σₗ f[k]·f[l]·x[ρ(2o + k − 2), ρ(2p + l − 2)]
//! - dx[ρ(2o + k − 2), ρ(2p + l − 2)] += f[k]·f[l]·dy[o, p]
//!
//! ρ reflects at the first and last pixel, which are not repeated: ρ(−1) = 1, ρ(h) = h − 2.
//!
//! MaxBlurPool(3) is `MaxPool` with a 3×3 window, stride 1, padding 1, and this behind it.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Kernel, Mismatch, Op, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// Blurs and halves: `[h, w, c]` → `[⌊h/2⌋, ⌊w/2⌋, c]`, h and w at least 3.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::{Blur, MaxPool, Window};
/// let mut g = Graph::new(Shape::new(8, 8, 3));
/// let x = g.node("pool.0", MaxPool { window: Window::square(3, 1, 1), ceil: false }, &[g.images()])?;
/// let y = g.node("pool.1", Blur, &[x])?; // MaxBlurPool
/// assert_eq!(g.shape(y), Shape::new(4, 4, 3));
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blur;

/// The kernel in one direction, times 32.
const TAPS: [f64; 6] = [1.0, 5.0, 10.0, 10.0, 5.0, 1.0];

/// The pixel that tap `k` of output `o` reads, of `size`.
#[inline(always)]
fn source(o: usize, k: usize, size: usize) -> usize {
    let from_2 = 2 * o + k;
    if from_2 < 2 {
        2 - from_2
    } else if from_2 - 2 < size {
        from_2 - 2
    } else {
        2 * size - from_2
    }
}

impl Op for Blur {
    fn kind(&self) -> &'static str {
        "blur"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        if x.h < 3 || x.w < 3 {
            return Err(Mismatch::new(format!("a {}×{} map", x.h, x.w), "at least 3×3, to reflect two pixels"));
        }
        Ok(Shape::new(x.h / 2, x.w / 2, x.c))
    }

    /// Of the two directions one after the other.
    fn flops(&self, inputs: &[Shape], output: Shape) -> u64 {
        12 * (output.h * inputs[0].w * output.c + output.len()) as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_reflected_at_both_ends() {
        let sources = |o, size| [0, 1, 2, 3, 4, 5].map(|k| source(o, k, size));
        assert_eq!(sources(0, 6), [2, 1, 0, 1, 2, 3]);
        assert_eq!(sources(2, 6), [2, 3, 4, 5, 4, 3]);
        assert_eq!(sources(2, 7), [2, 3, 4, 5, 6, 5]);
        assert_eq!(sources(0, 3), [2, 1, 0, 1, 2, 1]);
    }
}
