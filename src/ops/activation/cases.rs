use super::Activation;
use crate::graph::Shape;
use crate::ops::cases::Case;

pub fn cases() -> Vec<Case> {
    let general = Activation::GeneralRelu { leak: 0.1, sub: 0.4, maxv: Some(0.7) };
    let plain = Activation::GeneralRelu { leak: 0.0, sub: 0.0, maxv: None };
    let smooth = [
        Activation::Mish,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::Softplus,
    ];
    let mut cases = vec![
        Case::new(Activation::Relu, &[Shape::new(5, 3, 33)], 3),
        Case::new(Activation::Relu, &[Shape::flat(1)], 1),
        Case::new(Activation::LeakyRelu { slope: 0.01 }, &[Shape::new(2, 7, 3)], 2),
        Case::new(general, &[Shape::new(4, 3, 5)], 2),
        Case::new(plain, &[Shape::flat(17)], 5),
        Case::new(Activation::Relu, &[Shape::new(40, 41, 20)], 3),
    ];
    for op in smooth {
        cases.push(Case::new(op, &[Shape::new(5, 3, 33)], 2));
        cases.push(Case::new(op, &[Shape::new(31, 17, 40)], 2));
        cases.push(Case::new(op, &[Shape::flat(1)], 1));
    }
    cases
}
