//! The k of one phase, (tap row, tap column, channel), as nested loops over a view.

use super::axis::Phase;
use super::window::View;
use crate::backend::cpu::threads;
use crate::backend::cpu::tile::{Loop, Tile};
use std::ops::Range;

/// All k of a phase, cut into parts of about a given number.
pub(super) struct Depth {
    rows: usize,
    row_step: usize,
    /// Runs of contiguous channels per tap row: one if its taps are neighbours.
    runs: usize,
    run_step: usize,
    run: usize,
    /// Channels per tap.
    channels: usize,
    /// Parts per run (if a run alone exceeds the limit), else tap rows per part.
    run_parts: usize,
    part_rows: usize,
}

/// One part: tap rows × runs × elements of each run.
pub(super) struct Part {
    rows: Range<usize>,
    runs: Range<usize>,
    piece: Range<usize>,
}

impl Depth {
    /// `channels` per tap of `source_c` per pixel; `limit` k per part, about.
    pub(super) fn new(view: &View, (y, x): (&Phase, &Phase), channels: usize, source_c: usize, limit: usize) -> Depth {
        let contiguous = x.tap_step == 1 && channels == source_c;
        let (runs, run) = if contiguous { (1, x.taps * channels) } else { (x.taps, channels) };
        Depth {
            rows: if runs * run == 0 { 0 } else { y.taps },
            row_step: y.tap_step * view.row,
            runs,
            run_step: x.tap_step * source_c,
            run,
            channels,
            run_parts: run.div_ceil(limit).max(1),
            part_rows: (limit / (runs * run).max(1)).max(1),
        }
    }

    /// At least one, so that pixels without taps are written.
    pub(super) fn parts(&self) -> usize {
        let parts = if self.run_parts > 1 {
            self.rows * self.runs * self.run_parts
        } else {
            self.rows.div_ceil(self.part_rows)
        };
        parts.max(1)
    }

    pub(super) fn part(&self, index: usize) -> Part {
        if self.run_parts > 1 {
            let (run, piece) = (index / self.run_parts, index % self.run_parts);
            let (row, run) = (run / self.runs, run % self.runs);
            let piece = threads::part(self.run, self.run_parts, piece);
            return Part { rows: row..row + 1, runs: run..run + 1, piece };
        }
        let first = index * self.part_rows;
        Part { rows: first..(first + self.part_rows).min(self.rows), runs: 0..self.runs, piece: 0..self.run }
    }

    /// Sets the loops of `tile` to the part's k under tap rows `y` and tap columns `x`, and its B into a `panel` of
    /// weights; returns where A starts, from the first tap's first channel on. `tile.ldb` is set already.
    pub(super) fn slice(
        &self,
        part: &Part,
        y: &Range<usize>,
        x: &Range<usize>,
        panel: *const f32,
        tile: &mut Tile,
    ) -> usize {
        let rows = intersection(&part.rows, y);
        let (runs, piece) = if self.runs == 1 {
            (0..1, intersection(&part.piece, &(x.start * self.channels..x.end * self.channels)))
        } else {
            (intersection(&part.runs, x), part.piece.clone())
        };
        tile.outer =
            Loop { count: rows.len(), step: self.row_step, skip: (self.runs - runs.len()) * self.run * tile.ldb };
        tile.middle = Loop { count: runs.len(), step: self.run_step, skip: (self.run - piece.len()) * tile.ldb };
        tile.inner = Loop { count: piece.len(), step: 1, skip: 0 };
        let first = (rows.start * self.runs + runs.start) * self.run + piece.start;
        tile.b = panel.wrapping_add(first * tile.ldb);
        rows.start * self.row_step + runs.start * self.run_step + piece.start
    }
}

fn intersection(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
