//! The bias gradient: a sum over pixels per channel.

use crate::backend::cpu::simd::Level;
use crate::backend::cpu::threads::{self, Disjoint};

/// The most partial sums.
const MAX_PARTIALS: usize = 32;

/// Floats per partial sum at least: some tens of microseconds.
const MIN_PARTIAL: usize = 64 * 1024;

/// Channels summed at once, in f64 on the stack.
const CHANNELS: usize = 32;

/// Fixed by the shape.
fn partials(rows: usize, channels: usize) -> usize {
    (rows.saturating_mul(channels) / MIN_PARTIAL).clamp(1, MAX_PARTIALS)
}

/// Scratch floats that [`bias_gradient`] needs for any number of rows up to `max_rows`.
pub fn bias_gradient_scratch(channels: usize, max_rows: usize) -> usize {
    partials(max_rows, channels) * channels
}

/// `db[c] = Σ dy[row][c]` over the rows of dy `[rows][channels]`, `channels` being db's length; written, or
/// added to db.
///
/// Sums run in f64 within a partial sum and over partial sums, so that the error is that of rounding the partial
/// sums to f32 once.
pub fn bias_gradient(level: Level, dy: &[f32], db: &mut [f32], add: bool, scratch: &mut [f32]) {
    let channels = db.len();
    if channels == 0 {
        return;
    }
    let rows = dy.len() / channels;
    assert_eq!(rows * channels, dy.len(), "dy has whole rows of one float per channel");
    let parts = partials(rows, channels);
    let sums = &mut scratch[..parts * channels];
    let shared = Disjoint::new(sums);
    threads::for_each_item(parts, |part| {
        let range = threads::part(rows, parts, part);
        // SAFETY: every item has its own partial sum.
        let sums = unsafe { shared.slice(part * channels..(part + 1) * channels) };
        sum_rows(level, &dy[range.start * channels..range.end * channels], sums);
    });
    for (c, db) in db.iter_mut().enumerate() {
        let total: f64 = sums.chunks_exact(channels).map(|part| f64::from(part[c])).sum();
        let old = if add { f64::from(*db) } else { 0.0 };
        *db = (old + total) as f32;
    }
}

crate::multiversion! {
    /// sums[c] = Σ over rows.
    fn sum_rows(rows: &[f32], sums: &mut [f32]) {
        let channels = sums.len();
        for (i, sums) in sums.chunks_mut(CHANNELS).enumerate() {
            let mut total = [0.0f64; CHANNELS];
            for row in rows.chunks_exact(channels) {
                let row = &row[i * CHANNELS..][..sums.len()];
                if let Ok(full) = <&[f32; CHANNELS]>::try_from(row) {
                    for c in 0..CHANNELS {
                        total[c] += f64::from(full[c]);
                    }
                } else {
                    for (total, &value) in total.iter_mut().zip(row) {
                        *total += f64::from(value);
                    }
                }
            }
            for (sum, total) in sums.iter_mut().zip(total) {
                *sum = total as f32;
            }
        }
    }
}
