use super::Concat;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |h, w, channels: &[usize], n| {
        let inputs: Vec<Shape> = channels.iter().map(|&c| Shape::new(h, w, c)).collect();
        Case::new(Concat, &inputs, n)
    };
    vec![
        case(5, 3, &[33, 3], 2),
        case(2, 7, &[1, 4, 2], 3),
        case(1, 1, &[3, 1, 1, 2, 5, 1, 1, 7], 1),
        case(19, 17, &[8, 24], 3),
    ]
}
