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
        }
    }

    fn backward(&self, io: Backward<'_, f32>) {
        match *self {
            Activation::Relu => parallel::map_gradient(io, |y, dy| Activation::Relu.df(y) * dy),
            Activation::LeakyRelu { slope } => {
                parallel::map_gradient(io, |y, dy| Activation::LeakyRelu { slope }.df(y) * dy);
            }
            general @ Activation::GeneralRelu { .. } => parallel::map_gradient(io, |y, dy| general.df(y) * dy),
        }
    }
}
