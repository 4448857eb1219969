use super::{ConvTwist, GroupOrder, Twisting};
use crate::graph::Shape;
use crate::ops::TwistGradient;
use crate::ops::cases::Case;

/// What the published gradients of the first version are not the derivatives of; see the mathematics in `mod.rs`.
const NOT_DERIVATIVES: &[&str] = &["conv_x.weight", "conv_y.weight"];

pub fn cases() -> Vec<Case> {
    let op = |channels, stride, groups, order, twist| ConvTwist { channels, stride, groups, order, twist };
    let sobel = |iters| Twisting::Sobel { iters };
    let tied = Twisting::Free { gradient: TwistGradient::Tied };
    vec![
        // z₂ begins at an odd place.
        Case::new(op(3, 1, 1, GroupOrder::Straight, sobel(3)), &[Shape::new(3, 3, 3)], 1),
        Case::new(op(6, 1, 3, GroupOrder::Rotated, sobel(3)), &[Shape::new(5, 4, 6)], 2),
        Case::new(op(6, 1, 1, GroupOrder::Straight, sobel(1)), &[Shape::new(4, 7, 6)], 1),
        Case::new(op(4, 2, 2, GroupOrder::Rotated, sobel(4)), &[Shape::new(7, 6, 6)], 3),
        Case::new(op(1, 1, 1, GroupOrder::Rotated, sobel(2)), &[Shape::new(3, 3, 1)], 1),
        Case::new(ConvTwist::sobel(33, 1, 3), &[Shape::new(4, 3, 33)], 1),
        Case::new(op(8, 1, 8, GroupOrder::CyclesOfFour, Twisting::Off), &[Shape::new(4, 5, 16)], 2),
        Case::new(op(33, 2, 3, GroupOrder::Rotated, Twisting::Off), &[Shape::new(5, 5, 3)], 2),
        Case::new(op(5, 1, 1, GroupOrder::Straight, tied), &[Shape::new(4, 6, 3)], 2),
        Case::new(op(6, 2, 2, GroupOrder::Rotated, tied), &[Shape::new(5, 7, 4)], 1),
        Case::new(ConvTwist::free(4, 1), &[Shape::new(5, 4, 3)], 2).without_derivatives(NOT_DERIVATIVES),
        Case::new(op(24, 1, 4, GroupOrder::Rotated, sobel(2)), &[Shape::new(13, 12, 24)], 3),
    ]
}
