use super::DropPath;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(DropPath { p: 0.4 }, &[Shape::new(3, 5, 7)], 9),
        Case::new(DropPath { p: 0.5 }, &[Shape::flat(33)], 1),
        Case::new(DropPath { p: 0.0 }, &[Shape::new(2, 3, 1)], 2),
    ]
}
