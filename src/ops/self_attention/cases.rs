use super::SelfAttention;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |sym, shape, n| Case::new(SelfAttention { sym }, &[shape], n).with_constant_state();
    vec![
        // More pixels than channels, as many, fewer.
        case(false, Shape::new(5, 3, 7), 3),
        case(true, Shape::new(4, 5, 6), 2),
        case(false, Shape::new(3, 3, 9), 1),
        case(false, Shape::new(2, 3, 33), 2),
        case(true, Shape::new(1, 3, 8), 3),
        case(false, Shape::new(2, 2, 1), 1),
        // More images than groups.
        case(false, Shape::new(3, 2, 3), 19),
        case(false, Shape::new(1, 2, 5), 35),
    ]
}
