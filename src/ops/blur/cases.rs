use super::Blur;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |h, w, c, n| Case::new(Blur, &[Shape::new(h, w, c)], n);
    vec![case(6, 8, 3, 2), case(3, 3, 1, 1), case(7, 4, 33, 3), case(5, 9, 2, 1), case(4, 4, 17, 2)]
}
