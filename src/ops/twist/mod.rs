//! A convolution whose kernel turns and stretches with the place on the map: the TwistLayer of the Imagewoof experiment.
//!
//! Three 3×3 kernels: W, Wx and Wy. First Wx ← (Wx − rot180 Wx)/2, and Wy ← Wx turned by 90° counter-clockwise. On an
//! output map of h rows and w columns, at row i and column j, channel q with centre (cx, cy) and radius R:
//!
//! - X = 2j/w − cx, Y = 2i/h − cy (published), or both less 1 (centred: coordinates then run from −1 to 1)
//! - r = (X² + Y²)/R², m = min(1, max(0, (1.3 − r)/0.6)): 1 up to 0.7, 0 from 1.3
//! - y = a + m·t with t = X·b + Y·c, where a, b, c are the convolutions with W, Wx, Wy
//!
//! Backward, with m′ = −1/0.6 where 0.7 < r < 1.3, else 0:
//!
//! - da = dy, db = dy·m·X, dc = dy·m·Y
//! - dcx = −Σ dy·(m·b + t·m′·2X/R²), dcy = −Σ dy·(m·c + t·m′·2Y/R²), dR = −Σ dy·t·m′·2r/R
//! - from db, dc come G, H, the gradients of the projected Wx and of Wy; with H turned back by 90° clockwise:
//!   dWx = P(G + H′), P(G) = (G − rot180 G)/2 (tied: the derivative); dWx = G (published)
//! - dWy = 0 in both
//!
//! The published code writes the projection over Wx, and Wy, behind autograd's back: Wy's gradient is lost, and Wx has
//! the gradient of its projection under x alone. Here Wx stays as it is and each pass projects it. The function is the same,
//! and stays the same in training: the projection is linear and idempotent, an optimizer's step depends on
//! gradients only (and decay is linear), and the part of Wx that the projection removes reaches nothing. Wy is a
//! parameter without influence; it exists because files and parameter counts have it.
//!
//! The three convolutions are one, with 3·channels outputs: a for all channels, then b, then c.

#[cfg(feature = "conformance")]
pub(super) mod cases;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod reference;

use serde::{Deserialize, Serialize};

use super::{Init, Keeps, Kernel, Layout, Mismatch, Op, ParamSpec, Saved, Window, one_input};
use crate::backend::{Cpu, Real, Reference};
use crate::graph::Shape;

/// Which gradient the kernels of a twist get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TwistGradient {
    /// As published: what autograd sees when weights are overwritten behind its back.
    Published,
    /// The derivative, through every use of the parameter.
    Tied,
}

/// Where a twist's coordinates begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinates {
    /// From 0 to 2, as published.
    Published,
    /// From −1 to 1.
    Centred,
}

/// A 3×3 convolution, padded by 1, with kernels that depend on the place: `[h, w, cin]` → `[⌈h/stride⌉, ⌈w/stride⌉,
/// channels]`.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::Twist;
/// let mut g = Graph::new(Shape::new(8, 8, 16));
/// let y = g.node("conv", Twist::published(32, 2), &[g.images()])?;
/// assert_eq!(g.shape(y), Shape::new(4, 4, 32));
/// let values: usize = g.params().iter().map(|p| p.spec.layout.len()).sum();
/// assert_eq!(values, 27 * 16 * 32 + 3 * 32);
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twist {
    /// Output channels.
    pub channels: usize,
    /// Input pixels between two output pixels, in both directions.
    pub stride: usize,
    /// The kernels' gradient.
    pub gradient: TwistGradient,
    /// Where coordinates begin.
    pub coordinates: Coordinates,
}

/// Where one channel of a [`Twist`] twists. Lengths are shares of the map's width and height: pixel j of w lies at j/w.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disc {
    /// Across and down.
    pub centre: (f64, f64),
    /// R, where r is 1.
    pub radius: f64,
}

impl Disc {
    /// m at a place: 1 well inside, 0 outside.
    ///
    /// ```
    /// use handgrad::ops::{Coordinates, Twist};
    /// let twist = Twist { coordinates: Coordinates::Centred, ..Twist::published(8, 1) };
    /// let disc = twist.disc(0.5, (0.0, 0.0)); // in the middle
    /// assert_eq!([0.5, 0.75, 0.9].map(|x| disc.mask((x, 0.5))), [1.0, 0.5, 0.0]);
    /// ```
    pub fn mask(&self, place: (f64, f64)) -> f64 {
        let (x, y) = (place.0 - self.centre.0, place.1 - self.centre.1);
        ((OUTER - (x * x + y * y) / (self.radius * self.radius)) / (OUTER - INNER)).clamp(0.0, 1.0)
    }
}

/// The mask falls from 1 to 0 between these values of r.
const INNER: f64 = 0.7;
const OUTER: f64 = 1.3;

impl Twist {
    /// The layer as published.
    pub const fn published(channels: usize, stride: usize) -> Self {
        Twist { channels, stride, gradient: TwistGradient::Published, coordinates: Coordinates::Published }
    }

    /// The mask falls from 1 to 0 between these values of r.
    pub const RIM: [f64; 2] = [INNER, OUTER];
    /// Its parameters of a place, in the order of [`Op::params`].
    pub const RADII: usize = 3;
    /// Across.
    pub const CENTER_X: usize = 4;
    /// Down.
    pub const CENTER_Y: usize = 5;

    /// Where a channel with this radius and centre (cx, cy) twists, on a map of any size.
    pub fn disc(&self, radius: f64, center: (f64, f64)) -> Disc {
        let begin = if self.coordinates == Coordinates::Centred { 1.0 } else { 0.0 };
        Disc { centre: ((center.0 + begin) / 2.0, (center.1 + begin) / 2.0), radius: radius / 2.0 }
    }

    fn window(&self) -> Window {
        Window::square(3, self.stride, 1)
    }

    /// Coordinate of pixel `i` of `size`, before the centre is subtracted.
    #[inline(always)]
    fn coordinate<E: Real>(&self, i: usize, size: usize) -> E {
        let from_0 = 2.0 * i as f64 / size as f64;
        E::of(if self.coordinates == Coordinates::Centred { from_0 - 1.0 } else { from_0 })
    }
}

impl Op for Twist {
    fn kind(&self) -> &'static str {
        "twist"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, Mismatch> {
        let x = one_input(inputs)?;
        let fits = (1..1 << 24).contains(&self.channels);
        if !fits {
            return Err(Mismatch::new(format!("{} channels", self.channels), "1 to 2^24 − 1"));
        }
        let (h, w) = self.window().count(x, false)?;
        Ok(Shape::new(h, w, self.channels))
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let (cin, cout) = (inputs[0].c, self.channels);
        let kernel = |name| ParamSpec {
            name,
            layout: Layout::Conv { kernel: (3, 3), cin, cout },
            init: Init::torch_default(9 * cin),
        };
        let per_channel = |name, init| ParamSpec { name, layout: Layout::Plain(vec![cout]), init };
        vec![
            kernel("conv.weight"),
            kernel("conv_x.weight"),
            kernel("conv_y.weight"),
            per_channel("radii", Init::Between(0.3, 0.7)),
            per_channel("center_x", Init::Uniform(0.7)),
            per_channel("center_y", Init::Uniform(0.7)),
        ]
    }

    /// Of the three convolutions.
    fn flops(&self, inputs: &[Shape], output: Shape) -> u64 {
        54 * (inputs[0].c * output.len()) as u64
    }

    fn keeps(&self) -> Keeps {
        Keeps::INPUTS
    }

    fn saved(&self, _inputs: &[Shape], output: Shape) -> Vec<Saved> {
        // a, b, c
        vec![Saved { per_image: 3 * output.len(), fixed: 0 }]
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
