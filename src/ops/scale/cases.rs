use super::Scale;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(Scale { factor: 0.3 }, &[Shape::new(3, 5, 7)], 2),
        Case::new(Scale { factor: -2.0 }, &[Shape::new(33, 31, 20)], 3),
    ]
}
