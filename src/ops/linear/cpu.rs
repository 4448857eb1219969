use super::Linear;
use crate::backend::cpu::conv::{self, Epilogue};
use crate::backend::cpu::gemm::{self, LinearGeometry};
use crate::backend::{Cpu, parallel, simd_level};
use crate::graph::Shape;
use crate::ops::{Backward, Forward, Kernel};

impl Kernel<Cpu> for Linear {
    fn scratch(&self, inputs: &[Shape], _output: Shape, n: usize) -> usize {
        let (level, geometry) = (simd_level(), LinearGeometry { inputs: inputs[0].c, outputs: self.outputs });
        let needs = [
            gemm::forward_scratch(level, &geometry, n),
            gemm::input_gradient_scratch(level, &geometry, n),
            gemm::weight_gradient_scratch(level, &geometry, n),
            conv::bias_gradient_scratch(self.outputs, n),
        ];
        needs.into_iter().max().unwrap_or(0)
    }

    fn forward(&self, mut io: Forward<'_, f32>) {
        let (n, .., inputs) = io.x[0].dim();
        let geometry = LinearGeometry { inputs, outputs: self.outputs };
        let bias = self.bias.then(|| io.params[1]);
        let epilogue = Epilogue { bias, ..Epilogue::NONE };
        let (x, y) = (parallel::contiguous(&io.x[0]), parallel::contiguous_mut(&mut io.y));
        gemm::forward(simd_level(), &geometry, n, x, io.params[0], y, epilogue, io.scratch);
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (level, (n, .., inputs)) = (simd_level(), io.x[0].dim());
        let geometry = LinearGeometry { inputs, outputs: self.outputs };
        let (x, dy) = (parallel::contiguous(&io.x[0]), &*parallel::contiguous_mut(&mut io.dy));
        let dw = &mut io.dparams[0];
        if dw.needed {
            gemm::weight_gradient(level, &geometry, n, x, dy, dw.values, dw.add, io.scratch);
        }
        if self.bias {
            let db = &mut io.dparams[1];
            conv::bias_gradient(level, dy, db.values, db.add, io.scratch);
        }
        let Some((dx, add)) = io.dx[0].target() else { return };
        let dx = parallel::contiguous_mut(dx);
        gemm::input_gradient(level, &geometry, n, dy, io.params[0], dx, add, io.scratch);
    }
}
