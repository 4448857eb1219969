use super::Conv2d;
use crate::graph::Shape;
use crate::ops::Window;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let odd = Window { kernel: (3, 2), stride: (2, 1), pad: (1, 2), dilation: (1, 2) };
    let tall = Window { kernel: (2, 1), stride: (1, 1), pad: (1, 0), dilation: (1, 1) };
    let grouped = |channels, window, groups| Conv2d { channels, window, groups, bias: true, trim: (0, 0) };
    let trimmed = |conv, trim| Conv2d { trim, ..conv };
    vec![
        Case::new(Conv2d::square(5, 3, 1, 1), &[Shape::new(7, 5, 3)], 2),
        Case::new(Conv2d::square(20, 3, 2, 1), &[Shape::new(9, 12, 3)], 3),
        Case::new(Conv2d::square(33, 3, 2, 1).no_bias(), &[Shape::new(8, 7, 17)], 2),
        Case::new(Conv2d::square(16, 7, 1, 1), &[Shape::new(9, 8, 3)], 1),
        Case::new(Conv2d::square(10, 5, 1, 2), &[Shape::new(6, 11, 3)], 2),
        Case::new(Conv2d::square(40, 1, 1, 0), &[Shape::new(4, 3, 20)], 2),
        Case::new(Conv2d::square(7, 1, 3, 0), &[Shape::new(8, 5, 4)], 2),
        Case::new(Conv2d::square(1, 3, 1, 0), &[Shape::new(3, 3, 1)], 1),
        Case::new(grouped(6, odd, 1), &[Shape::new(8, 9, 5)], 2),
        Case::new(grouped(12, Window::square(3, 1, 1), 3), &[Shape::new(5, 4, 6)], 2),
        Case::new(grouped(33, Window::square(3, 2, 1), 33), &[Shape::new(7, 6, 33)], 2),
        Case::new(grouped(8, odd, 4), &[Shape::new(6, 7, 8)], 2),
        // Groups whose channels go in fours.
        Case::new(grouped(24, odd, 3), &[Shape::new(6, 7, 12)], 2),
        // Groups of two or four channels that share vectors.
        Case::new(grouped(32, Window::square(3, 1, 1), 8), &[Shape::new(5, 6, 32)], 2),
        Case::new(grouped(32, Window::square(3, 2, 1), 8), &[Shape::new(6, 7, 16)], 2),
        Case::new(Conv2d::square(56, 3, 1, 1), &[Shape::new(10, 9, 48)], 3),
        // Enough channels for minimal filtering; three units of tiles, two partial sums.
        Case::new(Conv2d::square(64, 3, 1, 1), &[Shape::new(10, 9, 48)], 9),
        Case::new(grouped(32, Window { pad: (0, 2), ..Window::square(3, 1, 0) }, 1), &[Shape::new(10, 7, 72)], 2),
        // Batches in which the fast kernels put several images into a tile, and add partial sums of weight gradients.
        Case::new(Conv2d::square(40, 3, 1, 1), &[Shape::new(8, 7, 24)], 9),
        Case::new(Conv2d::square(20, 3, 2, 1), &[Shape::new(7, 6, 9)], 11),
        // … some with pixels that no window reaches.
        Case::new(Conv2d::square(9, 2, 3, 1), &[Shape::new(8, 7, 10)], 9),
        Case::new(grouped(40, Window::square(3, 1, 1), 40), &[Shape::new(12, 11, 40)], 6),
        // Outputs that nobody reads, by each algorithm: taps, minimal filtering, several images in a tile, depthwise.
        Case::new(trimmed(Conv2d::square(5, 3, 1, 1), (1, 2)), &[Shape::new(7, 6, 3)], 2),
        Case::new(trimmed(Conv2d::square(20, 3, 2, 1), (1, 1)), &[Shape::new(9, 12, 3)], 3),
        Case::new(trimmed(Conv2d::square(64, 3, 1, 1), (1, 1)), &[Shape::new(11, 9, 48)], 9),
        Case::new(trimmed(Conv2d::square(64, 3, 1, 1), (1, 1)), &[Shape::new(7, 7, 32)], 9),
        Case::new(trimmed(Conv2d::square(40, 3, 1, 1), (1, 0)), &[Shape::new(8, 7, 24)], 9),
        Case::new(trimmed(grouped(40, Window::square(3, 1, 1), 40), (1, 1)), &[Shape::new(12, 11, 40)], 6),
        // Enough channels that a sum is cut into parts: between rows of taps, and within one.
        Case::new(Conv2d::square(5, 3, 1, 1), &[Shape::new(3, 2, 180)], 1),
        Case::new(Conv2d::square(6, 3, 1, 1), &[Shape::new(2, 3, 350)], 2),
        // A product of matrices: enough channels that both are copied for the weights' gradient, and pixels for two copies.
        Case::new(grouped(130, Window { stride: (1, 2), ..Window::square(1, 1, 0) }, 1), &[Shape::new(8, 9, 129)], 7),
        // Images that are cut into bands of rows, and enough pixels for partial sums of the bias's gradient.
        Case::new(grouped(3, tall, 1), &[Shape::new(67, 30, 33)], 1),
        Case::new(Conv2d::square(20, 1, 1, 0), &[Shape::new(58, 57, 2)], 2),
    ]
}
