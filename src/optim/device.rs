//! Optimizers on a GPU: kernels of `cuda/optim.cu`, which do what the loops here do, in the same order, on the same numbers.

use crate::backend::Real;
use crate::backend::cuda::{Buffer, DeviceCopy, Gpu, Launch, Ptr, blocks, int, kernels};
use crate::{Error, ErrorKind, Result};

use super::ParamTable;

kernels! { "optim":
    /// SGD without momentum.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_sgd(p: Ptr, g: Ptr, pieces: Ptr, rates: Ptr);
    /// SGD with momentum.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_sgd_momentum(p: Ptr, a: Ptr, g: Ptr, pieces: Ptr, rates: Ptr, mu: f32, nesterov: i32);
    /// Adam and its family; `kind`: 0 m/d, 1 m, 2 with softplus(beta·d)/beta in the place of d.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_adam(p: Ptr, m: Ptr, v: Ptr, g: Ptr, pieces: Ptr, steps: Ptr, averages: Averages, kind: i32, beta: f32);
    /// RMSProp without momentum.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_rmsprop(p: Ptr, v: Ptr, g: Ptr, pieces: Ptr, rates: Ptr, keep: f32, take: f32, eps: f32);
    /// RMSProp with momentum.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_rmsprop_momentum(p: Ptr, v: Ptr, a: Ptr, g: Ptr, pieces: Ptr, rates: Ptr, keep: f32, take: f32, eps: f32, mu: f32, divide_first: i32);
    /// LAMB's first pass: moments, decay, and the squares of each piece.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_lamb_moments(p: Ptr, m: Ptr, v: Ptr, g: Ptr, pieces: Ptr, steps: Ptr, averages: Averages, debias1: f32, squares: Ptr);
    /// LAMB's rate of each piece.
    /// Grid ⌈count/8⌉; block 256.
    pub(super) fn optim_lamb_rates(squares: Ptr, places: Ptr, count: i32, lr: Ptr, rates: Ptr);
    /// LAMB's last pass.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_lamb_step(p: Ptr, m: Ptr, v: Ptr, pieces: Ptr, rates: Ptr, averages: Averages, debias1: f32);
    /// Muon's first pass over its matrices: moments, directions, and the squares of each piece of these.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_muon_moments(m: Ptr, direction: Ptr, g: Ptr, pieces: Ptr, keep: f32, take: f32, nesterov: i32, squares: Ptr);
    /// What each matrix's direction is multiplied with, so that its norm is 1.
    /// Grid ⌈count/8⌉; block 256.
    pub(super) fn optim_muon_factors(squares: Ptr, places: Ptr, count: i32, factors: Ptr);
    /// x = factors\[which\]·direction.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    pub(super) fn optim_muon_start(direction: Ptr, factors: Ptr, which: i32, x: Ptr, n: i32);
    /// y ← of_x·x + of_y·y.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    pub(super) fn optim_muon_blend(x: Ptr, y: Ptr, n: i32, of_x: f32, of_y: f32);
    /// p ← p − (factor·x + shrink·p), direction ← x.
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    pub(super) fn optim_muon_step(p: Ptr, direction: Ptr, x: Ptr, n: i32, factor: f32, shrink: f32);
    /// slow ← slow + α·(fast − slow), fast ← slow.
    /// Grid: a block for each piece; block 256.
    pub(super) fn optim_lookahead(fast: Ptr, slow: Ptr, pieces: Ptr, alpha: f32);
    /// average ← average + take·(value − average).
    /// Grid ⌈n/1024⌉, at most 65535; block 256.
    pub(super) fn optim_ema(averages: Ptr, values: Ptr, n: i32, take: f32);
    /// Σ g² of each piece.
    /// Grid: a block for each piece; block 256.
    fn optim_squares(g: Ptr, pieces: Ptr, squares: Ptr);
    /// The norm of the whole gradient, and what it is to be multiplied with.
    /// Grid 1; block 256.
    fn optim_clip_factor(squares: Ptr, count: i32, max_norm: f64, norm: Ptr, factor: Ptr);
    /// g ← factor·g.
    /// Grid: a block for each piece; block 256.
    fn optim_clip(g: Ptr, pieces: Ptr, factor: Ptr);
}

/// β₁, 1 − β₁, β₂, 1 − β₂, 1/√(1 − β₂ᵗ), and what is added to the root.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Averages {
    pub keep1: f32,
    pub take1: f32,
    pub keep2: f32,
    pub take2: f32,
    pub debias: f32,
    pub eps: f32,
}

/// Elements of a piece on a device: many, so that every multiprocessor has some.
const PIECE: usize = 4096;

/// Where the parameters and their gradients lie on a device.
#[derive(Clone, Copy)]
pub struct OnDevice {
    /// The device.
    pub gpu: &'static Gpu,
    /// Parameters, in the order of the host's.
    pub values: Ptr,
    /// Their gradients.
    pub grads: Ptr,
}

/// A run of elements of one parameter, and its group.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Piece {
    offset: i32,
    len: i32,
    group: i32,
}

// SAFETY: three plain numbers.
unsafe impl DeviceCopy for Piece {}

/// A parameter: its pieces and its group.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Place {
    first: i32,
    count: i32,
    group: i32,
}

// SAFETY: three plain numbers.
unsafe impl DeviceCopy for Place {}

/// The pieces of a table, or of a whole buffer, on a device.
pub(super) struct Pieces {
    pieces: Buffer<Piece>,
    count: usize,
    places: Buffer<Place>,
    place_count: usize,
}

impl Pieces {
    /// Those of the parameters that a step moves.
    pub fn of(gpu: &'static Gpu, table: &ParamTable) -> Result<Self> {
        Pieces::some(gpu, table, |_| true)
    }

    /// Those of them whose place in the table is wanted.
    pub fn some(gpu: &'static Gpu, table: &ParamTable, wanted: impl Fn(usize) -> bool) -> Result<Self> {
        let moved = table.places().iter().enumerate().filter(|(i, place)| !place.pieces.is_empty() && wanted(*i));
        Pieces::cut(gpu, moved.map(|(_, place)| (place.offset, place.len, place.group)))
    }

    /// All of a buffer.
    pub fn whole(gpu: &'static Gpu, len: usize) -> Result<Self> {
        Pieces::cut(gpu, [(0, len, 0)].into_iter())
    }

    fn cut(gpu: &'static Gpu, parts: impl Iterator<Item = (usize, usize, usize)>) -> Result<Self> {
        let (mut pieces, mut places) = (Vec::new(), Vec::new());
        for (offset, len, group) in parts {
            let first = pieces.len();
            pieces.extend((0..len).step_by(PIECE).map(|at| Piece {
                offset: int(offset + at),
                len: int(PIECE.min(len - at)),
                group: int(group),
            }));
            places.push(Place { first: int(first), count: int(pieces.len() - first), group: int(group) });
        }
        Ok(Pieces {
            count: pieces.len(),
            place_count: places.len(),
            pieces: Buffer::of(gpu, &pieces)?,
            places: Buffer::of(gpu, &places)?,
        })
    }

    /// A block for each; none where there are no pieces.
    pub fn launch(&self) -> Option<Launch> {
        (self.count > 0).then(|| Launch::line(blocks(self.count, 1, u32::MAX), 256))
    }

    pub fn ptr(&self) -> Ptr {
        self.pieces.ptr()
    }

    /// How many pieces.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The parameters that they are cut from, how many there are, and a warp for each.
    pub fn places(&self) -> (Ptr, i32, Launch) {
        (self.places.ptr(), int(self.place_count), Launch::line(blocks(self.place_count, 8, u32::MAX), 256))
    }
}

/// What a device keeps beside the host: nothing before the first step there. A copy has nothing of it, and is one of what the
/// host has ([`super::Optimizer::fetch`] brings that up to date).
pub(super) struct There<T>(Option<T>);

impl<T> There<T> {
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// What is there, made at first.
    pub fn or_make(&mut self, make: impl FnOnce() -> Result<T>) -> Result<&mut T> {
        let kept = match self.0.take() {
            Some(kept) => kept,
            None => make()?,
        };
        Ok(self.0.insert(kept))
    }

    /// Forgets it: what the host has counts.
    pub fn leave(&mut self) {
        self.0 = None;
    }
}

impl<T> Default for There<T> {
    fn default() -> Self {
        There(None)
    }
}

impl<T> Clone for There<T> {
    fn clone(&self) -> Self {
        There(None)
    }
}

impl<T> std::fmt::Debug for There<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "on a device" } else { "on the host" })
    }
}

/// What an optimizer keeps on a device.
pub(super) struct Kept {
    gpu: &'static Gpu,
    pub pieces: Pieces,
    pub moments: Vec<Buffer>,
    /// Each group's coefficients, three numbers each, new for every step.
    coefficients: Buffer,
    clip: There<Clip>,
}

/// Working memory of clipping.
struct Clip {
    squares: Buffer<f64>,
    norm: Buffer<f64>,
    factor: Buffer,
}

impl Kept {
    pub fn new<E: Real>(gpu: &'static Gpu, table: &ParamTable, moments: &[Vec<E>]) -> Result<Self> {
        Ok(Kept {
            gpu,
            pieces: Pieces::of(gpu, table)?,
            moments: moments.iter().map(|moment| upload(gpu, moment)).collect::<Result<_>>()?,
            coefficients: Buffer::new(gpu, 3 * table.groups(0.0).count())?,
            clip: There::default(),
        })
    }

    /// The address of the coefficients of this step.
    pub fn coefficients(&mut self, of_groups: impl Iterator<Item = [f32; 3]>) -> Result<Ptr> {
        let values: Vec<f32> = of_groups.flatten().collect();
        self.coefficients.upload(0, &values)?;
        Ok(self.coefficients.ptr())
    }

    /// [`super::clip_grad_norm`], without the norm, which nobody reads.
    pub fn clip(&mut self, grads: Ptr, max_norm: f64) -> Result<()> {
        if !(max_norm.is_finite() && max_norm > 0.0) {
            return Err(Error::new(ErrorKind::Usage, "clip_norm", max_norm).expected("a finite number above 0"));
        }
        let Some(launch) = self.pieces.launch() else { return Ok(()) };
        let (gpu, count) = (self.gpu, self.pieces.count());
        let Clip { squares, norm, factor } = self.clip.or_make(|| {
            Ok(Clip { squares: Buffer::new(gpu, count)?, norm: Buffer::new(gpu, 1)?, factor: Buffer::new(gpu, 1)? })
        })?;
        optim_squares(gpu, launch, grads, self.pieces.ptr(), squares.ptr())?;
        optim_clip_factor(gpu, Launch::line(1, 256), squares.ptr(), int(count), max_norm, norm.ptr(), factor.ptr())?;
        optim_clip(gpu, launch, grads, self.pieces.ptr(), factor.ptr())
    }
}

/// A buffer of the host on the device, in f32.
pub(super) fn upload<E: Real>(gpu: &'static Gpu, values: &[E]) -> Result<Buffer> {
    let values: Vec<f32> = values.iter().map(|value| value.wide() as f32).collect();
    Buffer::of(gpu, &values)
}

/// And back.
pub(super) fn download<E: Real>(from: &Buffer, values: &mut [E]) -> Result<()> {
    let mut narrow = vec![0.0; values.len()];
    from.download(0, &mut narrow)?;
    values.iter_mut().zip(narrow).for_each(|(value, narrow)| *value = E::of(f64::from(narrow)));
    Ok(())
}

/// The launch of a kernel over all of a buffer.
pub(super) fn over_all(len: usize) -> Launch {
    Launch::line(blocks(len, 1024, 65535), 256)
}
