use super::{Coordinates, Twist, TwistGradient};
use crate::graph::Shape;
use crate::ops::cases::Case;

/// What the published gradient is not the derivative of; see the mathematics in `mod.rs`.
const NOT_DERIVATIVES: &[&str] = &["conv_x.weight"];

pub fn cases() -> Vec<Case> {
    let tied = |channels, stride, coordinates| {
        Twist { channels, stride, gradient: TwistGradient::Tied, coordinates }
    };
    vec![
        Case::new(tied(5, 1, Coordinates::Published), &[Shape::new(6, 5, 3)], 2),
        Case::new(tied(3, 2, Coordinates::Centred), &[Shape::new(7, 10, 2)], 3),
        Case::new(tied(1, 1, Coordinates::Centred), &[Shape::new(3, 4, 1)], 1),
        Case::new(tied(33, 1, Coordinates::Centred), &[Shape::new(5, 4, 7)], 1),
        Case::new(Twist::published(4, 2), &[Shape::new(5, 8, 3)], 2).without_derivatives(NOT_DERIVATIVES),
        Case::new(Twist::published(40, 1), &[Shape::new(12, 13, 9)], 3).without_derivatives(NOT_DERIVATIVES),
    ]
}
