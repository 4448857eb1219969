//! What `handgrad bench --export` wrote: weights under PyTorch's names, images, targets.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::SafeTensors;

use crate::models::Net;

/// An open file.
pub struct Exported<'a> {
    tensors: SafeTensors<'a>,
}

impl<'a> Exported<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Exported { tensors: SafeTensors::deserialize(bytes).expect("a safetensors file") }
    }

    fn values(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = self.tensors.tensor(name).ok()?;
        let numbers = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Some(numbers.collect())
    }

    /// The first images, `[n, 3, size, size]`.
    pub fn images(&self, n: usize, size: usize, device: &Device) -> Tensor<4> {
        let pixels = self.values("extra/images").expect("the file has images");
        let plane = size * size;
        let mut planes = vec![0.0; n * 3 * plane];
        for (i, pixel) in pixels.chunks_exact(3).take(n * plane).enumerate() {
            for (c, &value) in pixel.iter().enumerate() {
                planes[(i / plane * 3 + c) * plane + i % plane] = value;
            }
        }
        Tensor::from_data(TensorData::new(planes, [n, 3, size, size]), device)
    }

    /// The classes of all images.
    pub fn targets(&self, n: usize, device: &Device) -> Tensor<1, Int> {
        let dense = self.values("extra/targets").expect("the file has targets");
        let class = |row: &[f32]| row.iter().position(|&share| share == 1.0).expect("one class an image") as i64;
        let classes: Vec<i64> = dense.chunks_exact(dense.len() / n).map(class).collect();
        Tensor::from_data(TensorData::new(classes, [n]), device)
    }

    /// The net with the file's weights: all of them, or this panics.
    pub fn fill<N: Net + Module>(&self, net: N) -> N {
        let mut filler = Filler { file: self, path: Vec::new(), file_name: N::file_name, taken: BTreeSet::new() };
        let net = net.map(&mut filler);
        // The progression's layers compute the last batch's statistics anew.
        let ours = |name: &&str| !name.starts_with("extra/") && !name.contains(".last_");
        let left: Vec<&str> =
            self.tensors.names().into_iter().filter(ours).filter(|n| !filler.taken.contains(*n)).collect();
        assert!(left.is_empty(), "the net lacks {left:?}");
        net
    }
}

/// Takes each parameter's value from the file.
struct Filler<'a> {
    file: &'a Exported<'a>,
    /// Names from the net down to the parameter, each with the struct that it is a field of.
    path: Vec<(String, String)>,
    file_name: fn(&[&str]) -> String,
    taken: BTreeSet<String>,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let name = (self.file_name)(&path);
        let Some(values) = self.file.values(&name) else { return param };
        self.taken.insert(name);
        let transposed = D == 2 && self.path.last().is_some_and(|(_, container)| container == "Struct:Linear");
        param.map(|old| {
            let dims = old.dims();
            let values = if transposed { transpose(&values, dims[0]) } else { values };
            let new = Tensor::from_data(TensorData::new(values, dims), &old.device());
            new.set_require_grad(old.is_require_grad())
        })
    }
}

/// `[outputs, inputs]`, as PyTorch has a linear layer's weight, to `[inputs, outputs]`.
fn transpose(values: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = values.len() / inputs;
    (0..values.len()).map(|i| values[i % outputs * inputs + i / outputs]).collect()
}
