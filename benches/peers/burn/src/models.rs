//! Three nets of the CIFAR-10 progression and xresnet18, as a user of burn would write them.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

pub trait Net {
    /// Class scores `[n, 10]` of images `[n, 3, height, width]`.
    fn forward(&self, x: Tensor<4>, training: bool) -> Tensor<2>;

    /// What PyTorch's net calls the parameter at the end of this path.
    fn file_name(path: &[&str]) -> String {
        path.join(".")
    }
}

fn conv(from: usize, to: usize, kernel: usize, stride: usize, bias: bool, device: &Device) -> Conv2d {
    // The 7x7 of ResNet2 has a padding of 1 too.
    let pad = usize::from(kernel > 1);
    Conv2dConfig::new([from, to], [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(bias)
        .init(device)
}

fn global_max(x: Tensor<4>) -> Tensor<2> {
    x.flatten::<3>(2, 3).max_dim(2).flatten::<2>(1, 2)
}

#[derive(Module, Debug)]
pub struct SimpleNet {
    layers: Vec<Linear>,
}

impl SimpleNet {
    pub fn new(device: &Device) -> Self {
        SimpleNet { layers: vec![LinearConfig::new(3072, 40).init(device), LinearConfig::new(40, 10).init(device)] }
    }
}

impl Net for SimpleNet {
    fn forward(&self, x: Tensor<4>, _training: bool) -> Tensor<2> {
        self.layers[1].forward(relu(self.layers[0].forward(x.flatten::<2>(1, 3))))
    }
}

#[derive(Module, Debug)]
pub struct ConvNet2 {
    layers: Vec<Conv2d>,
    out: Linear,
}

impl ConvNet2 {
    pub fn new(device: &Device) -> Self {
        let layers = [(3, 20), (20, 40), (40, 80)].map(|(from, to)| conv(from, to, 3, 2, true, device));
        ConvNet2 { layers: layers.into(), out: LinearConfig::new(80, 10).init(device) }
    }
}

impl Net for ConvNet2 {
    fn forward(&self, x: Tensor<4>, _training: bool) -> Tensor<2> {
        let x = self.layers.iter().fold(x, |x, layer| relu(layer.forward(x)));
        self.out.forward(global_max(x))
    }
}

/// Convolution → ReLU → normalisation by batch statistics, by stored ones outside training.
#[derive(Module, Debug)]
pub struct BnLayer {
    conv: Conv2d,
    m: Param<Tensor<4>>,
    a: Param<Tensor<4>>,
    mean: Param<Tensor<4>>,
    std: Param<Tensor<4>>,
}

impl BnLayer {
    fn new(from: usize, to: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        let filled = |value: f64| Tensor::<4>::ones([1, to, 1, 1], device).mul_scalar(value);
        BnLayer {
            conv: conv(from, to, kernel, stride, false, device),
            m: Param::from_tensor(filled(1.0)),
            a: Param::from_tensor(filled(0.0)),
            mean: Param::from_tensor(filled(0.5)).set_require_grad(false),
            std: Param::from_tensor(filled(0.7)).set_require_grad(false),
        }
    }

    fn forward(&self, x: Tensor<4>, training: bool) -> Tensor<4> {
        let x = relu(self.conv.forward(x));
        let (centred, std) = if training {
            let [n, _, h, w] = x.dims();
            let centred = x.clone() - x.mean_dims(&[0, 2, 3]);
            let squares = (centred.clone() * centred.clone()).sum_dims(&[0, 2, 3]);
            (centred, squares.div_scalar((n * h * w - 1) as f64).sqrt())
        } else {
            (x - self.mean.val(), self.std.val())
        };
        centred / std * self.m.val() + self.a.val()
    }
}

#[derive(Module, Debug)]
pub struct ResNet2 {
    conv1: BnLayer,
    layers: Vec<BnLayer>,
    layers2: Vec<BnLayer>,
    layers3: Vec<BnLayer>,
    out: Linear,
}

impl ResNet2 {
    pub fn new(device: &Device) -> Self {
        let widths = [32, 128, 256];
        let same = || widths.map(|width| BnLayer::new(width, width, 3, 1, device)).into();
        ResNet2 {
            conv1: BnLayer::new(3, 16, 7, 1, device),
            layers: [(16, 32), (32, 128), (128, 256)].map(|(i, o)| BnLayer::new(i, o, 3, 2, device)).into(),
            layers2: same(),
            layers3: same(),
            out: LinearConfig::new(256, 10).init(device),
        }
    }
}

impl Net for ResNet2 {
    fn forward(&self, x: Tensor<4>, training: bool) -> Tensor<2> {
        let mut x = self.conv1.forward(x, training);
        for i in 0..self.layers.len() {
            x = self.layers[i].forward(x, training);
            x = x.clone() + self.layers2[i].forward(x, training);
            x = x.clone() + self.layers3[i].forward(x, training);
        }
        self.out.forward(global_max(x))
    }
}

/// Convolution and batch-norm.
#[derive(Module, Debug)]
pub struct ConvLayer {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvLayer {
    fn new(from: usize, to: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        ConvLayer { conv: conv(from, to, kernel, stride, false, device), norm: BatchNormConfig::new(to).init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// relu(two 3x3 layers + identity, which is halved and widened where the block is).
#[derive(Module, Debug)]
pub struct ResBlock {
    convs: Vec<ConvLayer>,
    pool: AvgPool2d,
    identity: Option<ConvLayer>,
}

impl ResBlock {
    fn new(from: usize, to: usize, device: &Device) -> Self {
        let stride = if from == to { 1 } else { 2 };
        ResBlock {
            convs: vec![ConvLayer::new(from, to, 3, stride, device), ConvLayer::new(to, to, 3, 1, device)],
            pool: AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            identity: (from != to).then(|| ConvLayer::new(from, to, 1, 1, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.convs[1].forward(relu(self.convs[0].forward(x.clone())));
        let identity = match &self.identity {
            Some(layer) => layer.forward(self.pool.forward(x)),
            None => x,
        };
        relu(y + identity)
    }
}

/// fastai's xresnet18 with ReLU.
#[derive(Module, Debug)]
pub struct XResNet18 {
    stem: Vec<ConvLayer>,
    pool: MaxPool2d,
    blocks: Vec<ResBlock>,
    head: Linear,
}

impl XResNet18 {
    pub fn new(device: &Device) -> Self {
        let stem = [(3, 32, 2), (32, 32, 1), (32, 64, 1)];
        let blocks = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)];
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        XResNet18 {
            stem: stem.map(|(from, to, stride)| ConvLayer::new(from, to, 3, stride, device)).into(),
            pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(padding).init(),
            blocks: blocks.map(|(from, to)| ResBlock::new(from, to, device)).into(),
            head: LinearConfig::new(512, 10).init(device),
        }
    }
}

impl Net for XResNet18 {
    fn forward(&self, x: Tensor<4>, _training: bool) -> Tensor<2> {
        let x = self.stem.iter().fold(x, |x, layer| relu(layer.forward(x)));
        let x = self.blocks.iter().fold(self.pool.forward(x), |x, block| block.forward(x));
        self.head.forward(x.mean_dims(&[2, 3]).flatten::<2>(1, 3))
    }

    fn file_name(path: &[&str]) -> String {
        // Of a convolution or a batch-norm: 0 or 1, and the parameter's name.
        let part = |part: &str, name: &str| match name {
            "gamma" => "1.weight".into(),
            "beta" => "1.bias".into(),
            name => format!("{}.{name}", usize::from(part == "norm")),
        };
        let block = |block: &str| block.parse::<usize>().map_or(String::new(), |i| format!("{}.{}", 4 + i / 2, i % 2));
        match path {
            ["stem", layer, of, name] => format!("{layer}.{}", part(of, name)),
            ["blocks", i, "convs", layer, of, name] => format!("{}.convpath.{layer}.{}", block(i), part(of, name)),
            ["blocks", i, "identity", of, name] => format!("{}.idpath.1.{}", block(i), part(of, name)),
            ["head", name] => format!("11.{name}"),
            path => path.join("."),
        }
    }
}
