//! One dimension of a convolution, seen from its destination: which source pixels and taps each pixel needs.
//!
//! Forward, output pixel o reads source pixels o·s − p + k·d. For the input gradient the roles turn: input pixel i
//! gets dy[o]·w[k] from every tap k with i + p = o·s + k·d. Only taps with k·d ≡ i + p (mod s) do, so the input
//! pixels fall into s classes ("phases"). Within a phase, i = first + s·a, and o advances by one with a: a
//! convolution of stride 1 over dy with a subset of the taps, flipped.

use super::window::Span;
use std::ops::Range;

/// Which of the two passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    InputGradient,
}

/// One dimension of the convolution, seen from its destination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub direction: Direction,
    pub destination: usize,
    pub kernel: usize,
    pub stride: usize,
    pub pad: usize,
    pub dilation: usize,
}

/// The destination pixels first, first + stride, … of an axis that the same taps reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub first: usize,
    pub count: usize,
    pub taps: usize,
    /// Source pixels from one tap to the next.
    pub tap_step: usize,
    /// Source position of the first tap of the first pixel.
    pub origin: isize,
    /// Kernel index of the first tap, and from one tap to the next.
    pub kernel_first: usize,
    pub kernel_step: isize,
}

impl Phase {
    pub(super) fn kernel_index(&self, tap: usize) -> usize {
        (self.kernel_first as isize + tap as isize * self.kernel_step) as usize
    }
}

impl Axis {
    pub(super) fn phases(&self) -> usize {
        match self.direction {
            Direction::Forward => 1,
            Direction::InputGradient => self.stride,
        }
    }

    /// Source pixels from one destination pixel of a phase to the next.
    pub(super) fn source_step(&self) -> usize {
        match self.direction {
            Direction::Forward => self.stride,
            Direction::InputGradient => 1,
        }
    }

    /// Destination pixels of the largest phase.
    pub(super) fn grid(&self) -> usize {
        self.destination.div_ceil(self.phases())
    }

    pub(super) fn phase(&self, index: usize) -> Phase {
        match self.direction {
            Direction::Forward => Phase {
                first: 0,
                count: self.destination,
                taps: self.kernel,
                tap_step: self.dilation,
                origin: -(self.pad as isize),
                kernel_first: 0,
                kernel_step: 1,
            },
            Direction::InputGradient => self.gradient_phase(index),
        }
    }

    /// Input pixels i with i + pad ≡ index (mod stride), and the taps k with k·dilation ≡ index (mod stride).
    fn gradient_phase(&self, index: usize) -> Phase {
        let (stride, dilation) = (self.stride, self.dilation);
        let divisor = gcd(stride, dilation);
        let (kernel_step, tap_step) = (stride / divisor, dilation / divisor);
        let first_tap = (0..kernel_step.min(self.kernel)).find(|k| k * dilation % stride == index);
        let taps = first_tap.map_or(0, |k| (self.kernel - k).div_ceil(kernel_step));
        let first = (index + stride - self.pad % stride) % stride;
        let count = self.destination.saturating_sub(first).div_ceil(stride);
        // o of the first pixel under the first tap; exact by the choice of both.
        let lowest_tap = first_tap.unwrap_or(0);
        let output = (first + self.pad) as isize - (lowest_tap * dilation) as isize;
        let output = output.div_euclid(stride as isize);
        let behind = taps.saturating_sub(1);
        Phase {
            first,
            count,
            taps,
            tap_step,
            origin: output - (behind * tap_step) as isize,
            kernel_first: lowest_tap + behind * kernel_step,
            kernel_step: -(kernel_step as isize),
        }
    }

    /// Source pixels that destination pixels `range` of all phases read.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        let (mut start, mut end) = (isize::MAX, isize::MIN);
        for phase in (0..self.phases()).map(|i| self.phase(i)).filter(|p| p.taps > 0) {
            start = start.min(phase.origin);
            end = end.max(phase.origin + ((phase.taps - 1) * phase.tap_step) as isize);
        }
        let step = self.source_step();
        start += (range.start * step) as isize;
        end += ((range.end - 1) * step) as isize;
        Span { start, len: (end - start + 1) as usize }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
