//! A grouped convolution that mixes its groups and bends with the place: ConvTwist, both published versions, and the
//! permuted groups without a twist.
//!
//! Groups: output group g reads input group s(g), s being a permutation ([`GroupOrder`]). With kernels W, Kx, Ky
//! `[3][3][cin/groups][cout]`, all under the same groups, the output of h rows and w columns is at row i, column j
//!
//! - T(z) = W∗z + X·(Kx∗z) + Y·(Ky∗z), X = 2j/w − 1, Y = 2i/h − 1
//!
//! The twists:
//!
//! - `Off`: T(z) = W∗z
//! - `Sobel` (the second version): Kx = Ax·Dx + Ay·Dy with Sobel's kernels Dx = [-1 0 1; -2 0 2; -1 0 1] and
//!   Dy = [1 2 1; 0 0 0; -1 -2 -1], Ax and Ay `[cout, cin/groups]`; Ky, Kx turned by 90° clockwise, is −Ax·Dy + Ay·Dx
//! - `Free` (the first version): Kx = P(Wx), Ky = P(Wy), P(K) = (K − rot180 K)/2, Wy starting as Wx turned clockwise; X
//!   and Y have a learned shift per channel: X + cx, Y + cy
//!
//! `Sobel` with `iters` k > 1, where input and output have one shape: z₀ = x, zᵢ₊₁ = zᵢ + T(zᵢ)/k, y = z_k − x. Else
//! y = T(x).
//!
//! Backward of T, linear in z and in the kernels, with upstream d: the maps W∗z, Kx∗z, Ky∗z get d, X·d, Y·d, and from
//! there on it is a convolution with gradients G, Gx, Gy of its kernels. Then
//!
//! - `Sobel`: dAx = Σ over taps Gx·Dx − Gy·Dy, dAy = Σ Gx·Dy + Gy·Dx
//! - `Free`: the shifts fold into the kernel, W + cx·Kx + cy·Ky, as X and Y are linear in them. So dKx = Gx + cx·G,
//!   dKy = Gy + cy·G, dcx = Σ G·Kx, dcy = Σ G·Ky over a channel's kernel; dWx = P(dKx), or dKx as published, where
//!   the projection is written over the weight behind autograd's back (see [`Twist`](super::Twist), which says why
//!   the weight can stay unprojected here)
//! - iterations: with g = dy and e_k = g, eᵢ = eᵢ₊₁ + Tᵀ(eᵢ₊₁)/k, the kernels get what eᵢ₊₁/k makes of zᵢ, and
//!   dx = e₀ − g
//!
//! The convolutions are one grouped convolution with 3·cout outputs. It reads its input where it lies: the block of input
//! group s(g) holds the three kernels of output group g, and the combination that follows puts groups in order.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod kernels;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Conv2d, Init, Keeps, Kernel, Layout, Mismatch, Op, ParamSpec, Saved, TwistGradient};
use crate::backend::{Cpu, Reference};
use crate::graph::Shape;

/// Which input group each output group reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupOrder {
    /// Its own.
    Straight,
    /// The one before it; the first reads the last.
    Rotated,
    /// In cycles of four: 0 reads 3, 1 reads 0, 2 reads 1, 3 reads 2, 4 reads 7…
    CyclesOfFour,
}

impl GroupOrder {
    /// The input group that `group` of `groups` reads.
    ///
    /// ```
    /// use handgrad::ops::GroupOrder;
    /// let order = |order: GroupOrder| [0, 1, 2, 3].map(|group| order.source(group, 4));
    /// assert_eq!(order(GroupOrder::Rotated), [3, 0, 1, 2]);
    /// ```
    #[inline(always)]
    pub fn source(self, group: usize, groups: usize) -> usize {
        let cycle = match self {
            GroupOrder::Straight => return group,
            GroupOrder::Rotated => groups,
            GroupOrder::CyclesOfFour => 4,
        };
        if group.is_multiple_of(cycle) { group + cycle - 1 } else { group - 1 }
    }
}

/// What a [`ConvTwist`] adds to its convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Twisting {
    /// Nothing.
    Off,
    /// The second version: kernels made of Sobel's two.
    Sobel {
        /// How often the twist is applied, where input and output have one shape.
        iters: usize,
    },
    /// The first version: antisymmetric kernels and learned centres.
    Free {
        /// The gradient of the two kernels.
        gradient: TwistGradient,
    },
}

/// A 3×3 convolution, padded by 1, with permuted groups and a twist: `[h, w, cin]` → `[⌈h/stride⌉, ⌈w/stride⌉,
/// channels]`.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::ConvTwist;
/// let mut g = Graph::new(Shape::new(8, 8, 64));
/// let y = g.node("conv", ConvTwist::sobel(64, 1, ConvTwist::published_groups(64, 64, 2)), &[g.images()])?;
/// assert_eq!(g.shape(y), Shape::new(8, 8, 64));
/// let values: usize = g.params().iter().map(|p| p.spec.layout.len()).sum();
/// assert_eq!(values, 11 * 64 * 64 / 2); // in two groups
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTwist {
    /// Output channels.
    pub channels: usize,
    /// Input pixels between two output pixels, in both directions.
    pub stride: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Which input group each output group reads.
    pub order: GroupOrder,
    /// What is added to the convolution.
    pub twist: Twisting,
}

impl ConvTwist {
    /// The second version: rotated groups, four iterations.
    pub const fn sobel(channels: usize, stride: usize, groups: usize) -> Self {
        let twist = Twisting::Sobel { iters: 4 };
        ConvTwist { channels, stride, groups, order: GroupOrder::Rotated, twist }
    }

    /// The first version: one group, gradients as published.
    pub const fn free(channels: usize, stride: usize) -> Self {
        let twist = Twisting::Free { gradient: TwistGradient::Published };
        ConvTwist { channels, stride, groups: 1, order: GroupOrder::Straight, twist }
    }

    /// How many groups the second version takes for these channels: inputs/32 for multiples of 64, else `otherwise`
    /// (published: 2); 1 where that does not divide both.
    pub const fn published_groups(inputs: usize, outputs: usize, otherwise: usize) -> usize {
        let groups = if inputs.is_multiple_of(64) { inputs / 32 } else { otherwise };
        if inputs.is_multiple_of(groups) && outputs.is_multiple_of(groups) && groups > 0 { groups } else { 1 }
    }

    /// The convolution with one kernel.
    fn conv(&self) -> Conv2d {
        Conv2d { groups: self.groups, ..Conv2d::square(self.channels, 3, self.stride, 1).no_bias() }
    }

    /// Kernels per output channel.
    fn kinds(&self) -> usize {
        if self.twist == Twisting::Off { 1 } else { 3 }
    }

    /// How often T is applied.
    fn iterations(&self, input: Shape) -> usize {
        match self.twist {
            Twisting::Sobel { iters } if input.c == self.channels && self.stride == 1 => iters,
            _ => 1,
        }
    }
}

impl Op for ConvTwist {
    fn kind(&self) -> &'static str {
        "conv_twist"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        if self.order == GroupOrder::CyclesOfFour && !self.groups.is_multiple_of(4) {
            return Err(Mismatch::new(format!("{} groups", self.groups), "a multiple of 4 for cycles of four"));
        }
        if let Twisting::Sobel { iters } = self.twist
            && !(1..=64).contains(&iters)
        {
            return Err(Mismatch::new(format!("{iters} iterations"), "1 to 64"));
        }
        if self.channels >= 1 << 24 {
            return Err(Mismatch::new(format!("{} channels", self.channels), "1 to 2^24 − 1"));
        }
        self.conv().output(inputs)
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let (cin, cout) = (inputs[0].c / self.groups, self.channels);
        let bound = 1.0 / (9.0 * cin as f64).sqrt();
        let kernel = |name, init| ParamSpec { name, layout: Layout::Conv { kernel: (3, 3), cin, cout }, init };
        let plain = |name, shape, init| ParamSpec { name, layout: Layout::Plain(shape), init };
        let mut params = vec![kernel("conv.weight", Init::Uniform(bound))];
        match self.twist {
            Twisting::Off => {}
            Twisting::Sobel { .. } => {
                // the standard deviation of conv.weight's first values
                let init = Init::Normal(bound / 3f64.sqrt());
                params.extend(["Ax", "Ay"].map(|name| plain(name, vec![cout, cin], init)));
            }
            Twisting::Free { .. } => {
                params.push(kernel("conv_x.weight", Init::Uniform(bound)));
                params.push(kernel("conv_y.weight", Init::Turned { of: "conv_x.weight", bound }));
                params.extend(["center_x", "center_y"].map(|name| plain(name, vec![cout], Init::Uniform(0.7))));
            }
        }
        params
    }

    /// Of the convolutions.
    fn flops(&self, inputs: &[Shape], output: Shape) -> u64 {
        (self.iterations(inputs[0]) * self.kinds()) as u64 * self.conv().flops(inputs, output)
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn saved(&self, inputs: &[Shape], _output: Shape) -> Vec<Saved> {
        match self.iterations(inputs[0]) {
            0 | 1 => Vec::new(),
            // z₁ and those after it
            k => vec![Saved { per_image: (k - 1) * inputs[0].len(), fixed: 0 }],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::params::Params;
    use crate::rng::Key;

    #[test]
    fn conv_y_starts_as_conv_x_turned_clockwise() {
        let mut graph = Graph::new(Shape::new(5, 5, 2));
        graph.node("twist", ConvTwist::free(3, 1), &[graph.images()]).unwrap();
        let params = Params::<f64>::new(&graph, Key::new(1)).unwrap();
        let kernel = |name: &str| params.to_torch(&format!("twist.{name}.weight")).unwrap();
        let (x, y) = (kernel("conv_x"), kernel("conv_y"));
        for (x, y) in x.chunks(9).zip(y.chunks(9)) {
            // What was on the left is on top, from below.
            assert_eq!(y, [6, 3, 0, 7, 4, 1, 8, 5, 2].map(|i| x[i]));
        }
    }

    #[test]
    fn orders_are_permutations() {
        for order in [GroupOrder::Straight, GroupOrder::Rotated, GroupOrder::CyclesOfFour] {
            let mut sources: Vec<usize> = (0..8).map(|group| order.source(group, 8)).collect();
            sources.sort_unstable();
            assert_eq!(sources, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
        assert_eq!([0, 1, 4].map(|group| GroupOrder::CyclesOfFour.source(group, 8)), [3, 0, 7]);
    }

    #[test]
    fn groups_are_those_published() {
        let groups = |inputs, outputs| ConvTwist::published_groups(inputs, outputs, 2);
        assert_eq!([groups(64, 128), groups(256, 256), groups(32, 64), groups(3, 32)], [2, 8, 2, 1]);
    }
}
