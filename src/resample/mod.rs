//! Images at another size.
//!
//! The filter is a triangle over the source's footprint, as Pillow's antialiased bilinear one: output position o of an
//! axis lies at the source position (o + ½)·scale − ½; a source pixel at distance d from it weighs
//! max(0, 1 − |d|/max(scale, 1)), and weights are divided by their sum, so that an edge repeats nothing.
//!
//! A [`Frame`] says which part of an image becomes which part of the output; [`Framing`] is the choice of one for an
//! image of any size; a [`Resampler`] draws it.

mod axis;
mod framing;
mod kernel;

use ndarray::{ArrayView3, ArrayViewMut3};

pub use framing::Framing;

use crate::backend::cpu::simd::Level;
use crate::{Error, ErrorKind, Result};
use axis::Axis;

/// The longest side of an image, in pixels.
pub const MAX_SIDE: usize = 65_535;

/// A part of an image, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Rows above it.
    pub top: usize,
    /// Columns left of it.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Rect {
    /// All of an image of `height`×`width` pixels.
    pub const fn whole((height, width): (usize, usize)) -> Rect {
        Rect { top: 0, left: 0, height, width }
    }

    /// Whether it has pixels, all of them inside an image of this size.
    fn is_inside(&self, (height, width): (usize, usize)) -> bool {
        let fits = |start: usize, len: usize, all: usize| len > 0 && len <= all && start <= all - len;
        fits(self.top, self.height, height) && fits(self.left, self.width, width)
    }
}

/// Which part of an image becomes which part of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The part of the source that is resampled; pixels outside of it have no influence.
    pub crop: Rect,
    /// Height and width that the crop is brought to.
    pub to: (usize, usize),
    /// The part of that which is computed: the output.
    pub window: Rect,
    /// Mirror the output left to right.
    pub flip: bool,
}

impl Frame {
    /// `crop` at the size `to`, all of it.
    pub const fn of(crop: Rect, to: (usize, usize)) -> Frame {
        Frame { crop, to, window: Rect::whole(to), flip: false }
    }

    /// Height and width of the output.
    pub const fn size(&self) -> (usize, usize) {
        (self.window.height, self.window.width)
    }

    fn check(&self, height: usize, width: usize, channels: usize) -> Result<()> {
        let sides = [height, width, self.window.height, self.window.width];
        let fits = self.crop.is_inside((height, width)) && self.window.is_inside(self.to);
        // A scaled axis may be longer than an image, but its positions must stay exact in f64 and small in u64.
        let scaled = self.to.0.max(self.to.1) as u64 <= MAX_SIDE as u64 * MAX_SIDE as u64;
        if channels == 3 && fits && scaled && sides.iter().all(|side| (1..=MAX_SIDE).contains(side)) {
            return Ok(());
        }
        let found = format!("[{height}, {width}, {channels}] by {self:?}");
        let e = Error::new(ErrorKind::Shape, "image", found);
        Err(e.expected(format!("[height, width, 3] with sides of 1 to {MAX_SIDE}, the crop and the window inside")))
    }
}

/// How resampled bytes become numbers, per channel: `byte·scale + shift`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tone {
    scale: [f32; 4],
    shift: [f32; 4],
}

impl Tone {
    /// 0 to 255, as they are.
    pub const BYTES: Tone = Tone { scale: [1.0; 4], shift: [0.0; 4] };

    /// `(byte/255 − mean)/std`, red, green, blue.
    pub fn normalised(mean: [f64; 3], std: [f64; 3]) -> Tone {
        // The fourth lane is written and then overwritten by the next pixel.
        let mut tone = Tone::BYTES;
        for c in 0..3 {
            tone.scale[c] = (1.0 / (255.0 * std[c])) as f32;
            tone.shift[c] = (-mean[c] / std[c]) as f32;
        }
        tone
    }
}

/// Draws frames of images; keeps the memory that it needs for that.
///
/// ```
/// use handgrad::resample::{Framing, Resampler, Tone};
/// use ndarray::Array3;
/// let photo = Array3::<u8>::from_elem((48, 64, 3), 51);
/// // The shorter side to 36 pixels, then 32×32 from the middle: only those are computed.
/// let framing = Framing::Shorter { to: 36 };
/// let frame = framing.frame((48, 64), (32, 32))?;
/// let mut out = Array3::<f32>::zeros((32, 32, 3));
/// Resampler::new()?.draw(photo.view(), &frame, &Tone::normalised([0.0; 3], [1.0; 3]), out.view_mut())?;
/// assert!(out.iter().all(|v| (v - 0.2).abs() < 1e-6));
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Resampler {
    level: Level,
    rows: Axis,
    columns: Axis,
    /// One mixed row of the source: as many columns as the window needs, and a lane to read beyond the last.
    line: Vec<f32>,
}

impl Resampler {
    /// A resampler for the machine's SIMD level; every level gives the same bits.
    ///
    /// # Errors
    /// Those of [`Level::current`].
    pub fn new() -> Result<Self> {
        Ok(Resampler::at(Level::current()?))
    }

    fn at(level: Level) -> Self {
        Resampler { level, rows: Axis::default(), columns: Axis::default(), line: Vec::new() }
    }

    /// Writes the frame's window of an RGB image `[height, width, 3]`, in standard layout, to `out`: `[h, w, 3]`, the
    /// window's size, in standard layout too.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where image, frame and `out` do not fit each other.
    pub fn draw(
        &mut self,
        image: ArrayView3<'_, u8>,
        frame: &Frame,
        tone: &Tone,
        mut out: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let (height, width, channels) = image.dim();
        frame.check(height, width, channels)?;
        let (found, size) = (format!("[{height}, {width}, {channels}] to {:?}", out.dim()), frame.size());
        let (Some(pixels), (h, w, 3), Some(out)) = (image.to_slice(), out.dim(), out.as_slice_mut()) else {
            return Err(Error::new(ErrorKind::Shape, "image", found).expected("contiguous images of three channels"));
        };
        if (h, w) != size {
            return Err(Error::new(ErrorKind::Shape, "image", found).expected(format!("the frame's {size:?}")));
        }
        self.prepare(frame);
        self.rows_of(pixels, width, frame, 0, tone, out);
        Ok(())
    }

    /// [`draw`](Resampler::draw) of slices whose lengths the caller has checked.
    #[cfg(feature = "train")]
    pub(crate) fn fill(&mut self, pixels: &[u8], width: usize, frame: &Frame, tone: &Tone, out: &mut [f32]) {
        self.prepare(frame);
        self.rows_of(pixels, width, frame, 0, tone, out);
    }

    /// [`draw`](Resampler::draw) in bytes, rounded to the nearest.
    pub(crate) fn bytes(&mut self, pixels: &[u8], width: usize, frame: &Frame, out: &mut [u8]) {
        self.prepare(frame);
        let mut row = vec![0.0; 3 * frame.window.width];
        for (y, out) in out.chunks_exact_mut(row.len()).enumerate() {
            self.rows_of(pixels, width, frame, y, &Tone::BYTES, &mut row);
            out.iter_mut().zip(&row).for_each(|(to, v)| *to = (v + 0.5).clamp(0.0, 255.0) as u8);
        }
    }

    /// Makes room for sources of up to this height and width, and for outputs of this size: no later call allocates.
    #[cfg(any(feature = "train", test))]
    pub(crate) fn reserve(&mut self, source: (usize, usize), size: (usize, usize)) {
        self.rows.reserve(source.0, size.0);
        self.columns.reserve(source.1, size.1);
        self.line.reserve_exact(3 * source.1 + 1);
    }

    /// The bytes that [`reserve`](Resampler::reserve) takes.
    #[cfg(feature = "train")]
    pub(crate) fn bytes_for(source: (usize, usize), size: (usize, usize)) -> usize {
        Axis::bytes_for(source.0, size.0) + Axis::bytes_for(source.1, size.1) + size_of::<f32>() * (3 * source.1 + 1)
    }

    fn prepare(&mut self, frame: &Frame) {
        let Frame { crop, to, window, flip } = *frame;
        self.rows.set(crop.height, to.0, window.top..window.top + window.height, false);
        self.columns.set(crop.width, to.1, window.left..window.left + window.width, flip);
        self.line.clear();
        self.line.resize(3 * self.columns.span() + 1, 0.0);
    }

    /// As many rows as `out` has room for, from row `first` of the window on.
    fn rows_of(&mut self, pixels: &[u8], width: usize, frame: &Frame, first: usize, tone: &Tone, out: &mut [f32]) {
        let (top, left) = (frame.crop.top + self.rows.start(), frame.crop.left + self.columns.start());
        let source = kernel::Source { pixels: &pixels[3 * (top * width + left)..], stride: 3 * width };
        let rows = self.rows.taps().skip(first);
        kernel::rows(self.level, source, rows, self.columns.taps(), &mut self.line, tone, out);
    }
}

#[cfg(test)]
mod tests;
