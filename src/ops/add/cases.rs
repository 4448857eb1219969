use super::Add;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(Add, &[Shape::new(3, 5, 7); 2], 2),
        Case::new(Add, &[Shape::new(4, 2, 3); 4], 1),
        Case::new(Add, &[Shape::new(33, 31, 20); 2], 3),
    ]
}
