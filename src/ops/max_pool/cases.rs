use super::MaxPool;
use crate::graph::Shape;
use crate::ops::Window;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let case = |window, ceil, shape, n| Case::new(MaxPool { window, ceil }, &[shape], n);
    let odd = Window { kernel: (3, 2), stride: (2, 1), pad: (1, 0), dilation: (1, 2) };
    vec![
        case(Window::square(2, 2, 0), false, Shape::new(5, 4, 3), 2),
        case(Window::square(3, 2, 1), false, Shape::new(9, 6, 17), 2),
        case(Window::square(3, 2, 0), true, Shape::new(8, 5, 1), 1),
        case(odd, true, Shape::new(7, 9, 5), 3),
        case(Window::square(2, 2, 0), true, Shape::new(3, 3, 33), 1),
        // A window that hangs over a smaller map.
        case(Window::square(2, 2, 0), true, Shape::new(1, 5, 3), 2),
        case(Window::square(2, 2, 0), true, Shape::new(1, 1, 33), 3),
    ]
}
