//! Channels dealt out anew, so that the groups of two grouped convolutions meet (Zhang et al. 2017).
//!
//! Seen as groups × rest, channels are transposed: with m = c/groups, y[p, j·groups + i] = x[p, i·m + j], and dx the same
//! way back. A backward shuffle is a shuffle with m groups.

#[cfg(feature = "conformance")]
pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;

use serde::{Deserialize, Serialize};

use super::{Kernel, Mismatch, Op, one_input};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// PyTorch's `ChannelShuffle`: `[h, w, c]` → `[h, w, c]`.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::ChannelShuffle;
/// let mut g = Graph::new(Shape::new(8, 8, 6));
/// g.node("shuffle", ChannelShuffle { groups: 3 }, &[g.images()])?;
/// assert!(g.node("odd", ChannelShuffle { groups: 4 }, &[g.images()]).is_err());
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelShuffle {
    /// Groups of channels, a divisor of their number.
    pub groups: usize,
}

impl Op for ChannelShuffle {
    fn kind(&self) -> &'static str {
        "channel_shuffle"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        if self.groups == 0 || !x.c.is_multiple_of(self.groups) {
            return Err(Mismatch::new(format!("{} channels", x.c), format!("a multiple of {} groups", self.groups)));
        }
        Ok(Shape::new(x.h, x.w, x.c))
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
