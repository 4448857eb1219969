use super::Conv2d;
use crate::backend::cpu::conv::{self, ConvGeometry, Epilogue};
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Conv2d {
    /// As the kernels see it.
    pub(in crate::ops) fn geometry(&self, input: Shape, output: Shape) -> ConvGeometry {
        ConvGeometry {
            in_h: input.h,
            in_w: input.w,
            in_c: input.c,
            out_h: output.h,
            out_w: output.w,
            out_c: output.c,
            kernel: self.window.kernel,
            stride: self.window.stride,
            pad: self.window.pad,
            dilation: self.window.dilation,
            groups: self.groups,
        }
    }
}

fn shape((_, h, w, c): (usize, usize, usize, usize)) -> Shape {
    Shape::new(h, w, c)
}

impl Kernel<Cpu> for Conv2d {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize) -> usize {
        let (level, geometry) = (simd_level(), self.geometry(inputs[0], output));
        let needs = [
            conv::forward_scratch(level, &geometry, n),
            conv::forward_in_training_scratch(level, &geometry, n),
            conv::input_gradient_scratch(level, &geometry, n),
            conv::weight_gradient_scratch(level, &geometry, n),
            conv::bias_gradient_scratch(self.channels, n * output.h * output.w),
        ];
        needs.into_iter().max().unwrap_or(0)
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let geometry = self.geometry(shape(io.x[0].dim()), shape(io.y.dim()));
        let n = io.y.dim().0;
        let bias = self.bias.then(|| io.params[1]);
        let epilogue = Epilogue { bias, ..Epilogue::NONE };
        let (x, y) = (parallel::contiguous(&io.x[0]), parallel::contiguous_mut(&mut io.y));
        let forward = if io.training { conv::forward_in_training } else { conv::forward };
        forward(simd_level(), &geometry, n, x, io.params[0], y, epilogue, io.scratch);
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (level, n) = (simd_level(), io.dy.dim().0);
        let geometry = self.geometry(shape(io.x[0].dim()), shape(io.dy.dim()));
        let (x, dy) = (parallel::contiguous(&io.x[0]), &*parallel::contiguous_mut(&mut io.dy));
        let dw = &mut io.dparams[0];
        if dw.needed {
            conv::weight_gradient(level, &geometry, n, x, dy, dw.values, dw.add, io.scratch);
        }
        if self.bias {
            let db = &mut io.dparams[1];
            conv::bias_gradient(level, dy, db.values, db.add, io.scratch);
        }
        let Some((dx, add)) = io.dx[0].target() else { return };
        let dx = parallel::contiguous_mut(dx);
        conv::input_gradient(level, &geometry, n, dy, io.params[0], dx, add, io.scratch);
    }
}
