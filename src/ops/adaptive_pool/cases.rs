use super::{AdaptivePool, Reduce};
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |reduce, output, shape, n| Case::new(AdaptivePool { reduce, output }, &[shape], n);
    vec![
        case(Reduce::Max, (1, 1), Shape::new(4, 3, 33), 2),
        case(Reduce::Mean, (1, 1), Shape::new(3, 5, 17), 3),
        case(Reduce::Max, (2, 3), Shape::new(5, 7, 3), 2),
        case(Reduce::Mean, (3, 2), Shape::new(7, 5, 1), 1),
        case(Reduce::Mean, (4, 4), Shape::new(2, 3, 2), 2),
    ]
}
