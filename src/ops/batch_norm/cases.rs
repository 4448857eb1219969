use super::BatchNorm;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(BatchNorm::running(), &[Shape::new(5, 3, 7)], 3),
        Case::new(BatchNorm::running(), &[Shape::new(2, 2, 33)], 1),
        Case::new(BatchNorm::running(), &[Shape::flat(5)], 4),
        Case::new(BatchNorm::last_batch(0.0), &[Shape::new(4, 5, 10)], 3),
        Case::new(BatchNorm::last_batch(1e-5), &[Shape::new(3, 3, 16)], 2),
        Case::new(BatchNorm::last_batch(0.0), &[Shape::new(31, 29, 20)], 2),
        Case::new(BatchNorm::running(), &[Shape::new(3, 2, 130)], 3),
    ]
}
