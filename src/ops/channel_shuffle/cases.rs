use super::ChannelShuffle;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |groups, shape, n| Case::new(ChannelShuffle { groups }, &[shape], n);
    vec![
        case(3, Shape::new(5, 3, 33), 2),
        case(2, Shape::new(3, 4, 6), 3),
        case(1, Shape::new(2, 2, 3), 1),
        case(1, Shape::new(3, 1, 1), 1),
        case(4, Shape::new(19, 23, 12), 2),
    ]
}
