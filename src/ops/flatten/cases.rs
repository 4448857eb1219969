use super::Flatten;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    vec![Case::new(Flatten, &[Shape::new(3, 5, 7)], 2), Case::new(Flatten, &[Shape::flat(1)], 1)]
}
