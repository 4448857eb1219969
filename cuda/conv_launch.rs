//! Which kernels a convolution launches, from its shape alone: the same bits on every machine.
//!
//! A kernel's arguments are listed in each launch in the order in which the kernel takes them; the kernels' mathematics is in
//! `conv.cu`, `conv_backward.cu`, `conv_direct.cu` and `sums.cu`. Sums that are cut into parts go to a scratch buffer, and a second
//! launch adds the parts up.

/// What the kernels take by value. Maps are NHWC, weights `[kh][kw][c / groups][q]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    pub n: i32,
    pub h: i32,
    pub w: i32,
    pub c: i32,
    pub oh: i32,
    pub ow: i32,
    pub q: i32,
    pub kh: i32,
    pub kw: i32,
    pub sh: i32,
    pub sw: i32,
    pub ph: i32,
    pub pw: i32,
    pub dh: i32,
    pub dw: i32,
    pub groups: i32,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    X,
    W,
    /// The bias, or null where there is none.
    Bias,
    Y,
    Dy,
    Dx,
    Dw,
    Db,
    /// Room for [`Launches::scratch`] numbers.
    Scratch,
    /// A null pointer.
    Null,
    /// The [`ConvShape`], by value.
    Shape,
    /// A C `int`.
    Int(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLaunch {
    pub kernel: &'static str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    pub args: Vec<Arg>,
}

/// Launches, one after the other, and the f32 numbers of scratch that they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launches {
    pub launches: Vec<KernelLaunch>,
    pub scratch: usize,
}

/// A kernel that multiplies tiles: rows and columns of a block's tile, threads, blocks that fit into a multiprocessor, and
/// the part of the multiprocessor's rate that a full load of them reaches, in percent.
#[derive(Clone, Copy)]
struct Tile {
    kernel: &'static str,
    rows: u64,
    columns: u64,
    threads: u64,
    resident: u64,
    rate: u64,
}

const fn tile(kernel: &'static str, rows: u64, columns: u64, threads: u64, resident: u64, rate: u64) -> Tile {
    Tile { kernel, rows, columns, threads, resident, rate }
}

const FORWARD: [Tile; 4] = [
    tile("conv_forward_128x128", 128, 128, 256, 2, 85),
    tile("conv_forward_128x64", 128, 64, 128, 3, 80),
    tile("conv_forward_128x32", 128, 32, 128, 5, 70),
    tile("conv_forward_64x32", 64, 32, 128, 8, 55),
];
const FORWARD_ANY: [Tile; 2] = [
    tile("conv_forward_any_128x64", 128, 64, 128, 3, 65),
    tile("conv_forward_any_128x32", 128, 32, 128, 5, 50),
];
const DX: [Tile; 4] = [
    tile("conv_dx_128x128", 128, 128, 256, 2, 85),
    tile("conv_dx_128x64", 128, 64, 128, 3, 80),
    tile("conv_dx_128x32", 128, 32, 128, 5, 70),
    tile("conv_dx_64x32", 64, 32, 128, 8, 55),
];
const DX_ANY: [Tile; 2] =
    [tile("conv_dx_any_128x64", 128, 64, 128, 3, 65), tile("conv_dx_any_128x32", 128, 32, 128, 5, 50)];
const DW: [Tile; 3] = [
    tile("conv_dw_128x128", 128, 128, 256, 2, 85),
    tile("conv_dw_128x64", 128, 64, 128, 3, 80),
    tile("conv_dw_32x64", 32, 64, 128, 8, 55),
];
const DW_ANY: [Tile; 2] =
    [tile("conv_dw_any_128x64", 128, 64, 128, 3, 60), tile("conv_dw_any_32x64", 32, 64, 128, 8, 45)];

/// Columns of A that a tile takes at a time: parts of a sum are multiples of it.
const STEP: u64 = 8;
/// Multiprocessors of the GPU that the choices are made for; others run them as well.
const PROCESSORS: u64 = 132;
/// The most numbers that parts of sums may take.
const SCRATCH: u64 = 16 << 20;

/// A matrix product, `times` over: of groups, and of classes of pixels.
#[derive(Clone, Copy)]
struct Product {
    rows: u64,
    columns: u64,
    depth: u64,
    groups: u64,
    classes: u64,
    /// Numbers of the output, all groups together: what one part takes.
    length: u64,
}

/// What a product runs on.
struct Choice {
    tile: Tile,
    blocks: u64,
    parts: u64,
    /// Terms of a part.
    part: u64,
}

impl Product {
    /// Estimated time in cycles of a multiprocessor, in 1/100: its share of the blocks, one multiply-add a cycle and lane at
    /// the rate that so many warps reach, and the passes of adding parts up.
    fn time(&self, tile: Tile, blocks: u64, parts: u64, part: u64) -> u64 {
        let share = (blocks * parts).div_ceil(PROCESSORS);
        // Warps hide each other's waiting: one on each of four schedulers reaches two thirds of what many do.
        let warps = 2 * share.min(tile.resident) * tile.threads / 128;
        let work = tile.rows * tile.columns * (part + 3 * STEP) / 128 * share;
        let multiply = work * 100 * (warps + 1) / warps * 100 / tile.rate;
        // Parts are written, read and added at some 8 bytes a cycle and multiprocessor; a launch takes some 4000 cycles.
        let add = if parts > 1 { self.length * (2 * parts + 1) * 4 / (8 * PROCESSORS) * 100 + 400_000 } else { 0 };
        multiply + add
    }

    fn choose(&self, tiles: &[Tile]) -> Choice {
        let mut best: Option<(u64, Choice)> = None;
        for &tile in tiles {
            let blocks = self.rows.div_ceil(tile.rows) * self.columns.div_ceil(tile.columns) * self.groups * self.classes;
            for wanted in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512] {
                let part = self.depth.div_ceil(wanted).next_multiple_of(STEP).max(STEP);
                let parts = self.depth.div_ceil(part).max(1);
                let fits = parts * self.length <= SCRATCH && part >= 8 * STEP && parts * self.groups <= 65535;
                if parts > 1 && !fits {
                    break;
                }
                let time = self.time(tile, blocks, parts, part);
                if best.as_ref().is_none_or(|(least, _)| time < *least) {
                    best = Some((time, Choice { tile, blocks: blocks / self.groups, parts, part }));
                }
            }
        }
        best.expect("there are tiles to choose from").1
    }
}

fn wide(n: i32) -> u64 {
    n.try_into().expect("sizes are not negative")
}

fn int(n: u64) -> Arg {
    Arg::Int(n.try_into().expect("tensors have less than 2^31 numbers"))
}

fn dimension(n: u64) -> u32 {
    n.try_into().expect("tensors have less than 2^31 numbers")
}

impl ConvShape {
    fn cin(&self) -> u64 {
        wide(self.c / self.groups)
    }

    fn cout(&self) -> u64 {
        wide(self.q / self.groups)
    }

    /// Whether channels of groups go in fours.
    fn quads(&self, aligned: bool) -> bool {
        aligned && self.cin().is_multiple_of(4) && self.cout().is_multiple_of(4)
    }

    fn classes(&self) -> (u64, u64) {
        (wide(self.sh.min(self.h)), wide(self.sw.min(self.w)))
    }

    /// The direct kernel for groups of which a product would have few columns: `[depthwise, groups in fours, any]`, numbers
    /// that a thread computes.
    fn direct(&self, columns: u64, aligned: bool, names: [&'static str; 3]) -> Option<(&'static str, u64)> {
        if self.groups == 1 || columns > 16 {
            None
        } else if self.cin() == 1 && self.cout() == 1 && self.c % 4 == 0 && aligned {
            Some((names[0], 4))
        } else if self.quads(aligned) {
            Some((names[1], 4))
        } else {
            Some((names[2], 1))
        }
    }
}

/// `out[i] = Σ parts[p, i] (+ bias) (+ out[i])`: `sum_parts(parts, bias, out, length, count, columns, add)`.
fn sum_parts(bias: Arg, out: Arg, length: u64, count: u64, columns: u64, add: bool) -> KernelLaunch {
    KernelLaunch {
        kernel: "sum_parts",
        grid: [dimension(length.div_ceil(256)), 1, 1],
        block: [256, 1, 1],
        shared: 0,
        args: vec![Arg::Scratch, bias, out, int(length), int(count), int(columns), Arg::Int(add.into())],
    }
}

/// y from x, weights and bias: `conv_forward_*(x, w, bias, y, shape, k_part)`,
/// `conv_forward_{depthwise,direct,direct_any}(x, w, bias, y, shape)`. `aligned`: x, w, y and the scratch buffer lie at
/// multiples of 16 bytes.
pub fn forward(s: &ConvShape, aligned: bool) -> Launches {
    let rows = wide(s.n) * wide(s.oh) * wide(s.ow);
    let names = ["conv_forward_depthwise", "conv_forward_direct", "conv_forward_direct_any"];
    if let Some((kernel, numbers)) = s.direct(s.cout(), aligned, names) {
        let threads = wide(s.q) / numbers * rows.div_ceil(4);
        let (grid, block) = ([dimension(threads.div_ceil(128)), 1, 1], [128, 1, 1]);
        let args = vec![Arg::X, Arg::W, Arg::Bias, Arg::Y, Arg::Shape];
        return Launches { launches: vec![KernelLaunch { kernel, grid, block, shared: 0, args }], scratch: 0 };
    }
    let product = Product {
        rows,
        columns: s.cout(),
        depth: wide(s.kh) * wide(s.kw) * s.cin(),
        groups: wide(s.groups),
        classes: 1,
        length: rows * wide(s.q),
    };
    let choice = product.choose(if s.quads(aligned) { &FORWARD } else { &FORWARD_ANY });
    let whole = choice.parts == 1;
    let to = if whole { [Arg::Bias, Arg::Y] } else { [Arg::Null, Arg::Scratch] };
    let args = vec![Arg::X, Arg::W, to[0], to[1], Arg::Shape, int(choice.part)];
    product.launches(&choice, args, Arg::Bias, Arg::Y, wide(s.q), false)
}

/// dx from dy and weights: `conv_dx_*(dy, w, dx, shape, k_part, add)`, `conv_dx_{depthwise,direct,direct_any}(dy, w, dx, shape,
/// add)`. `aligned`: dy, w, dx and the scratch buffer lie at multiples of 16 bytes. `add`: to what dx holds.
pub fn input_gradient(s: &ConvShape, aligned: bool, add: bool) -> Launches {
    let (down, across) = s.classes();
    let rows = wide(s.n) * wide(s.h).div_ceil(wide(s.sh)) * wide(s.w).div_ceil(wide(s.sw));
    let names = ["conv_dx_depthwise", "conv_dx_direct", "conv_dx_direct_any"];
    if let Some((kernel, numbers)) = s.direct(s.cin(), aligned, names) {
        let threads = wide(s.c) / numbers * rows.div_ceil(4);
        let (grid, block) = ([dimension(threads.div_ceil(128)), dimension(down * across), 1], [128, 1, 1]);
        let args = vec![Arg::Dy, Arg::W, Arg::Dx, Arg::Shape, Arg::Int(add.into())];
        return Launches { launches: vec![KernelLaunch { kernel, grid, block, shared: 0, args }], scratch: 0 };
    }
    let product = Product {
        rows,
        columns: s.cin(),
        // Cells of a class with the most.
        depth: wide(s.kh).div_ceil(period(s.sh, s.dh)) * wide(s.kw).div_ceil(period(s.sw, s.dw)) * s.cout(),
        groups: wide(s.groups),
        classes: down * across,
        length: wide(s.n) * wide(s.h) * wide(s.w) * wide(s.c),
    };
    let choice = product.choose(if s.quads(aligned) { &DX } else { &DX_ANY });
    let whole = choice.parts == 1;
    let to = if whole { Arg::Dx } else { Arg::Scratch };
    let args = vec![Arg::Dy, Arg::W, to, Arg::Shape, int(choice.part), Arg::Int((whole && add).into())];
    product.launches(&choice, args, Arg::Null, Arg::Dx, 1, add)
}

/// Cells from one that reaches a pixel to the next one that does.
fn period(stride: i32, dilation: i32) -> u64 {
    (1..).find(|&k| k * wide(dilation) % wide(stride) == 0).expect("the stride itself at the latest")
}

/// dw from x and dy: `conv_dw_*(x, dy, dw, shape, p_part, add)`. `aligned`: x, dy, dw and the scratch buffer lie at multiples
/// of 16 bytes. `add`: to what dw holds.
pub fn weight_gradient(s: &ConvShape, aligned: bool, add: bool) -> Launches {
    let pixels = wide(s.n) * wide(s.oh) * wide(s.ow);
    let cells = wide(s.kh) * wide(s.kw);
    let length = cells * s.cin() * wide(s.q);
    let args = |parts: u64, part: u64| {
        let to = if parts == 1 { Arg::Dw } else { Arg::Scratch };
        vec![Arg::X, Arg::Dy, to, Arg::Shape, int(part), Arg::Int((parts == 1 && add).into())]
    };
    let names = ["conv_dw_depthwise", "conv_dw_direct", "conv_dw_direct_any"];
    if let Some((kernel, numbers)) = s.direct(s.cout(), aligned, names) {
        let (inputs, at_once) = if kernel == "conv_dw_direct" { (4, 3) } else { (1, 9) };
        let pairs = s.cin() / inputs * (wide(s.q) / numbers);
        let blocks = pairs.div_ceil(32) * cells.div_ceil(at_once);
        // Several blocks for each multiprocessor, but at least 64 pixels in each of a block's sequences.
        let wanted = (8 * PROCESSORS).div_ceil(blocks).min(pixels.div_ceil(512)).min(SCRATCH / length).clamp(1, 4096);
        let part = pixels.div_ceil(wanted);
        let parts = pixels.div_ceil(part);
        let grid = [dimension(pairs.div_ceil(32)), dimension(cells.div_ceil(at_once)), dimension(parts)];
        let launch = KernelLaunch { kernel, grid, block: [32, 8, 1], shared: 0, args: args(parts, part) };
        if parts == 1 {
            return Launches { launches: vec![launch], scratch: 0 };
        }
        let sum = sum_parts(Arg::Null, Arg::Dw, length, parts, 1, add);
        return Launches { launches: vec![launch, sum], scratch: size(parts * length) };
    }
    let product = Product {
        rows: cells * s.cin(),
        columns: s.cout(),
        depth: pixels,
        groups: wide(s.groups),
        classes: 1,
        length,
    };
    let choice = product.choose(if s.quads(aligned) { &DW } else { &DW_ANY });
    product.launches(&choice, args(choice.parts, choice.part), Arg::Null, Arg::Dw, 1, add)
}

fn size(n: u64) -> usize {
    n.try_into().expect("scratch is bounded")
}

impl Product {
    fn launches(&self, choice: &Choice, args: Vec<Arg>, bias: Arg, out: Arg, columns: u64, add: bool) -> Launches {
        let Choice { tile, blocks, parts, .. } = *choice;
        let grid = [dimension(blocks), 1, dimension(self.groups * parts)];
        let block = [dimension(tile.threads), 1, 1];
        let launch = KernelLaunch { kernel: tile.kernel, grid, block, shared: 0, args };
        if parts == 1 {
            return Launches { launches: vec![launch], scratch: 0 };
        }
        let sum = sum_parts(bias, out, self.length, parts, columns, add);
        Launches { launches: vec![launch, sum], scratch: size(parts * self.length) }
    }
}

/// db, or any sums of columns: `column_sums(x, out, rows, columns, rows_part, add)` of dy as `[rows, columns]`.
pub fn column_sums(rows: u64, columns: u64, add: bool) -> Launches {
    let across = columns.next_power_of_two().min(32);
    let down = 256 / across;
    // Some eight rows for each thread, blocks for all multiprocessors, and no more parts than one thread adds up quickly.
    let wanted = rows.div_ceil(8 * down).min((4 * PROCESSORS).div_ceil(columns.div_ceil(across))).clamp(1, 256);
    let part = rows.div_ceil(wanted).max(1);
    let parts = rows.div_ceil(part).max(1);
    let to = if parts == 1 { Arg::Db } else { Arg::Scratch };
    let launch = KernelLaunch {
        kernel: "column_sums",
        grid: [dimension(columns.div_ceil(across)), dimension(parts), 1],
        block: [dimension(across), dimension(down), 1],
        shared: 0,
        args: vec![Arg::Dy, to, int(rows), int(columns), int(part), Arg::Int((parts == 1 && add).into())],
    };
    if parts == 1 {
        return Launches { launches: vec![launch], scratch: 0 };
    }
    let sum = sum_parts(Arg::Null, Arg::Db, columns, parts, 1, add);
    Launches { launches: vec![launch, sum], scratch: size(parts * columns) }
}
