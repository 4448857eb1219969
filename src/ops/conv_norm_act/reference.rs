use arrayvec::ArrayVec;
use ndarray::{ArrayView4, ArrayViewMut4};

use super::{ConvNormAct, Product, Residual};
use crate::backend::Reference;
use crate::ops::{Backward, Forward, Kernel, Op, View};
use crate::rng::Key;

/// Runs one part: on `x`, or in place without it.
fn run(
    part: &dyn Op,
    x: Option<View<'_, f64>>,
    y: &mut ArrayViewMut4<'_, f64>,
    params: &[&[f64]],
    states: &mut [&mut [f64]],
) {
    part.reference().forward(Forward {
        training: false,
        again: false,
        key: Key::new(0),
        in_place: x.is_none(),
        x: [x.unwrap_or(ArrayView4::from_shape((0, 0, 0, 0), &[]).expect("an empty view"))].into_iter().collect(),
        y: y.view_mut(),
        params: params.iter().copied().collect(),
        states: states.iter_mut().map(|state| &mut **state).collect(),
        saved: ArrayVec::new(),
        prepared: &[],
        scratch: &mut [],
    });
}

impl Kernel<Reference> for ConvNormAct {
    fn forward(&self, mut io: Forward<'_, f64>) {
        let x = io.x[usize::from(self.add == Some(Residual::Other))];
        let residual = self.add.map(|_| if io.in_place { io.y.to_owned() } else { io.x[0].to_owned() });
        let (n, h, w, c) = x.dim();
        let x = match self.product {
            Product::Conv2d(_) => x,
            Product::Linear(_) => x.into_shape_with_order((n, 1, 1, h * w * c)).expect("maps are contiguous"),
        };
        let (product, mut params) = io.params.split_at(1 + usize::from(self.has_bias()));
        let mut states = &mut io.states[..];
        run(self.product(), Some(x), &mut io.y, product, &mut []);
        for (norm, act) in [(self.norm, self.act), (self.norm_behind, None)] {
            if let Some(norm) = norm {
                let (own, rest) = params.split_at(2);
                let (own_states, rest_states) = std::mem::take(&mut states).split_at_mut(2);
                run(&norm, None, &mut io.y, own, own_states);
                (params, states) = (rest, rest_states);
            }
            if let Some(act) = act {
                run(&act, None, &mut io.y, &[], &mut []);
            }
        }
        if let Some(residual) = residual {
            io.y += &residual;
        }
        if let Some(last) = self.last {
            run(&last, None, &mut io.y, &[], &mut []);
        }
    }

    fn backward(&self, _io: Backward<'_, f64>) {
        unreachable!("no plan runs an op that only infers backwards");
    }
}
