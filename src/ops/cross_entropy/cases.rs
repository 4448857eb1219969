use super::SoftmaxCrossEntropy;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(SoftmaxCrossEntropy, &[Shape::flat(10); 2], 5),
        Case::new(SoftmaxCrossEntropy, &[Shape::flat(33); 2], 1),
        Case::new(SoftmaxCrossEntropy, &[Shape::flat(1); 2], 2),
    ]
}
