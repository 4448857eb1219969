use super::ChannelScale;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |h, w, c, n| Case::new(ChannelScale, &[Shape::new(h, w, c), Shape::flat(c)], n);
    vec![case(5, 3, 33, 3), case(4, 7, 3, 1), case(1, 1, 1, 2), case(31, 29, 24, 2)]
}
