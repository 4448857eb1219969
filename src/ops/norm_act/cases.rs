use super::NormAct;
use crate::graph::Shape;
use crate::ops::cases::Case;
use crate::ops::{Activation, BatchNorm};

pub fn cases() -> Vec<Case> {
    let running = |act| NormAct { norm: BatchNorm::running(), add: false, act };
    let last_batch = |act| NormAct { norm: BatchNorm::last_batch(1e-5), add: false, act };
    let sum = |norm_act| NormAct { add: true, ..norm_act };
    let general = Activation::GeneralRelu { leak: 0.1, sub: 0.4, maxv: Some(0.7) };
    vec![
        Case::new(running(Activation::Mish), &[Shape::new(5, 3, 7)], 3),
        Case::new(running(Activation::Mish), &[Shape::new(31, 29, 20)], 2),
        Case::new(running(Activation::Relu), &[Shape::new(3, 2, 130)], 3),
        Case::new(running(Activation::Gelu), &[Shape::new(2, 2, 33)], 1),
        Case::new(running(Activation::Tanh), &[Shape::flat(5)], 4),
        Case::new(last_batch(Activation::Silu), &[Shape::new(4, 5, 10)], 3),
        Case::new(last_batch(general), &[Shape::new(3, 3, 16)], 2),
        Case::new(running(Activation::Softplus), &[Shape::new(2, 3, 5)], 2),
        Case::new(running(Activation::Sigmoid), &[Shape::new(3, 1, 9)], 2),
        Case::new(running(Activation::LeakyRelu { slope: 0.1 }), &[Shape::new(2, 3, 64)], 1),
        Case::new(sum(running(Activation::Mish)), &[Shape::new(5, 3, 7); 2], 3),
        Case::new(sum(running(Activation::Relu)), &[Shape::new(31, 29, 20); 2], 2),
        Case::new(sum(last_batch(Activation::Tanh)), &[Shape::new(2, 3, 64); 2], 1),
    ]
}
