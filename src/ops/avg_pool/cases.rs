use super::AvgPool;
use crate::graph::Shape;
use crate::ops::Window;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |window, ceil, shape, n| Case::new(AvgPool { window, ceil }, &[shape], n);
    vec![
        case(Window::square(2, 2, 0), true, Shape::new(5, 7, 3), 2),
        case(Window::square(2, 2, 0), false, Shape::new(5, 4, 33), 1),
        case(Window::square(3, 2, 1), true, Shape::new(8, 5, 17), 2),
        case(Window { kernel: (1, 3), stride: (1, 2), pad: (0, 1), dilation: (1, 1) }, false, Shape::new(3, 9, 1), 3),
        // A window that hangs over a smaller map.
        case(Window::square(2, 2, 0), true, Shape::new(1, 5, 3), 2),
        case(Window::square(2, 2, 0), true, Shape::new(1, 1, 33), 3),
    ]
}
