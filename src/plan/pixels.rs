//! Images as bytes, of which a device makes numbers.

use ndarray::{ArrayView2, ArrayView4, ShapeBuilder};

use super::{Input, Plan};
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// Images as bytes, and what numbers they become: a quarter of what there is to copy.
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a> {
    /// `[n, height, width, 3]`.
    pub bytes: &'a [u8],
    /// Of each image: the row and the column of its first pixel in the source, beyond whose edges lies the mirror image; 1 where
    /// it is then mirrored left and right, else 0; 1 where the mirror image at the edges does not repeat them, else 0.
    pub placements: &'a [[i32; 4]],
    /// The number of each byte in each channel: 3 × 256.
    pub table: &'a [f32],
}

impl<'a> Pixels<'a> {
    /// What a run on `n` of these images reads; `zero` stands for the numbers that are not there yet.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where they do not fit the plan, or an image is moved by more than its size.
    pub fn input<E>(
        self,
        plan: &Plan,
        n: usize,
        targets: Option<ArrayView2<'a, E>>,
        zero: &'a E,
        key: Key,
    ) -> Result<Input<'a, E>> {
        self.check(plan, n)?;
        let shape = plan.graph().shape(plan.graph().images());
        let all_of_it = (n, shape.h, shape.w, shape.c).strides((0, 0, 0, 0));
        let images = ArrayView4::from_shape(all_of_it, std::slice::from_ref(zero)).expect("one number has any shape");
        Ok(Input { images, pixels: Some(self), targets, key })
    }

    /// A device follows placements without looking where they lead.
    fn check(self, plan: &Plan, n: usize) -> Result<()> {
        let Pixels { bytes, placements, table } = self;
        let (shape, most) = (plan.graph().shape(plan.graph().images()), plan.max_batch());
        let lengths = (bytes.len(), placements.len(), table.len());
        if shape.c != 3 || !(1..=most).contains(&n) || lengths != (n * shape.len(), n, 3 * 256) {
            let found = format!("{} bytes, {} placements, {} numbers for {n} images", lengths.0, lengths.1, lengths.2);
            let expected =
                format!("1 to {most} images of {shape} and three channels, a placement each, 3 × 256 numbers");
            return Err(Error::new(ErrorKind::Shape, "images", found).expected(expected));
        }
        let inside = |by: i32, len: usize, once: i32| by.unsigned_abs() as usize + usize::from(once != 0) <= len;
        let outside = |&&[top, left, _, once]: &&[i32; 4]| !inside(top, shape.h, once) || !inside(left, shape.w, once);
        placements.iter().find(outside).map_or(Ok(()), |at| {
            let e = Error::new(ErrorKind::Shape, "images", format!("an image of {shape} placed at {at:?}"));
            Err(e.expected("one moved by its size at most, and by less where edges are not repeated"))
        })
    }
}
