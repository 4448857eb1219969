//! Floor: 2·kh·kw·cin/groups operations for each output, in f32 or tf32, thrice over for forward, dx and dw.

mod choose;
mod declared;
#[cfg(test)]
mod tests;
mod tiles;

use choose::{Choice, PROCESSORS, Product, SCRATCH};
use declared::{ConvShape, backward, direct, forward, sums, tf32};
use tiles::{ForwardTile, GradientTile, OF_DW, OF_DX, OF_FORWARD};

use super::Conv2d;
use crate::Result;
use crate::backend::Precision;
use crate::backend::cuda::{Backward, Forward, Gpu, Kernel, KernelInfo, Launch, Ptr, int};
use crate::graph::Shape;
use crate::ops::Window;

type ForwardDirect = fn(&Gpu, Launch, Ptr, Ptr, Ptr, Ptr, ConvShape) -> Result<()>;
type DxDirect = fn(&Gpu, Launch, Ptr, Ptr, Ptr, ConvShape, i32) -> Result<()>;

pub(in crate::ops) const KERNELS: [&[KernelInfo]; 5] =
    [forward::KERNELS, backward::KERNELS, tf32::KERNELS, direct::KERNELS, sums::KERNELS];

/// Windows that a thread of a direct kernel computes.
const WINDOWS: u64 = 4;

fn wide(n: i32) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn dimension(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn narrow(n: u64) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Channels of groups whose products would have few columns, which are summed directly.
#[derive(Clone, Copy)]
enum Direct {
    Depthwise,
    Fours,
    Any,
}

impl Direct {
    /// Numbers that a thread computes.
    fn numbers(self) -> u64 {
        if let Direct::Any = self { 1 } else { 4 }
    }
}

/// How a pass runs: on tiles, or directly in so many parts at most.
#[derive(Clone, Copy)]
enum Way<K> {
    Tiles(Choice<K>),
    Direct(Direct, u64),
}

impl<K> Way<K> {
    /// Elements of working memory, where a part has `length` of them.
    fn scratch(&self, length: u64) -> u64 {
        let (Way::Tiles(Choice { parts, .. }) | Way::Direct(_, parts)) = self;
        of_parts(*parts, length)
    }
}

/// Elements of the parts of a sum, where there are several.
fn of_parts(parts: u64, length: u64) -> u64 {
    if parts > 1 { parts * length } else { 0 }
}

impl ConvShape {
    /// A convolution of `n` maps.
    fn new(window: &Window, groups: usize, (input, output): (Shape, Shape), n: usize) -> Self {
        let Window { kernel, stride, pad, dilation } = *window;
        ConvShape {
            n: int(n),
            h: int(input.h),
            w: int(input.w),
            c: int(input.c),
            oh: int(output.h),
            ow: int(output.w),
            q: int(output.c),
            kh: int(kernel.0),
            kw: int(kernel.1),
            sh: int(stride.0),
            sw: int(stride.1),
            ph: int(pad.0),
            pw: int(pad.1),
            dh: int(dilation.0),
            dw: int(dilation.1),
            groups: int(groups),
        }
    }

    fn cin(&self) -> u64 {
        wide(self.c / self.groups)
    }

    fn cout(&self) -> u64 {
        wide(self.q / self.groups)
    }

    fn cells(&self) -> u64 {
        wide(self.kh) * wide(self.kw)
    }

    fn pixels(&self) -> u64 {
        wide(self.n) * wide(self.oh) * wide(self.ow)
    }

    /// Whether the channels of a group go in fours.
    fn quads(&self) -> bool {
        self.cin().is_multiple_of(4) && self.cout().is_multiple_of(4)
    }

    /// Classes of input pixels: those that the same cells of a window reach.
    fn classes(&self) -> (u64, u64) {
        (wide(self.sh.min(self.h)), wide(self.sw.min(self.w)))
    }

    fn direct(&self, columns: u64) -> Option<Direct> {
        if self.groups == 1 || columns > 16 {
            None
        } else if self.cin() == 1 && self.cout() == 1 && self.c % 4 == 0 {
            Some(Direct::Depthwise)
        } else if self.quads() {
            Some(Direct::Fours)
        } else {
            Some(Direct::Any)
        }
    }

    fn forward_product(&self) -> Product {
        Product {
            rows: self.pixels(),
            columns: self.cout(),
            depth: self.cells() * self.cin(),
            groups: wide(self.groups),
            classes: 1,
            length: self.pixels() * wide(self.q),
        }
    }

    fn dx_product(&self) -> Product {
        let (down, across) = self.classes();
        Product {
            rows: self.dx_rows(),
            columns: self.cin(),
            // Cells of the class with the most.
            depth: wide(self.kh).div_ceil(period(self.sh, self.dh)) * wide(self.kw).div_ceil(period(self.sw, self.dw)) * self.cout(),
            groups: wide(self.groups),
            classes: down * across,
            length: wide(self.n) * wide(self.h) * wide(self.w) * wide(self.c),
        }
    }

    fn dx_rows(&self) -> u64 {
        wide(self.n) * wide(self.h).div_ceil(wide(self.sh)) * wide(self.w).div_ceil(wide(self.sw))
    }

    fn dw_product(&self) -> Product {
        Product {
            rows: self.cells() * self.cin(),
            columns: self.cout(),
            depth: self.pixels(),
            groups: wide(self.groups),
            classes: 1,
            length: self.weights(),
        }
    }

    fn weights(&self) -> u64 {
        self.cells() * self.cin() * wide(self.q)
    }

    /// Blocks of one part of the direct weight gradient: pairs of channels, and cells.
    fn dw_direct_blocks(&self, direct: Direct) -> [u64; 2] {
        let (inputs, at_once) = if let Direct::Fours = direct { (4, 3) } else { (1, 9) };
        let pairs = self.cin() / inputs * (wide(self.q) / direct.numbers());
        [pairs.div_ceil(32), self.cells().div_ceil(at_once)]
    }

    /// Parts of the direct weight gradient, where about so many are wanted, and pixels of each.
    fn dw_direct_cut(&self, wanted: u64) -> (u64, u64) {
        let part = self.pixels().div_ceil(wanted).max(1);
        (self.pixels().div_ceil(part).max(1), part)
    }

    /// How many of them are good.
    fn dw_direct_parts(&self, direct: Direct) -> u64 {
        let [pairs, cells] = self.dw_direct_blocks(direct);
        // Eight blocks for each multiprocessor, but 16 pixels or more for each of a block's eight sequences.
        let wanted = (8 * PROCESSORS).div_ceil(pairs * cells).min(self.pixels().div_ceil(128));
        wanted.min(SCRATCH / self.weights()).max(1)
    }

    fn run_forward(
        &self,
        gpu: &Gpu,
        way: Way<ForwardTile>,
        [x, w, bias, y]: [Ptr; 4],
        scratch: Ptr,
    ) -> Result<()> {
        let product = self.forward_product();
        let choice = match way {
            Way::Tiles(choice) => choice,
            Way::Direct(kind, _) => {
                let kernel: ForwardDirect = match kind {
                    Direct::Depthwise => direct::conv_forward_depthwise,
                    Direct::Fours => direct::conv_forward_direct,
                    Direct::Any => direct::conv_forward_direct_any,
                };
                let threads = wide(self.q) / kind.numbers() * self.pixels().div_ceil(WINDOWS);
                return kernel(gpu, Launch::line(dimension(threads.div_ceil(128)), 128), x, w, bias, y, *self);
            }
        };
        let (launch, part) = (product.launch(&choice), narrow(choice.part));
        if choice.parts == 1 {
            return (choice.tile.kernel)(gpu, launch, x, w, bias, y, *self, part);
        }
        (choice.tile.kernel)(gpu, launch, x, w, Ptr::NULL, scratch, *self, part)?;
        add_parts(gpu, [scratch, bias, y], [product.length, choice.parts, wide(self.q)], false)
    }

    fn run_dx(
        &self,
        gpu: &Gpu,
        way: Way<GradientTile>,
        [dy, w, dx]: [Ptr; 3],
        add: bool,
        scratch: Ptr,
    ) -> Result<()> {
        let product = self.dx_product();
        let choice = match way {
            Way::Tiles(choice) => choice,
            Way::Direct(kind, _) => {
                let kernel: DxDirect = match kind {
                    Direct::Depthwise => direct::conv_dx_depthwise,
                    Direct::Fours => direct::conv_dx_direct,
                    Direct::Any => direct::conv_dx_direct_any,
                };
                let threads = wide(self.c) / kind.numbers() * product.rows.div_ceil(WINDOWS);
                let launch = Launch::line(dimension(threads.div_ceil(128) * product.classes), 128);
                return kernel(gpu, launch, dy, w, dx, *self, i32::from(add));
            }
        };
        let (launch, part) = (product.launch(&choice), narrow(choice.part));
        if choice.parts == 1 {
            return (choice.tile.kernel)(gpu, launch, dy, w, dx, *self, part, i32::from(add));
        }
        (choice.tile.kernel)(gpu, launch, dy, w, scratch, *self, part, 0)?;
        add_parts(gpu, [scratch, Ptr::NULL, dx], [product.length, choice.parts, 1], add)
    }

    fn run_dw(
        &self,
        gpu: &Gpu,
        way: Way<GradientTile>,
        [x, dy, dw]: [Ptr; 3],
        add: bool,
        scratch: Ptr,
    ) -> Result<()> {
        let (kernel, launch, parts, part): (GradientTile, _, _, _) = match way {
            Way::Tiles(choice) => {
                (choice.tile.kernel, self.dw_product().launch(&choice), choice.parts, choice.part)
            }
            Way::Direct(kind, wanted) => {
                let kernel: GradientTile = match kind {
                    Direct::Depthwise => direct::conv_dw_depthwise,
                    Direct::Fours => direct::conv_dw_direct,
                    Direct::Any => direct::conv_dw_direct_any,
                };
                let ([pairs, cells], (parts, part)) = (self.dw_direct_blocks(kind), self.dw_direct_cut(wanted));
                let grid = [dimension(pairs), dimension(cells), dimension(parts)];
                (kernel, Launch { grid, block: [32, 8, 1], shared: 0 }, parts, part)
            }
        };
        if parts == 1 {
            return kernel(gpu, launch, x, dy, dw, *self, narrow(part), i32::from(add));
        }
        kernel(gpu, launch, x, dy, scratch, *self, narrow(part), 0)?;
        add_parts(gpu, [scratch, Ptr::NULL, dw], [self.weights(), parts, 1], add)
    }
}

/// Cells from one that reaches a pixel to the next one that does.
fn period(stride: i32, dilation: i32) -> u64 {
    (1..wide(stride)).find(|&k| (k * wide(dilation)).is_multiple_of(wide(stride))).unwrap_or(wide(stride))
}

impl Product {
    fn launch<K>(&self, choice: &Choice<K>) -> Launch {
        let grid = [dimension(self.blocks(&choice.tile)), 1, dimension(self.groups * choice.parts)];
        Launch { grid, block: [dimension(choice.tile.threads), 1, 1], shared: 0 }
    }
}

/// out = Σ of parts, plus a bias per column where it is not null.
fn add_parts(gpu: &Gpu, [parts, bias, out]: [Ptr; 3], [length, count, columns]: [u64; 3], add: bool) -> Result<()> {
    let launch = Launch::line(dimension(length.div_ceil(256)), 256);
    sums::sum_parts(gpu, launch, parts, bias, out, narrow(length), narrow(count), narrow(columns), i32::from(add))
}

/// How the sums of a matrix's columns are cut.
struct ColumnSums {
    across: u64,
    part: u64,
    parts: u64,
}

impl ColumnSums {
    fn of(rows: u64, columns: u64) -> Self {
        let across = columns.next_power_of_two().min(32);
        // Some eight rows for each thread, blocks for all multiprocessors, and no more parts than one thread adds up quickly.
        let wanted = rows.div_ceil(8 * (256 / across)).min((4 * PROCESSORS).div_ceil(columns.div_ceil(across)));
        let part = rows.div_ceil(wanted.clamp(1, 256)).max(1);
        ColumnSums { across, part, parts: rows.div_ceil(part).max(1) }
    }
}

/// The sums of the columns of a matrix `[rows][columns]`; the working memory is that of [`ConvShape::scratch`].
fn column_sums(gpu: &Gpu, [x, out]: [Ptr; 2], [rows, columns]: [u64; 2], add: bool, scratch: Ptr) -> Result<()> {
    let ColumnSums { across, part, parts } = ColumnSums::of(rows, columns);
    let grid = [dimension(columns.div_ceil(across)), dimension(parts), 1];
    let launch = Launch { grid, block: [dimension(across), dimension(256 / across), 1], shared: 0 };
    let (to, add_now) = if parts == 1 { (out, add) } else { (scratch, false) };
    sums::column_sums(gpu, launch, x, to, narrow(rows), narrow(columns), narrow(part), i32::from(add_now))?;
    if parts == 1 {
        return Ok(());
    }
    add_parts(gpu, [scratch, Ptr::NULL, out], [columns, parts, 1], add)
}

/// A convolution in a precision, or what is computed as one.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Convolution {
    shape: ConvShape,
    precision: Precision,
}

impl Convolution {
    /// Of `n` maps, from one shape to another.
    pub fn new(window: &Window, groups: usize, maps: (Shape, Shape), n: usize, precision: Precision) -> Self {
        Convolution { shape: ConvShape::new(window, groups, maps, n), precision }
    }

    /// The product of `rows` vectors with a matrix `[inputs][outputs]`: a convolution of single pixels.
    pub fn linear(rows: usize, inputs: usize, outputs: usize, precision: Precision) -> Self {
        Convolution::new(&Window::square(1, 1, 0), 1, (Shape::flat(inputs), Shape::flat(outputs)), rows, precision)
    }

    fn forward_way(&self) -> Way<ForwardTile> {
        let shape = &self.shape;
        match shape.direct(shape.cout()) {
            Some(kind) => Way::Direct(kind, 1),
            None => Way::Tiles(shape.forward_product().choose(OF_FORWARD.of(shape.quads(), self.precision))),
        }
    }

    fn dx_way(&self) -> Way<GradientTile> {
        let shape = &self.shape;
        match shape.direct(shape.cin()) {
            Some(kind) => Way::Direct(kind, 1),
            None => Way::Tiles(shape.dx_product().choose(OF_DX.of(shape.quads(), self.precision))),
        }
    }

    fn dw_way(&self) -> Way<GradientTile> {
        let shape = &self.shape;
        match shape.direct(shape.cout()) {
            Some(kind) => Way::Direct(kind, shape.dw_direct_parts(kind)),
            None => Way::Tiles(shape.dw_product().choose(OF_DW.of(shape.quads(), self.precision))),
        }
    }

    /// Elements of working memory that any of the three passes of these many images or fewer needs.
    pub fn scratch(&self) -> usize {
        let of = |n: i32| {
            let shape = ConvShape { n, ..self.shape };
            let fewer = Convolution { shape, ..*self };
            let y = fewer.forward_way().scratch(shape.forward_product().length);
            let dx = fewer.dx_way().scratch(shape.dx_product().length);
            let dw = fewer.dw_way().scratch(shape.weights());
            let db = ColumnSums::of(shape.pixels(), wide(shape.q));
            y.max(dx).max(dw).max(of_parts(db.parts, wide(shape.q)))
        };
        (1..=self.shape.n).map(of).max().and_then(|most| usize::try_from(most).ok()).unwrap_or(0)
    }

    /// y from x, weights and bias, which may be null.
    pub fn forward(&self, gpu: &Gpu, operands: [Ptr; 4], scratch: Ptr) -> Result<()> {
        self.shape.run_forward(gpu, self.forward_way(), operands, scratch)
    }

    /// dx from dy and weights.
    pub fn input_gradient(&self, gpu: &Gpu, operands: [Ptr; 3], add: bool, scratch: Ptr) -> Result<()> {
        self.shape.run_dx(gpu, self.dx_way(), operands, add, scratch)
    }

    /// dw from x and dy.
    pub fn weight_gradient(&self, gpu: &Gpu, operands: [Ptr; 3], add: bool, scratch: Ptr) -> Result<()> {
        self.shape.run_dw(gpu, self.dw_way(), operands, add, scratch)
    }

    /// db from dy, in f32 whatever the precision.
    pub fn bias_gradient(&self, gpu: &Gpu, [dy, db]: [Ptr; 2], add: bool, scratch: Ptr) -> Result<()> {
        column_sums(gpu, [dy, db], [self.shape.pixels(), wide(self.shape.q)], add, scratch)
    }

    /// The gradients of an op with this convolution's operands: weights and, where there is one, a bias.
    pub fn backward(&self, io: &Backward<'_>) -> Result<()> {
        let dw = io.dparams[0];
        if dw.needed {
            self.weight_gradient(io.gpu, [io.x[0], io.dy, dw.at], dw.add, io.scratch)?;
        }
        if let Some(db) = io.dparams.get(1).filter(|db| db.needed) {
            self.bias_gradient(io.gpu, [io.dy, db.at], db.add, io.scratch)?;
        }
        let Some((dx, add)) = io.dx[0].target() else { return Ok(()) };
        self.input_gradient(io.gpu, [io.dy, io.params[0], dx], add, io.scratch)
    }
}

impl Kernel for Conv2d {
    fn scratch(&self, inputs: &[Shape], output: Shape, n: usize, precision: Precision) -> usize {
        Convolution::new(&self.window, self.groups, (inputs[0], output), n, precision).scratch()
    }

    fn forward(&self, io: &Forward<'_>) -> Result<()> {
        let conv = Convolution::new(&self.window, self.groups, (io.inputs[0], io.output), io.n, io.precision);
        let bias = io.params.get(1).copied().unwrap_or_default();
        conv.forward(io.gpu, [io.x[0], io.params[0], bias, io.y], io.scratch)
    }

    fn backward(&self, io: &Backward<'_>) -> Result<()> {
        Convolution::new(&self.window, self.groups, (io.inputs[0], io.output), io.n, io.precision).backward(io)
    }
}
