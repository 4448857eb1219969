//! Histograms with TensorBoard's usual limits.

use super::wire::{self, histogram as field};
use crate::backend::Real;

/// How many values lie between which limits: 0, and ±10⁻¹²·1.1ⁱ up to 10²⁰, so that one set of limits serves weights and
/// gradients of any size. A bucket holds the values from the limit before it (inclusive) to its own (exclusive).
#[derive(Clone, Debug)]
pub struct Histogram {
    /// The upper limit of each bucket; the last is the largest number.
    limits: Vec<f64>,
    counts: Vec<u64>,
    least: f64,
    greatest: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new()
    }
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        let mut positive: Vec<f64> =
            std::iter::successors(Some(1e-12), |limit| Some(limit * 1.1)).take_while(|&limit| limit < 1e20).collect();
        positive.push(f64::MAX);
        let negative = positive.iter().rev().map(|limit| -limit);
        let limits: Vec<f64> = negative.chain([0.0]).chain(positive.iter().copied()).collect();
        let counts = vec![0; limits.len()];
        Histogram { limits, counts, least: f64::MAX, greatest: f64::MIN, sum: 0.0, sum_of_squares: 0.0 }
    }

    /// Forgets what it counted, and counts these; numbers that are not finite are left out.
    pub fn count<E: Real>(&mut self, values: &[E]) {
        self.counts.fill(0);
        (self.least, self.greatest, self.sum, self.sum_of_squares) = (f64::MAX, f64::MIN, 0.0, 0.0);
        for value in values.iter().map(|value| value.wide()).filter(|value| value.is_finite()) {
            let bucket = self.limits.partition_point(|&limit| limit <= value);
            self.counts[bucket.min(self.limits.len() - 1)] += 1;
            self.least = self.least.min(value);
            self.greatest = self.greatest.max(value);
            self.sum += value;
            self.sum_of_squares += value * value;
        }
    }

    /// A `HistogramProto`; neighbouring buckets without values are one.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let num: u64 = self.counts.iter().sum();
        let (least, greatest) = if num == 0 { (0.0, 0.0) } else { (self.least, self.greatest) };
        wire::double(out, field::MIN, least);
        wire::double(out, field::MAX, greatest);
        wire::double(out, field::NUM, num as f64);
        wire::double(out, field::SUM, self.sum);
        wire::double(out, field::SUM_SQUARES, self.sum_of_squares);
        wire::doubles(out, field::BUCKET_LIMIT, self.buckets().map(|(limit, _)| limit));
        wire::doubles(out, field::BUCKET, self.buckets().map(|(_, count)| count as f64));
    }

    /// Upper limits and counts, of a run of empty buckets the last one alone.
    fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let empty_next = |i: usize| self.counts.get(i + 1) == Some(&0);
        let all = self.limits.iter().zip(&self.counts).enumerate();
        all.filter(move |&(i, (_, &count))| count > 0 || !empty_next(i)).map(|(_, (&limit, &count))| (limit, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_tensorboards() {
        let limits = Histogram::new().limits;
        // ln(10³²)/ln 1.1 = 773.06: 774 limits, and the largest number, on either side of 0.
        assert_eq!(limits.len(), 2 * 775 + 1);
        assert!(limits.is_sorted() && limits[775] == 0.0 && limits[776] == 1e-12);
        assert_eq!((limits[777], limits[774]), (1e-12 * 1.1, -1e-12));
        assert_eq!((limits[0], limits[1550]), (f64::MIN, f64::MAX));
    }

    #[test]
    fn values_fall_between_their_limits_and_empty_buckets_join() {
        let mut histogram = Histogram::new();
        histogram.count(&[5.0_f64; 9]);
        histogram.count(&[0.0, 1e-12, -1e-12, 3.0, f64::NAN, f64::INFINITY, 1e-13]);
        let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
        // −1e-12 is from its own limit to 0; 0 and 1e-13 below 1e-12; 1e-12 below the next limit.
        let three = histogram.limits.iter().position(|&limit| limit > 3.0).unwrap();
        let wanted = [
            (histogram.limits[774], 0),
            (0.0, 1),
            (1e-12, 2),
            (histogram.limits[777], 1),
            (histogram.limits[three - 1], 0),
            (histogram.limits[three], 1),
            (f64::MAX, 0),
        ];
        assert_eq!(buckets, wanted);
        assert_eq!((histogram.least, histogram.greatest), (-1e-12, 3.0));
        assert!((histogram.sum - 3.0).abs() < 1e-9 && (histogram.sum_of_squares - 9.0).abs() < 1e-9);
        // The greatest number has no limit above it.
        histogram.count(&[f64::MAX, f64::MIN]);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 2);
    }

    #[test]
    fn an_empty_histogram_has_bytes_too() {
        let mut out = Vec::new();
        Histogram::new().encode(&mut out);
        assert_eq!(out.len(), 5 * 9 + 2 * 10);
        assert_eq!(out[45..47], [0x32, 8]);
    }
}
