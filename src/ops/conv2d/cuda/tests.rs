//! Every kernel of convolutions, on interpreted PTX, against the reference: on shapes that fit no tile, whichever of the
//! kernels would be chosen for them.

use std::collections::BTreeMap;

use ndarray::{ArrayView4, ArrayViewMut4};

use super::choose::Tile;
use super::tiles::{DW, DW_ANY, DX, DX_ANY, FORWARD, FORWARD_ANY, TF32_DW, TF32_DX, TF32_FORWARD};
use super::*;
use crate::backend::cuda::Buffer;
use crate::rng::Key;

#[path = "../../../../tests/cuda/double.rs"]
mod double;

/// A convolution with operands, and what comes of them.
#[derive(Clone)]
struct Rig {
    shape: ConvShape,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
    conv: Conv2d,
    input: Shape,
    output: Shape,
}

fn noise(name: &str, len: usize) -> Vec<f32> {
    let mut stream = Key::new(5).with_name(name).stream();
    (0..len).map(|_| stream.normal() as f32).collect()
}

fn wider(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

impl Rig {
    fn new(channels: usize, window: Window, groups: usize, input: Shape, n: usize) -> Self {
        let conv = Conv2d { channels, window, groups, bias: true, trim: (0, 0) };
        let (h, w) = window.count(input, false).expect("the window fits");
        let output = Shape::new(h, w, channels);
        let shape = ConvShape::new(&window, groups, (input, output), n);
        Rig {
            x: noise("x", n * input.len()),
            w: noise("w", window.kernel.0 * window.kernel.1 * input.c / groups * channels),
            bias: noise("bias", channels),
            dy: noise("dy", n * output.len()),
            shape,
            conv,
            input,
            output,
        }
    }

    /// The same with operands as tensor cores get them.
    fn in_tf32(&self) -> Rig {
        let rounded = |values: &[f32]| values.iter().copied().map(tf32).collect();
        Rig { x: rounded(&self.x), w: rounded(&self.w), dy: rounded(&self.dy), ..self.clone() }
    }

    fn n(&self) -> usize {
        self.x.len() / self.input.len()
    }

    fn dim(&self, shape: Shape) -> (usize, usize, usize, usize) {
        (self.n(), shape.h, shape.w, shape.c)
    }

    fn y(&self, biased: bool) -> Vec<f64> {
        let first = |q: usize| if biased { f64::from(self.bias[q]) } else { 0.0 };
        let mut y: Vec<f64> = (0..self.dy.len()).map(|i| first(i % self.output.c)).collect();
        let x = wider(&self.x);
        let mut view = ArrayViewMut4::from_shape(self.dim(self.output), &mut y).expect("sizes fit");
        let x = ArrayView4::from_shape(self.dim(self.input), &x).expect("sizes fit");
        self.conv.add_convolved(&x, &wider(&self.w), &mut view);
        y
    }

    fn dx(&self) -> Vec<f64> {
        let (mut dx, dy) = (vec![0.0; self.x.len()], wider(&self.dy));
        let mut view = ArrayViewMut4::from_shape(self.dim(self.input), &mut dx).expect("sizes fit");
        let dy = ArrayView4::from_shape(self.dim(self.output), &dy).expect("sizes fit");
        self.conv.add_dx(&wider(&self.w), &dy, &mut view);
        dx
    }

    fn dw(&self) -> Vec<f64> {
        let (mut dw, x, dy) = (vec![0.0; self.w.len()], wider(&self.x), wider(&self.dy));
        let x = ArrayView4::from_shape(self.dim(self.input), &x).expect("sizes fit");
        let dy = ArrayView4::from_shape(self.dim(self.output), &dy).expect("sizes fit");
        self.conv.add_dw(&x, &dy, &mut dw);
        dw
    }

    /// A product of this shape on each of some tiles, in one part and in three.
    fn on_tiles<K: Copy>(product: Product, name: &str, tiles: &[Tile<K>]) -> Vec<(String, Way<K>)> {
        let mut ways = Vec::new();
        for (tile, parts) in tiles.iter().flat_map(|tile| [1, 3].map(|parts| (tile, parts))) {
            let choice = product.cut(*tile, parts).expect("few parts are possible");
            // Few terms make fewer parts.
            if choice.parts == parts {
                ways.push((format!("{name}{}×{} in {parts}", tile.rows, tile.columns), Way::Tiles(choice)));
            }
        }
        ways
    }

    /// Every way to compute a product of this shape in f32: all tiles that take its channels, the direct kernels likewise.
    fn ways<K: Copy>(&self, product: Product, fours: &[Tile<K>], any: &[Tile<K>], cut: bool) -> Vec<(String, Way<K>)> {
        let quads = self.shape.quads();
        let mut ways = Rig::on_tiles(product, "any ", any);
        if quads {
            ways.extend(Rig::on_tiles(product, "", fours));
        }
        let depthwise = self.shape.cin() == 1 && self.shape.cout() == 1 && self.shape.c % 4 == 0;
        let kinds = [("depthwise", Direct::Depthwise, depthwise), ("fours", Direct::Fours, quads), ("any", Direct::Any, true)];
        let kinds = kinds.into_iter().filter(|(.., fits)| *fits);
        let parts: &[u64] = if cut { &[1, 3] } else { &[1] };
        for ((name, kind, _), &parts) in kinds.flat_map(|kind| parts.iter().map(move |parts| (kind, parts))) {
            ways.push((format!("{name} in {parts}"), Way::Direct(kind, parts)));
        }
        ways
    }
}

/// The nearest number with 10 bits of mantissa, of two the one farther from zero.
fn tf32(value: f32) -> f32 {
    if value == 0.0 {
        return value;
    }
    let unit = f64::from(value.abs()).log2().floor().exp2() / 1024.0;
    ((f64::from(value) / unit).round() * unit) as f32
}

/// Shapes that end within a tile in rows, columns and terms, each for another reason.
fn rigs() -> Vec<Rig> {
    let odd = Window { kernel: (3, 2), stride: (2, 1), pad: (1, 2), dilation: (1, 2) };
    vec![
        // More columns than any tile, in y and dw.
        Rig::new(140, Window::square(3, 1, 1), 1, Shape::new(9, 7, 20), 5),
        // The same in dx; classes of pixels with different cells.
        Rig::new(52, odd, 1, Shape::new(11, 10, 132), 3),
        // Pixels that no window reaches.
        Rig::new(68, Window::square(2, 3, 1), 1, Shape::new(14, 13, 36), 6),
        // One image.
        Rig::new(44, Window::square(5, 2, 3), 1, Shape::new(10, 9, 28), 1),
        // A linear layer.
        Rig::new(132, Window::square(1, 1, 0), 1, Shape::flat(136), 139),
        // Groups of many channels, and of few.
        Rig::new(3 * 36, Window::square(3, 1, 1), 3, Shape::new(8, 7, 3 * 20), 4),
        Rig::new(5 * 8, Window::square(3, 2, 1), 5, Shape::new(9, 12, 5 * 12), 4),
        Rig::new(24, Window::square(3, 1, 1), 24, Shape::new(9, 8, 24), 3),
        // Channels in no fours: of the input, the output, both, and of groups.
        Rig::new(132, Window::square(3, 1, 1), 1, Shape::new(9, 8, 7), 4),
        Rig::new(49, Window::square(3, 2, 0), 1, Shape::new(13, 11, 68), 4),
        Rig::new(71, odd, 1, Shape::new(9, 10, 35), 3),
        Rig::new(2 * 33, Window::square(3, 1, 2), 2, Shape::new(6, 7, 2 * 19), 3),
        Rig::new(7 * 3, Window::square(5, 1, 2), 7, Shape::new(8, 7, 7 * 5), 4),
    ]
}

/// Compares what a way gives with the truth, which it may have been added to.
fn compare(what: &str, truth: &[f64], before: &[f32], ours: &[f32]) {
    let scale = truth.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
    assert_eq!(truth.len(), ours.len(), "{what}");
    for (i, ((truth, before), ours)) in truth.iter().zip(before).zip(ours).enumerate() {
        let wanted = truth + f64::from(*before);
        let close = (wanted - f64::from(*ours)).abs() <= 1e-5 * scale; // false for a NaN
        assert!(close, "{what}[{i}] is {ours}, the reference has {wanted}");
    }
}

/// Runs a way onto NaNs, and onto numbers that it is to be added to where it can be.
fn onto(
    gpu: &'static Gpu,
    what: &str,
    truth: &[f64],
    scratch: u64,
    adds: &[bool],
    run: impl Fn(Ptr, bool, Ptr) -> Result<()>,
) {
    for &add in adds {
        let start = if add { noise("before", truth.len()) } else { vec![f32::NAN; truth.len()] };
        let before = if add { start.clone() } else { vec![0.0; truth.len()] };
        let out = Buffer::of(gpu, &start).unwrap();
        let scratch = Buffer::<f32>::new(gpu, usize::try_from(scratch).unwrap()).unwrap();
        run(out.ptr(), add, scratch.ptr()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut ours = vec![0.0; truth.len()];
        out.download(0, &mut ours).unwrap_or_else(|e| panic!("{what}: {e}"));
        compare(what, truth, &before, &ours);
    }
}

/// How many shapes each of the `ways` was run on: one at least.
fn report(pass: &str, ways: usize, ran: &BTreeMap<String, u32>) {
    println!("{pass}: {ran:?}");
    assert_eq!(ran.len(), ways, "{ran:?}");
}

/// Runs the `ways` of a forward pass, each with and without a bias, against what comes of `exact`.
fn forward(rig: &Rig, exact: &Rig, ways: Vec<(String, Way<ForwardTile>)>, ran: &mut BTreeMap<String, u32>) {
    let gpu = Gpu::current().unwrap();
    let [x, w, bias] = [&rig.x, &rig.w, &rig.bias].map(|values| Buffer::of(gpu, values).unwrap());
    let (with, without) = (exact.y(true), exact.y(false));
    for (name, way) in ways {
        let what = format!("y of {:?} by {name}", rig.shape);
        let scratch = way.scratch(rig.shape.forward_product().length);
        for (bias, truth) in [(bias.ptr(), &with), (Ptr::NULL, &without)] {
            onto(gpu, &what, truth, scratch, &[false], |y, _, scratch| {
                rig.shape.run_forward(gpu, way, [x.ptr(), w.ptr(), bias, y], scratch)
            });
        }
        *ran.entry(name).or_default() += 1;
    }
}

/// The same of an input gradient, written and added.
fn input_gradient(rig: &Rig, exact: &Rig, ways: Vec<(String, Way<GradientTile>)>, ran: &mut BTreeMap<String, u32>) {
    let gpu = Gpu::current().unwrap();
    let [dy, w] = [&rig.dy, &rig.w].map(|values| Buffer::of(gpu, values).unwrap());
    let truth = exact.dx();
    for (name, way) in ways {
        let what = format!("dx of {:?} by {name}", rig.shape);
        let scratch = way.scratch(rig.shape.dx_product().length);
        onto(gpu, &what, &truth, scratch, &[false, true], |dx, add, scratch| {
            rig.shape.run_dx(gpu, way, [dy.ptr(), w.ptr(), dx], add, scratch)
        });
        *ran.entry(name).or_default() += 1;
    }
}

/// The same of a weight gradient.
fn weight_gradient(rig: &Rig, exact: &Rig, ways: Vec<(String, Way<GradientTile>)>, ran: &mut BTreeMap<String, u32>) {
    let gpu = Gpu::current().unwrap();
    let [x, dy] = [&rig.x, &rig.dy].map(|values| Buffer::of(gpu, values).unwrap());
    let truth = exact.dw();
    for (name, way) in ways {
        let what = format!("dw of {:?} by {name}", rig.shape);
        let scratch = way.scratch(rig.shape.dw_product().length);
        onto(gpu, &what, &truth, scratch, &[false, true], |dw, add, scratch| {
            rig.shape.run_dw(gpu, way, [x.ptr(), dy.ptr(), dw], add, scratch)
        });
        *ran.entry(name).or_default() += 1;
    }
}

#[test]
fn every_kernel_of_the_forward_pass_agrees_with_the_reference() {
    double::on_double("ops::conv2d::cuda::tests::every_kernel_of_the_forward_pass_agrees_with_the_reference", || {
        let mut ran = BTreeMap::new();
        for rig in rigs() {
            let ways = rig.ways(rig.shape.forward_product(), &FORWARD, &FORWARD_ANY, false);
            forward(&rig, &rig, ways, &mut ran);
        }
        report("forward", 2 * (FORWARD.len() + FORWARD_ANY.len()) + 3, &ran);
    });
}

#[test]
fn every_kernel_of_the_input_gradient_agrees_with_the_reference() {
    double::on_double("ops::conv2d::cuda::tests::every_kernel_of_the_input_gradient_agrees_with_the_reference", || {
        let mut ran = BTreeMap::new();
        for rig in rigs() {
            let ways = rig.ways(rig.shape.dx_product(), &DX, &DX_ANY, false);
            input_gradient(&rig, &rig, ways, &mut ran);
        }
        report("input gradient", 2 * (DX.len() + DX_ANY.len()) + 3, &ran);
    });
}

#[test]
fn every_kernel_of_the_weight_gradient_agrees_with_the_reference() {
    double::on_double("ops::conv2d::cuda::tests::every_kernel_of_the_weight_gradient_agrees_with_the_reference", || {
        let mut ran = BTreeMap::new();
        for rig in rigs() {
            let ways = rig.ways(rig.shape.dw_product(), &DW, &DW_ANY, true);
            weight_gradient(&rig, &rig, ways, &mut ran);
        }
        report("weight gradient", 2 * (DW.len() + DW_ANY.len()) + 6, &ran);
    });
}

/// Shapes that tensor cores take.
fn rigs_in_fours() -> impl Iterator<Item = Rig> {
    rigs().into_iter().filter(|rig| rig.shape.quads())
}

// Of operands that were rounded before, a product on tensor cores is as exact as one in f32.

#[test]
fn every_kernel_of_the_tf32_forward_pass_agrees_with_the_reference() {
    double::on_double("ops::conv2d::cuda::tests::every_kernel_of_the_tf32_forward_pass_agrees_with_the_reference", || {
        let mut ran = BTreeMap::new();
        for rig in rigs_in_fours() {
            let ways = Rig::on_tiles(rig.shape.forward_product(), "", &TF32_FORWARD);
            forward(&rig, &rig.in_tf32(), ways, &mut ran);
        }
        report("tf32 forward", 2 * TF32_FORWARD.len(), &ran);
    });
}

#[test]
fn every_kernel_of_the_tf32_input_gradient_agrees_with_the_reference() {
    double::on_double("ops::conv2d::cuda::tests::every_kernel_of_the_tf32_input_gradient_agrees_with_the_reference", || {
        let mut ran = BTreeMap::new();
        for rig in rigs_in_fours() {
            let ways = Rig::on_tiles(rig.shape.dx_product(), "", &TF32_DX);
            input_gradient(&rig, &rig.in_tf32(), ways, &mut ran);
        }
        report("tf32 input gradient", 2 * TF32_DX.len(), &ran);
    });
}

#[test]
fn every_kernel_of_the_tf32_weight_gradient_agrees_with_the_reference() {
    double::on_double("ops::conv2d::cuda::tests::every_kernel_of_the_tf32_weight_gradient_agrees_with_the_reference", || {
        let mut ran = BTreeMap::new();
        for rig in rigs_in_fours() {
            let ways = Rig::on_tiles(rig.shape.dw_product(), "", &TF32_DW);
            weight_gradient(&rig, &rig.in_tf32(), ways, &mut ran);
        }
        report("tf32 weight gradient", 2 * TF32_DW.len(), &ran);
    });
}
