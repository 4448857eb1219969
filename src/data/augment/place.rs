//! From stored bytes to normalised floats, cropped and flipped on the way: one pass over the pixels.

use super::Normalise;
use crate::data::dataset::Sample;
use crate::data::format::CHANNELS;

/// Where the output's first pixel lies in the source, before reflection, and whether rows run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    pub top: isize,
    pub left: isize,
    pub flip: bool,
    /// Reflection does not repeat the edge.
    pub edge_once: bool,
}

impl Placement {
    /// As a device takes it ([`crate::plan::Pixels`]).
    pub fn as_ints(self) -> [i32; 4] {
        // Images have sides of at most 65,535 pixels.
        [self.top as i32, self.left as i32, self.flip.into(), self.edge_once.into()]
    }

    pub fn of_ints([top, left, flip, edge_once]: [i32; 4]) -> Self {
        Placement { top: top as isize, left: left as isize, flip: flip != 0, edge_once: edge_once != 0 }
    }
}

/// Position `p` of an axis of `n`, reflected at both ends with the edge repeated: −1 → 0, `n` → `n−1`.
fn reflect(p: isize, n: usize) -> usize {
    let n = n as isize;
    let p = if p < 0 { -1 - p } else { p };
    (if p >= n { 2 * n - 1 - p } else { p }) as usize
}

/// Position `p` of an axis of `n`, reflected at both ends with the edge not repeated: −1 → 1, `n` → `n−2`. It lies less
/// than `n` beyond them.
fn mirrored(p: isize, n: usize) -> usize {
    let n = n as isize;
    let p = p.abs();
    (if p >= n { 2 * n - 2 - p } else { p }) as usize
}

/// The normalised value of every byte, per channel: exact to the last bit, and faster than arithmetic on the
/// gathered bytes.
#[derive(Debug)]
pub(crate) struct PixelTable([[f32; 256]; CHANNELS]);

impl PixelTable {
    pub fn new(normalise: &Normalise) -> Self {
        let value =
            |c: usize, p: usize| (p as f64 / 255.0 - f64::from(normalise.mean[c])) / f64::from(normalise.std[c]);
        PixelTable(std::array::from_fn(|c| std::array::from_fn(|p| value(c, p) as f32)))
    }

    /// The numbers of the first channel's bytes, then those of the next one's.
    pub fn numbers(&self) -> &[f32] {
        self.0.as_flattened()
    }

    fn write(&self, out: &mut [f32; CHANNELS], pixel: &[u8; CHANNELS]) {
        for c in 0..CHANNELS {
            out[c] = self.0[c][usize::from(pixel[c])];
        }
    }

    /// Fills `out` (`[height][width][3]`, the sample's size) with the placed, normalised sample. `columns` is
    /// scratch. Floor: 3·h·w bytes read, 12·h·w written.
    pub fn convert(&self, sample: &Sample<'_>, at: Placement, columns: &mut Vec<usize>, out: &mut [f32]) {
        self.convert_bytes(sample.pixels, (sample.height, sample.width), at, columns, out);
    }

    /// The same of bytes.
    pub fn convert_bytes(
        &self,
        pixels: &[u8],
        size: (usize, usize),
        at: Placement,
        columns: &mut Vec<usize>,
        out: &mut [f32],
    ) {
        place(pixels, size, at, columns, out, |to, pixel| self.write(to, pixel));
    }
}

/// Hands each pixel of `out` and the source pixel that belongs there to `write`; both images have the same size.
/// `columns` is scratch.
#[inline(always)]
pub(crate) fn place<T>(
    source: &[T],
    (h, w): (usize, usize),
    at: Placement,
    columns: &mut Vec<usize>,
    out: &mut [f32],
    write: impl Fn(&mut [f32; CHANNELS], &[T; CHANNELS]),
) {
    let source = source.as_chunks::<CHANNELS>().0;
    let out = out.as_chunks_mut::<CHANNELS>().0;
    if at == Placement::default() {
        out.iter_mut().zip(source).for_each(|(o, p)| write(o, p));
        return;
    }
    let reflect = if at.edge_once { mirrored } else { reflect };
    columns.clear();
    columns.extend((0..w as isize).map(|x| reflect(x + at.left, w)));
    if at.flip {
        columns.reverse();
    }
    for (y, row_out) in out.chunks_exact_mut(w).enumerate() {
        let y = reflect(y as isize + at.top, h);
        let row = &source[y * w..][..w];
        row_out.iter_mut().zip(columns.iter()).for_each(|(o, &x)| write(o, &row[x]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::format::Split;

    fn sample(pixels: &[u8], height: usize, width: usize) -> Sample<'_> {
        Sample { pixels, height, width, label: 0, split: Split::Train }
    }

    #[test]
    fn reflection_repeats_the_edge() {
        let row: Vec<usize> = (-3..6).map(|p| reflect(p, 3)).collect();
        assert_eq!(row, [2, 1, 0, 0, 1, 2, 2, 1, 0]);
        let row: Vec<usize> = (-2..5).map(|p| mirrored(p, 3)).collect();
        assert_eq!(row, [2, 1, 0, 1, 2, 1, 0]);
    }

    #[test]
    fn the_placed_image_is_the_padded_one_cut_and_mirrored() {
        let (h, w, pad) = (5, 7, 4);
        let pixels: Vec<u8> = (0..h * w * 3).map(|i| (i * 37 % 251) as u8).collect();
        let normalise = Normalise { mean: [0.25, 0.5, 0.75], std: [0.5, 0.25, 2.0] };
        let table = PixelTable::new(&normalise);
        // Written out: pad first, then cut, then mirror.
        let padded = |y: usize, x: usize, c: usize| {
            let back = |p: usize, n: usize| match p {
                p if p < pad => pad - 1 - p,
                p if p >= pad + n => n - 1 - (p - pad - n),
                p => p - pad,
            };
            pixels[(back(y, h) * w + back(x, w)) * 3 + c]
        };
        let (mut columns, mut out) = (Vec::new(), vec![0.0; h * w * 3]);
        for (oy, ox, flip) in [(0, 0, false), (4, 4, false), (7, 3, true), (2, 7, true), (4, 4, true)] {
            let place = Placement { top: oy as isize - 4, left: ox as isize - 4, flip, edge_once: false };
            table.convert(&sample(&pixels, h, w), place, &mut columns, &mut out);
            for (i, &value) in out.iter().enumerate() {
                let (y, x, c) = (i / 3 / w, i / 3 % w, i % 3);
                let x = if flip { w - 1 - x } else { x };
                let byte = f32::from(padded(y + oy, x + ox, c));
                let expected = (byte / 255.0 - normalise.mean[c]) / normalise.std[c];
                assert!((value - expected).abs() < 1e-5, "{oy} {ox} {flip} {i}: {value} {expected}");
            }
        }
    }
}
