//! Zero-padded copies of the part of a batch that one unit of work reads.

use std::ops::Range;

/// Source rows or columns `start .. start + len`; some may lie outside the image, where zeros are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: isize,
    pub len: usize,
}

impl Span {
    /// Whether all of it lies in an image of `size` rows or columns.
    pub(super) fn is_inside(self, size: usize) -> bool {
        self.start >= 0 && self.start as usize + self.len <= size
    }

    /// The part inside an image of `size`, counted from the span's start.
    fn inside(self, size: usize) -> Range<usize> {
        let first = (-self.start).max(0) as usize;
        let last = (size as isize - self.start).clamp(0, self.len as isize) as usize;
        first.min(last)..last
    }
}

/// Which of the positions origin, origin + step, … (`count` of them) lie in an image of `size` rows or columns.
pub(super) fn inside(origin: isize, step: usize, count: usize, size: usize) -> Range<usize> {
    let steps_to = |position: isize| (position - origin).max(0) as usize;
    let first = steps_to(0).div_ceil(step).min(count);
    first..steps_to(size as isize).div_ceil(step).clamp(first, count)
}

/// How a batch is cut into units: `images` whole images each, or bands of `rows` output rows of one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    pub images: usize,
    pub rows: usize,
    bands: usize,
    grid_h: usize,
}

/// One unit: its images of the batch, and its rows of the output grid in each.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub images: Range<usize>,
    pub rows: Range<usize>,
}

impl Units {
    /// Units of about `pixels` output pixels of a grid of `grid_h` × `grid_w`, whose source rows
    /// (`window_row` floats each, `window_rows(r)` of them for r rows of the grid) take at most `limit` floats
    /// unless a single row of the grid needs more.
    pub(super) fn new(
        pixels: usize,
        limit: usize,
        (grid_h, grid_w): (usize, usize),
        window_row: usize,
        window_rows: impl Fn(usize) -> usize,
    ) -> Units {
        let image = window_row * window_rows(grid_h);
        if image <= limit {
            let images = pixels.div_ceil(grid_h * grid_w).min(limit / image.max(1)).max(1);
            return Units { images, rows: grid_h, bands: 1, grid_h };
        }
        let fits = |rows: usize| window_row * window_rows(rows) <= limit;
        let most = (1..=grid_h).take_while(|&rows| fits(rows)).last().unwrap_or(1);
        // Equal bands: a last one of a row or two would waste its halo.
        let bands = grid_h.div_ceil(most);
        let rows = grid_h.div_ceil(bands);
        Units { images: 1, rows, bands: grid_h.div_ceil(rows), grid_h }
    }

    /// Units of `images` whole images.
    pub(super) fn whole(images: usize, grid_h: usize) -> Units {
        Units { images, rows: grid_h, bands: 1, grid_h }
    }

    /// Units of `n` images.
    pub(super) fn count(&self, n: usize) -> usize {
        n.div_ceil(self.images) * self.bands
    }

    /// Unit `index` of `n` images.
    pub(super) fn unit(&self, index: usize, n: usize) -> Unit {
        let (image, band) = (index / self.bands * self.images, index % self.bands * self.rows);
        Unit { images: image..(image + self.images).min(n), rows: band..(band + self.rows).min(self.grid_h) }
    }
}

/// Source pixels as a unit reads them: the batch itself or a padded copy. Strides in floats.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub start: *const f32,
    pub image: usize,
    pub row: usize,
    /// Source row and column at `start`.
    pub top: isize,
    pub left: isize,
}

/// The size of a source image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub h: usize,
    pub w: usize,
    pub c: usize,
}

impl Source {
    /// The images from number `first` on, in place.
    pub(super) fn in_place(self, batch: &[f32], first: usize) -> View {
        let image = self.h * self.w * self.c;
        View { start: batch[first * image..].as_ptr(), image, row: self.w * self.c, top: 0, left: 0 }
    }

    /// Copies rows × columns of the images into `window`, zeros where they are outside.
    pub(super) fn padded(
        self,
        batch: &[f32],
        images: Range<usize>,
        rows: Span,
        columns: Span,
        window: &mut [f32],
    ) -> View {
        let (row, image) = (columns.len * self.c, rows.len * columns.len * self.c);
        let inside_rows = rows.inside(self.h);
        let inside = columns.inside(self.w);
        let copied = inside.start * self.c..inside.end * self.c;
        let source_column = (columns.start + inside.start as isize) as usize * self.c;
        for (to, number) in window.chunks_exact_mut(image).zip(images) {
            let from = &batch[number * self.h * self.w * self.c..][..self.h * self.w * self.c];
            for (i, to) in to.chunks_exact_mut(row).enumerate() {
                if !inside_rows.contains(&i) || copied.is_empty() {
                    to.fill(0.0);
                    continue;
                }
                let start = (rows.start + i as isize) as usize * self.w * self.c + source_column;
                to[..copied.start].fill(0.0);
                to[copied.clone()].copy_from_slice(&from[start..start + copied.len()]);
                to[copied.end..].fill(0.0);
            }
        }
        View { start: window.as_ptr(), image, row, top: rows.start, left: columns.start }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_padded_with_zeros() {
        let source = Source { h: 2, w: 2, c: 1 };
        let mut window = [f32::NAN; 12];
        source.padded(
            &[9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0],
            1..2,
            Span { start: 1, len: 3 },
            Span { start: -1, len: 4 },
            &mut window,
        );
        assert_eq!(window, [0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn positions_inside_an_image_are_found() {
        for (origin, step, count, size) in
            [(-1, 1, 5, 4), (-5, 2, 4, 3), (-9, 3, 2, 4), (2, 1, 3, 4), (9, 2, 3, 4), (0, 1, 0, 4)]
        {
            let expected: Vec<usize> =
                (0..count).filter(|&i| (0..size as isize).contains(&(origin + (i * step) as isize))).collect();
            let range = inside(origin, step, count, size);
            assert_eq!(range.clone().collect::<Vec<_>>(), expected, "{origin} {step} {count} {size}");
            assert!(range.end <= count);
        }
    }

    #[test]
    fn units_cover_each_row_once() {
        for (grid_h, row) in [(1, 1), (7, 300), (64, 4000), (5, 100_000), (33, 6000)] {
            let units = Units::new(64, 64 * 1024, (grid_h, 3), row, |rows| rows + 2);
            let mut seen = vec![0; 5 * grid_h];
            for u in 0..units.count(5) {
                let unit = units.unit(u, 5);
                for image in unit.images {
                    unit.rows.clone().for_each(|r| seen[image * grid_h + r] += 1);
                }
            }
            assert!(seen.iter().all(|&times| times == 1), "{grid_h} {row} {units:?}");
        }
    }
}
