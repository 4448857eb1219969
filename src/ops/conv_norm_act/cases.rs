use super::{ConvNormAct, Product, Residual};
use crate::graph::Shape;
use crate::ops::cases::Case;
use crate::ops::{Activation, BatchNorm, Conv2d, Linear, Window};

pub fn cases() -> Vec<Case> {
    let conv = |conv| ConvNormAct::new(Product::Conv2d(conv));
    let linear = |outputs| ConvNormAct::new(Product::Linear(Linear::new(outputs)));
    let (norm, relu) = (Some(BatchNorm::running()), Some(Activation::Relu));
    let leaky = Some(Activation::LeakyRelu { slope: 0.1 });
    let (mish, last_batch) = (Some(Activation::Mish), Some(BatchNorm::last_batch(1e-5)));
    let (input, other) = (Some(Residual::Input), Some(Residual::Other));
    let square = |channels, kernel, stride| Conv2d::square(channels, kernel, stride, kernel / 2);
    let grouped = |channels, groups| Conv2d { groups, ..square(channels, 3, 1) };
    let tall = Window { kernel: (2, 1), stride: (1, 1), pad: (1, 0), dilation: (1, 1) };
    // Maps whose windows take 48 tiles and more, few enough for a unit, in several units; small maps one by one and in batches.
    let winograd = square(64, 3, 1).no_bias();
    vec![
        Case::new(conv(square(5, 3, 1)), &[Shape::new(7, 5, 3)], 2),
        Case::new(ConvNormAct { norm, act: relu, ..conv(square(20, 3, 2).no_bias()) }, &[Shape::new(9, 12, 3)], 3),
        Case::new(ConvNormAct { norm, act: mish, ..conv(square(33, 3, 2).no_bias()) }, &[Shape::new(8, 7, 17)], 1),
        Case::new(ConvNormAct { act: leaky, norm_behind: norm, ..conv(square(16, 7, 1)) }, &[Shape::new(9, 8, 3)], 2),
        Case::new(ConvNormAct { norm, act: mish, norm_behind: last_batch, add: other, ..conv(square(10, 1, 1)) }, &[Shape::new(4, 3, 10), Shape::new(4, 3, 20)], 2),
        // The block of the CIFAR-10 progression, of a torchvision ResNet, of an XResNet with Mish.
        Case::new(ConvNormAct { act: relu, norm_behind: last_batch, add: input, ..conv(square(40, 3, 1).no_bias()) }, &[Shape::new(8, 7, 40)], 9),
        Case::new(ConvNormAct { norm, add: other, last: relu, ..conv(square(24, 3, 1).no_bias()) }, &[Shape::new(7, 6, 24), Shape::new(7, 6, 9)], 11),
        Case::new(ConvNormAct { norm, add: other, last: mish, ..conv(square(24, 1, 1).no_bias()) }, &[Shape::new(7, 6, 24); 2], 1),
        Case::new(ConvNormAct { act: relu, add: other, last: leaky, ..conv(square(6, 3, 1)) }, &[Shape::new(2, 3, 6), Shape::new(2, 3, 350)], 2),
        Case::new(ConvNormAct { norm, act: mish, add: input, last: mish, ..conv(square(180, 3, 1)) }, &[Shape::new(3, 2, 180)], 1),
        Case::new(ConvNormAct { norm, act: leaky, add: other, last: relu, ..conv(grouped(12, 3)) }, &[Shape::new(5, 4, 12), Shape::new(5, 4, 6)], 2),
        Case::new(ConvNormAct { norm, act: relu, norm_behind: norm, add: input, last: mish, ..conv(grouped(33, 33)) }, &[Shape::new(7, 6, 33)], 2),
        Case::new(ConvNormAct { act: leaky, norm_behind: norm, add: other, last: leaky, ..conv(grouped(40, 40)) }, &[Shape::new(12, 11, 40); 2], 6),
        Case::new(ConvNormAct { norm, act: relu, ..conv(winograd) }, &[Shape::new(10, 9, 48)], 9),
        Case::new(ConvNormAct { norm, add: other, last: relu, ..conv(winograd) }, &[Shape::new(15, 16, 64), Shape::new(15, 16, 40)], 1),
        Case::new(ConvNormAct { act: leaky, norm_behind: last_batch, add: input, ..conv(winograd) }, &[Shape::new(7, 8, 64)], 1),
        Case::new(ConvNormAct { norm, act: mish, norm_behind: norm, add: input, ..conv(winograd) }, &[Shape::new(9, 7, 64)], 2),
        Case::new(ConvNormAct { norm, act: mish, ..conv(Conv2d { channels: 3, window: tall, groups: 1, bias: true, trim: (0, 0) }) }, &[Shape::new(67, 30, 33)], 1),
        Case::new(ConvNormAct { act: relu, ..linear(40) }, &[Shape::new(5, 4, 3)], 7),
        Case::new(ConvNormAct { norm, act: mish, ..linear(33) }, &[Shape::flat(17)], 1),
        Case::new(ConvNormAct { add: input, ..linear(24) }, &[Shape::flat(24)], 67),
        Case::new(linear(10), &[Shape::flat(1040)], 2),
        Case::new(ConvNormAct { act: relu, ..linear(21) }, &[Shape::flat(70)], 3),
    ]
}
