use super::Dropout;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(Dropout { p: 0.2 }, &[Shape::new(3, 5, 7)], 3),
        Case::new(Dropout { p: 0.5 }, &[Shape::flat(33)], 1),
        Case::new(Dropout { p: 0.0 }, &[Shape::flat(4)], 2),
    ]
}
