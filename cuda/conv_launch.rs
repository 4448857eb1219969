//! Which kernels a convolution launches, from its shape alone: the same bits on every machine.
//!
//! A kernel's arguments are listed in each launch in the order in which the kernel takes them; the kernels' mathematics
//! is in `conv.cu`, `conv_backward.cu`, `conv_direct.cu` and `sums.cu`. Sums that are cut into parts go to a scratch
//! buffer, and a second launch adds the parts up.

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

/// A kernel that multiplies tiles: rows and columns of a block's tile, threads, blocks that fit into a multiprocessor,
/// and the part of the multiprocessor's rate that a full load of them reaches, in percent.
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
    tile("conv_forward_128x128", 128, 128, 256, 2, 80),
    tile("conv_forward_128x64", 128, 64, 128, 4, 78),
    tile("conv_forward_128x32", 128, 32, 128, 4, 68),
    tile("conv_forward_64x32", 64, 32, 128, 6, 50),
];
const FORWARD_ANY: [Tile; 2] =
    [tile("conv_forward_any_128x64", 128, 64, 128, 3, 70), tile("conv_forward_any_128x32", 128, 32, 128, 4, 55)];
const DX: [Tile; 4] = [
    tile("conv_dx_128x128", 128, 128, 256, 2, 80),
    tile("conv_dx_128x64", 128, 64, 128, 4, 78),
    tile("conv_dx_128x32", 128, 32, 128, 4, 68),
    tile("conv_dx_64x32", 64, 32, 128, 6, 50),
];
const DX_ANY: [Tile; 1] = [tile("conv_dx_any_128x32", 128, 32, 128, 4, 55)];
const DW: [Tile; 3] = [
    tile("conv_dw_128x128", 128, 128, 256, 2, 82),
    tile("conv_dw_128x64", 128, 64, 128, 4, 80),
    tile("conv_dw_32x64", 32, 64, 128, 8, 50),
];
const DW_ANY: [Tile; 1] = [tile("conv_dw_any_32x64", 32, 64, 128, 8, 45)];

/// Parts of a sum are multiples of it: the most terms that a tile takes at a time.
const STEP: u64 = 16;
/// Multiprocessors of the GPU that the choices are made for; others run them as well.
const PROCESSORS: u64 = 132;
/// The most numbers that parts of sums may take.
const SCRATCH: u64 = 16 << 20;
/// Windows that a thread of a direct kernel computes.
const WINDOWS: u64 = 4;

/// Matrix products of one size: as many as there are groups, times classes of pixels.
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

/// What a product runs on: a tile, and sums cut into parts of `part` terms.
#[derive(Clone, Copy)]
struct Choice {
    tile: Tile,
    parts: u64,
    part: u64,
}

impl Product {
    fn blocks(&self, tile: Tile) -> u64 {
        self.rows.div_ceil(tile.rows) * self.columns.div_ceil(tile.columns) * self.classes
    }

    /// The choice of some `parts`, where they are neither too many nor too large.
    fn cut(&self, tile: Tile, parts: u64) -> Option<Choice> {
        let part = self.depth.div_ceil(parts).next_multiple_of(STEP).max(STEP);
        let parts = self.depth.div_ceil(part).max(1);
        let fits = parts == 1 || parts * self.length <= SCRATCH && parts * self.groups <= 65535;
        fits.then_some(Choice { tile, parts, part })
    }

    /// Estimated time in cycles, in 1/100: a multiprocessor's share of the blocks, one multiply-add a cycle and lane at
    /// the rate that so many warps reach, and the passes of adding parts up.
    fn time(&self, choice: Choice) -> u64 {
        let Choice { tile, parts, part } = choice;
        let share = (self.blocks(tile) * self.groups * parts).div_ceil(PROCESSORS);
        // Warps hide each other's waiting: one on each of four schedulers reaches two thirds of what many do.
        let warps = 2 * share.min(tile.resident) * tile.threads / 128;
        let work = tile.rows * tile.columns * (part.min(self.depth) + 2 * STEP) / 128 * share;
        let multiply = work * 100 * (warps + 1) / warps * 100 / tile.rate;
        // Parts are written, read and added at some 8 bytes a cycle and multiprocessor; a launch takes some 4000
        // cycles.
        let add = if parts > 1 { self.length * (2 * parts + 1) * 4 / (8 * PROCESSORS) * 100 + 400_000 } else { 0 };
        multiply + add
    }

    fn choose(&self, tiles: &[Tile]) -> Choice {
        const PARTS: [u64; 18] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
        let choices = tiles.iter().flat_map(|&tile| PARTS.iter().filter_map(move |&parts| self.cut(tile, parts)));
        let worth = choices.filter(|c| c.parts == 1 || c.part >= 4 * STEP);
        worth.min_by_key(|&choice| self.time(choice)).expect("one part is always possible")
    }

    /// Every tile, with the sum in one part and in three: for tests.
    fn all(&self, tiles: &[Tile]) -> Vec<Choice> {
        tiles.iter().flat_map(|&tile| [1, 3].map(|parts| self.cut(tile, parts))).flatten().collect()
    }

    /// `args` of the tiles' kernel; what the parts' sum takes: a bias, the output, and its columns.
    fn launches(&self, choice: Choice, args: Vec<Arg>, bias: Arg, out: Arg, columns: u64, add: bool) -> Launches {
        let Choice { tile, parts, .. } = choice;
        let grid = [dimension(self.blocks(tile)), 1, dimension(self.groups * parts)];
        let launch =
            KernelLaunch { kernel: tile.kernel, grid, block: [dimension(tile.threads), 1, 1], shared: 0, args };
        with_parts(launch, sum_parts(bias, out, self.length, parts, columns, add), parts, self.length)
    }
}

/// A launch, and the sum of its parts where there are several.
fn with_parts(launch: KernelLaunch, sum: KernelLaunch, parts: u64, length: u64) -> Launches {
    if parts == 1 {
        return Launches { launches: vec![launch], scratch: 0 };
    }
    let scratch = (parts * length).try_into().expect("scratch is bounded");
    Launches { launches: vec![launch, sum], scratch }
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

    /// The direct kernel for groups of which a product would have as few `columns` as this.
    fn wants_direct(&self, columns: u64) -> bool {
        self.groups > 1 && columns <= 16
    }

    /// The kernel among `[depthwise, groups in fours, any]`, and the channels that its threads have at a time.
    fn direct(&self, aligned: bool, names: [&'static str; 3]) -> (&'static str, u64) {
        if self.cin() == 1 && self.cout() == 1 && self.c % 4 == 0 && aligned {
            (names[0], 4)
        } else if self.quads(aligned) {
            (names[1], 4)
        } else {
            (names[2], 1)
        }
    }

    fn pixels(&self) -> u64 {
        wide(self.n) * wide(self.oh) * wide(self.ow)
    }

    fn forward_product(&self) -> Product {
        let rows = self.pixels();
        let depth = wide(self.kh) * wide(self.kw) * self.cin();
        let length = rows * wide(self.q);
        Product { rows, columns: self.cout(), depth, groups: wide(self.groups), classes: 1, length }
    }

    /// Rows of a class with the most pixels, columns of A of one with the most cells.
    fn dx_product(&self) -> Product {
        let (down, across) = self.classes();
        let rows = wide(self.n) * wide(self.h).div_ceil(wide(self.sh)) * wide(self.w).div_ceil(wide(self.sw));
        let cells = |kernel: i32, stride: i32, dilation: i32| wide(kernel).div_ceil(period(stride, dilation));
        let depth = cells(self.kh, self.sh, self.dh) * cells(self.kw, self.sw, self.dw) * self.cout();
        let length = wide(self.n) * wide(self.h) * wide(self.w) * wide(self.c);
        Product { rows, columns: self.cin(), depth, groups: wide(self.groups), classes: down * across, length }
    }

    fn dw_product(&self) -> Product {
        let rows = wide(self.kh) * wide(self.kw) * self.cin();
        let (depth, length) = (self.pixels(), rows * wide(self.q));
        Product { rows, columns: self.cout(), depth, groups: wide(self.groups), classes: 1, length }
    }
}

/// Cells from one that reaches a pixel to the next one that does.
fn period(stride: i32, dilation: i32) -> u64 {
    (1..).find(|&k| k * wide(dilation) % wide(stride) == 0).expect("the stride itself at the latest")
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
    if s.wants_direct(s.cout()) {
        return forward_direct(s, aligned);
    }
    forward_tiled(s, s.forward_product().choose(forward_tiles(s, aligned)))
}

/// Every way to compute y, for tests.
pub fn forward_ways(s: &ConvShape, aligned: bool) -> Vec<Launches> {
    let choices = s.forward_product().all(forward_tiles(s, aligned));
    let tiled = choices.into_iter().map(|choice| forward_tiled(s, choice));
    tiled.chain([forward_direct(s, aligned)]).collect()
}

fn forward_tiles(s: &ConvShape, aligned: bool) -> &'static [Tile] {
    if s.quads(aligned) { &FORWARD } else { &FORWARD_ANY }
}

fn forward_tiled(s: &ConvShape, choice: Choice) -> Launches {
    let to = if choice.parts == 1 { [Arg::Bias, Arg::Y] } else { [Arg::Null, Arg::Scratch] };
    let args = vec![Arg::X, Arg::W, to[0], to[1], Arg::Shape, int(choice.part)];
    s.forward_product().launches(choice, args, Arg::Bias, Arg::Y, wide(s.q), false)
}

fn forward_direct(s: &ConvShape, aligned: bool) -> Launches {
    let names = ["conv_forward_depthwise", "conv_forward_direct", "conv_forward_direct_any"];
    let (kernel, numbers) = s.direct(aligned, names);
    let threads = wide(s.q) / numbers * s.pixels().div_ceil(WINDOWS);
    let (grid, block) = ([dimension(threads.div_ceil(128)), 1, 1], [128, 1, 1]);
    let args = vec![Arg::X, Arg::W, Arg::Bias, Arg::Y, Arg::Shape];
    Launches { launches: vec![KernelLaunch { kernel, grid, block, shared: 0, args }], scratch: 0 }
}

/// dx from dy and weights: `conv_dx_*(dy, w, dx, shape, k_part, add)`, `conv_dx_{depthwise,direct,direct_any}(dy, w,
/// dx, shape, add)`. `aligned`: dy, w, dx and the scratch buffer lie at multiples of 16 bytes. `add`: to what dx holds.
pub fn input_gradient(s: &ConvShape, aligned: bool, add: bool) -> Launches {
    if s.wants_direct(s.cin()) {
        return dx_direct(s, aligned, add);
    }
    dx_tiled(s, s.dx_product().choose(dx_tiles(s, aligned)), add)
}

/// Every way to compute dx, for tests.
pub fn input_gradient_ways(s: &ConvShape, aligned: bool, add: bool) -> Vec<Launches> {
    let choices = s.dx_product().all(dx_tiles(s, aligned));
    let tiled = choices.into_iter().map(|choice| dx_tiled(s, choice, add));
    tiled.chain([dx_direct(s, aligned, add)]).collect()
}

fn dx_tiles(s: &ConvShape, aligned: bool) -> &'static [Tile] {
    if s.quads(aligned) { &DX } else { &DX_ANY }
}

fn dx_tiled(s: &ConvShape, choice: Choice, add: bool) -> Launches {
    let whole = choice.parts == 1;
    let to = if whole { Arg::Dx } else { Arg::Scratch };
    let args = vec![Arg::Dy, Arg::W, to, Arg::Shape, int(choice.part), Arg::Int((whole && add).into())];
    s.dx_product().launches(choice, args, Arg::Null, Arg::Dx, 1, add)
}

fn dx_direct(s: &ConvShape, aligned: bool, add: bool) -> Launches {
    let (kernel, numbers) = s.direct(aligned, ["conv_dx_depthwise", "conv_dx_direct", "conv_dx_direct_any"]);
    let Product { rows, classes, .. } = s.dx_product();
    let threads = wide(s.c) / numbers * rows.div_ceil(WINDOWS);
    let (grid, block) = ([dimension(threads.div_ceil(128) * classes), 1, 1], [128, 1, 1]);
    let args = vec![Arg::Dy, Arg::W, Arg::Dx, Arg::Shape, Arg::Int(add.into())];
    Launches { launches: vec![KernelLaunch { kernel, grid, block, shared: 0, args }], scratch: 0 }
}

/// dw from x and dy: `conv_dw_*(x, dy, dw, shape, p_part, add)`. `aligned`: x, dy, dw and the scratch buffer lie at
/// multiples of 16 bytes. `add`: to what dw holds.
pub fn weight_gradient(s: &ConvShape, aligned: bool, add: bool) -> Launches {
    if s.wants_direct(s.cout()) {
        return dw_direct(s, aligned, add);
    }
    dw_tiled(s, s.dw_product().choose(dw_tiles(s, aligned)), add)
}

/// Every way to compute dw, for tests.
pub fn weight_gradient_ways(s: &ConvShape, aligned: bool, add: bool) -> Vec<Launches> {
    let choices = s.dw_product().all(dw_tiles(s, aligned));
    let tiled = choices.into_iter().map(|choice| dw_tiled(s, choice, add));
    tiled.chain([dw_direct(s, aligned, add)]).collect()
}

fn dw_tiles(s: &ConvShape, aligned: bool) -> &'static [Tile] {
    if s.quads(aligned) { &DW } else { &DW_ANY }
}

fn dw_args(parts: u64, part: u64, add: bool) -> Vec<Arg> {
    let to = if parts == 1 { Arg::Dw } else { Arg::Scratch };
    vec![Arg::X, Arg::Dy, to, Arg::Shape, int(part), Arg::Int((parts == 1 && add).into())]
}

fn dw_tiled(s: &ConvShape, choice: Choice, add: bool) -> Launches {
    let args = dw_args(choice.parts, choice.part, add);
    s.dw_product().launches(choice, args, Arg::Null, Arg::Dw, 1, add)
}

fn dw_direct(s: &ConvShape, aligned: bool, add: bool) -> Launches {
    let (kernel, numbers) = s.direct(aligned, ["conv_dw_depthwise", "conv_dw_direct", "conv_dw_direct_any"]);
    let (inputs, cells_at_once) = if kernel == "conv_dw_direct" { (4, 3) } else { (1, 9) };
    let Product { depth: pixels, length, .. } = s.dw_product();
    let pairs = s.cin() / inputs * (wide(s.q) / numbers);
    let (across, down) = (pairs.div_ceil(32), (wide(s.kh) * wide(s.kw)).div_ceil(cells_at_once));
    // Eight blocks for each multiprocessor, but 16 pixels or more for each of a block's eight sequences.
    let wanted = (8 * PROCESSORS).div_ceil(across * down).min(pixels.div_ceil(128)).min(SCRATCH / length).max(1);
    let part = pixels.div_ceil(wanted);
    let parts = pixels.div_ceil(part);
    let grid = [dimension(across), dimension(down), dimension(parts)];
    let args = dw_args(parts, part, add);
    let launch = KernelLaunch { kernel, grid, block: [32, 8, 1], shared: 0, args };
    with_parts(launch, sum_parts(Arg::Null, Arg::Dw, length, parts, 1, add), parts, length)
}

/// db, or any sums of columns: `column_sums(x, out, rows, columns, rows_part, add)` of dy as `[rows, columns]`.
pub fn column_sums(rows: u64, columns: u64, add: bool) -> Launches {
    let across = columns.next_power_of_two().min(32);
    let down = 256 / across;
    // Eight rows or more for each thread, four blocks for each multiprocessor, and no more parts than one thread adds
    // up quickly.
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
    with_parts(launch, sum_parts(Arg::Null, Arg::Db, columns, parts, 1, add), parts, columns)
}
