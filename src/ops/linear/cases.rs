use super::Linear;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(Linear::new(10), &[Shape::flat(40)], 5),
        Case::new(Linear::new(33), &[Shape::flat(17)], 1),
        Case::new(Linear::new(1), &[Shape::flat(3)], 4),
        Case::new(Linear { outputs: 40, bias: false }, &[Shape::flat(75)], 7),
        Case::new(Linear::new(5), &[Shape::flat(1)], 2),
        Case::new(Linear::new(24), &[Shape::flat(130)], 67),
    ]
}
