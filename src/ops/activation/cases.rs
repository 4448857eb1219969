use super::Activation;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let general = Activation::GeneralRelu { leak: 0.1, sub: 0.4, maxv: Some(0.7) };
    let plain = Activation::GeneralRelu { leak: 0.0, sub: 0.0, maxv: None };
    vec![
        Case::new(Activation::Relu, &[Shape::new(5, 3, 33)], 3),
        Case::new(Activation::Relu, &[Shape::flat(1)], 1),
        Case::new(Activation::LeakyRelu { slope: 0.01 }, &[Shape::new(2, 7, 3)], 2),
        Case::new(general, &[Shape::new(4, 3, 5)], 2),
        Case::new(plain, &[Shape::flat(17)], 5),
        Case::new(Activation::Relu, &[Shape::new(40, 41, 20)], 3),
    ]
}
