//! Floor: x read and y written once, and the reverse.

use rayon::prelude::*;

use super::ChannelShuffle;
use crate::backend::{Host, Real, parallel};
use crate::ops::{Backward, Forward, Kernel};

/// Pixels per work item.
const PIXELS: usize = 256;

/// `to[j·groups + i] = from[i·m + j]` for every pixel, written or added.
fn shuffle<E: Real>(from: &[E], to: &mut [E], channels: usize, groups: usize, add: bool) {
    let m = channels / groups;
    to.par_chunks_mut(PIXELS * channels).zip(from.par_chunks(PIXELS * channels)).for_each(|(to, from)| {
        for (to, from) in to.chunks_mut(channels).zip(from.chunks(channels)) {
            for (j, to) in to.chunks_mut(groups).enumerate() {
                for (i, to) in to.iter_mut().enumerate() {
                    let value = from[i * m + j];
                    *to = if add { *to + value } else { value };
                }
            }
        }
    });
}

/// One implementation for every host backend: it only moves values.
impl<B: Host> Kernel<B> for ChannelShuffle {
    fn forward(&self, mut io: Forward<'_, B::Elem>) {
        let channels = io.y.dim().3;
        let x = parallel::contiguous(&io.x[0]);
        shuffle(x, parallel::contiguous_mut(&mut io.y), channels, self.groups, false);
    }

    fn backward(&self, mut io: Backward<'_, B::Elem>) {
        let channels = io.dy.dim().3;
        let dy = &*parallel::contiguous_mut(&mut io.dy);
        let Some((dx, add)) = io.dx[0].target() else { return };
        shuffle(dy, parallel::contiguous_mut(dx), channels, channels / self.groups, add);
    }
}
