//! Shapes of one image's activations.

use std::fmt;

/// The shape of one image's activation: height, width, channels (NHWC without the N).
///
/// A flat vector of `c` features is `1×1×c`. [`Flatten`](crate::ops::Flatten) records which map it came from, so that
/// a Linear behind it can order its columns as PyTorch's files do (`[C, H, W]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// `(h, w, c)` of the map that was flattened into this vector.
    pub flattened: Option<(usize, usize, usize)>,
}

impl Shape {
    /// A feature map of `h` rows, `w` columns and `c` channels.
    pub const fn new(h: usize, w: usize, c: usize) -> Self {
        Shape { h, w, c, flattened: None }
    }

    /// A vector of `c` features.
    pub const fn flat(c: usize) -> Self {
        Shape::new(1, 1, c)
    }

    /// Elements per image.
    pub const fn len(self) -> usize {
        self.h * self.w * self.c
    }

    /// Whether it has no element.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it is a vector (1×1).
    pub const fn is_flat(self) -> bool {
        self.h == 1 && self.w == 1
    }

    /// Height, width and channels agree (where a flat vector came from does not matter).
    pub fn same_dims(self, other: Shape) -> bool {
        (self.h, self.w, self.c) == (other.h, other.w, other.c)
    }

    /// Elements per image, or `None` where the product does not fit the largest tensor that a plan takes (2³¹ − 1).
    pub fn checked_len(self) -> Option<usize> {
        self.h.checked_mul(self.w)?.checked_mul(self.c).filter(|&n| n <= i32::MAX as usize)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_flat() { write!(f, "[{}]", self.c) } else { write!(f, "[{}, {}, {}]", self.h, self.w, self.c) }
    }
}
