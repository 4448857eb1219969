//! What a caller gives the engine, checked.

use ndarray::{ArrayView2, ArrayView4};

use crate::backend::Backend;
use crate::plan::{Input, Machine, Pixels, Plan};
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

pub(super) fn check_images<E>(plan: &Plan, images: ArrayView4<'_, E>) -> Result<()> {
    let shape = plan.graph().shape(plan.graph().images());
    let (n, h, w, c) = images.dim();
    if (h, w, c) == (shape.h, shape.w, shape.c) && (1..=plan.max_batch()).contains(&n) && images.is_standard_layout() {
        return Ok(());
    }
    let expected = format!("1 to {} contiguous images of {shape}", plan.max_batch());
    Err(Error::new(ErrorKind::Shape, "images", format!("[{n}, {h}, {w}, {c}]")).expected(expected))
}

/// What a run reads, where images and targets fit the plan.
pub(super) fn check<'a, B: Backend>(
    plan: &Plan,
    images: ArrayView4<'a, B::Elem>,
    targets: ArrayView2<'a, B::Elem>,
    key: Key,
) -> Result<Input<'a, B::Elem>> {
    check_images(plan, images)?;
    check_targets(plan, images.dim().0, targets)?;
    Ok(Input { images, pixels: None, targets: Some(targets), key })
}

fn check_targets<E>(plan: &Plan, n: usize, targets: ArrayView2<'_, E>) -> Result<()> {
    let classes = plan.classes();
    if targets.dim() == (n, classes) && targets.is_standard_layout() {
        return Ok(());
    }
    let expected = format!("[{n}, {classes}], contiguous");
    Err(Error::new(ErrorKind::Shape, "targets", format!("{:?}", targets.dim())).expected(expected))
}

/// What a run on images as bytes reads, where the backend can.
pub(super) fn of_pixels<'a, B: Backend>(
    plan: &Plan,
    pixels: Pixels<'a>,
    targets: ArrayView2<'a, B::Elem>,
    zero: &'a B::Elem,
    key: Key,
) -> Result<Input<'a, B::Elem>> {
    if !<B::Machine as Machine<B>>::TAKES_PIXELS {
        let e = Error::new(ErrorKind::Unsupported, "images as bytes", format!("the backend {}", B::NAME));
        return Err(e.expected("cuda").hint("give it numbers, as Batch::images does"));
    }
    let n = targets.dim().0;
    check_targets(plan, n, targets)?;
    pixels.input(plan, n, Some(targets), zero, key)
}
