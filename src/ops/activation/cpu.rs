//! Floor: forward reads x and writes y once; backward reads dy and what is kept, and writes dx, once.

use super::Activation;
use crate::backend::{Cpu, parallel};
use crate::ops::{Backward, Forward, Kernel};

impl Kernel<Cpu> for Activation {
    fn forward(&self, io: Forward<'_, f32>) {
        // One loop per variant: inside a loop the variant is known and the code vectorises.
        match *self {
            Activation::Relu => parallel::map(io, |x| Activation::Relu.f(x)),
            Activation::LeakyRelu { slope } => parallel::map(io, |x| Activation::LeakyRelu { slope }.f(x)),
            general @ Activation::GeneralRelu { .. } => parallel::map(io, |x| general.f(x)),
            Activation::Mish => parallel::map(io, |x| Activation::Mish.f(x)),
            Activation::Silu => parallel::map(io, |x| Activation::Silu.f(x)),
            Activation::Sigmoid => parallel::map(io, |x| Activation::Sigmoid.f(x)),
            Activation::Tanh => parallel::map(io, |x| Activation::Tanh.f(x)),
            Activation::Gelu => parallel::map(io, |x| Activation::Gelu.f(x)),
            Activation::Softplus => parallel::map(io, |x| Activation::Softplus.f(x)),
        }
    }

    fn backward(&self, io: Backward<'_, f32>) {
        match *self {
            Activation::Relu => parallel::map_gradient(io, |y, dy| Activation::Relu.df(y) * dy),
            Activation::LeakyRelu { slope } => {
                parallel::map_gradient(io, |y, dy| Activation::LeakyRelu { slope }.df(y) * dy);
            }
            general @ Activation::GeneralRelu { .. } => parallel::map_gradient(io, |y, dy| general.df(y) * dy),
            Activation::Mish => parallel::map_gradient(io, |x, dy| Activation::Mish.df(x) * dy),
            Activation::Silu => parallel::map_gradient(io, |x, dy| Activation::Silu.df(x) * dy),
            Activation::Sigmoid => parallel::map_gradient(io, |y, dy| Activation::Sigmoid.df(y) * dy),
            Activation::Tanh => parallel::map_gradient(io, |y, dy| Activation::Tanh.df(y) * dy),
            Activation::Gelu => parallel::map_gradient(io, |x, dy| Activation::Gelu.df(x) * dy),
            Activation::Softplus => parallel::map_gradient(io, |y, dy| Activation::Softplus.df(y) * dy),
        }
    }
}
