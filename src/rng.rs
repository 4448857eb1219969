//! Keyed randomness: every random number is a function of what it is for.
//!
//! A [`Key`] is built from the seed and the coordinates of a decision (epoch, sample, purpose…), so the number
//! that augments sample 17 in epoch 3 is the same whichever thread draws it, in whatever order, and after a resume.
//! The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Names one random decision.
///
/// ```
/// use handgrad::rng::Key;
/// let sample = Key::new(42).with(3).with(17); // seed 42, epoch 3, sample 17
/// assert_eq!(sample.stream().u64(), sample.stream().u64());
/// assert_ne!(sample.stream().u64(), sample.with(1).stream().u64());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The root key of a run.
    pub const fn new(seed: u64) -> Self {
        Key(mix(seed.wrapping_add(GOLDEN)))
    }

    /// The key of one part of this decision: the order of the coordinates matters.
    #[must_use]
    pub const fn with(self, coordinate: u64) -> Self {
        Key(mix(self.0.wrapping_add(GOLDEN).wrapping_add(mix(coordinate.wrapping_add(GOLDEN)))))
    }

    /// [`Key::with`] for a name, such as a parameter's (FNV-1a of its bytes).
    #[must_use]
    pub const fn with_name(self, name: &str) -> Self {
        self.with(fnv1a(name.as_bytes()))
    }

    /// What a device gets of it.
    #[cfg(feature = "cuda")]
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// The `i`-th number of this key's sequence, without drawing those before it.
    pub const fn at(self, i: u64) -> u64 {
        mix(self.0.wrapping_add(i.wrapping_mul(GOLDEN)))
    }

    /// The key's sequence of numbers.
    pub const fn stream(self) -> Stream {
        Stream { key: self, next: 0 }
    }
}

/// FNV-1a, 64 bits.
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        i += 1;
    }
    hash
}

/// A sequence of random numbers that belongs to one [`Key`].
#[derive(Clone, Debug)]
pub struct Stream {
    key: Key,
    next: u64,
}

impl Stream {
    /// Uniform over all 64-bit integers.
    pub fn u64(&mut self) -> u64 {
        let value = self.key.at(self.next);
        self.next += 1;
        value
    }

    /// Uniform in `0..bound` (Lemire's multiplication; the bias is below `bound / 2⁶⁴`). `bound` 0 gives 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn f64(&mut self) -> f64 {
        (self.u64() >> 11) as f64 * 2f64.powi(-53)
    }

    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.f64()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.f64() < p
    }

    /// Standard normal (Box–Muller, one value per two draws).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.f64()).cos()
    }

    /// Standard normal numbers (Box–Muller, two values per two draws).
    pub fn normals(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let radius = (-2.0 * (1.0 - self.f64()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * self.f64()).sin_cos();
            pair.iter_mut().zip([cos, sin]).for_each(|(value, side)| *value = (radius * side) as f32);
        }
    }

    /// Beta(a, b): x/(x + y) of gamma variates x of shape a and y of shape b, both finite and at least 1e-6. Gammas of small
    /// shapes are too small for a number, their logarithms are not.
    #[cfg(feature = "train")]
    pub(crate) fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.ln_gamma(a), self.ln_gamma(b));
        1.0 / (1.0 + (y - x).exp())
    }

    /// The logarithm of a gamma variate of this shape, above 0, and scale 1: by rejection, exactly (Marsaglia, Tsang 2000);
    /// below 1 as that of shape + 1 times U^(1/shape).
    #[cfg(feature = "train")]
    fn ln_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let ln_uniform = (1.0 - self.f64()).ln();
            return self.ln_gamma(shape + 1.0) + ln_uniform / shape;
        }
        let d = shape - 1.0 / 3.0;
        loop {
            let x = self.normal();
            let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
            let ln_uniform = (1.0 - self.f64()).ln();
            // Where v is not above 0 its logarithm is no number, or −∞, and the comparison fails.
            if ln_uniform < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return (d * v).ln();
            }
        }
    }

    /// Fisher–Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut s = Key::new(1).stream();
        let n = 200_000;
        let (mut u, mut z, mut z2) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            u += s.f64();
            let x = s.normal();
            z += x;
            z2 += x * x;
        }
        let n = f64::from(n);
        assert!((u / n - 0.5).abs() < 4e-3);
        assert!((z / n).abs() < 1e-2);
        assert!((z2 / n - 1.0).abs() < 2e-2);
    }

    #[test]
    fn normals_by_pairs_have_the_moments_of_normals() {
        let mut values = vec![0.0f32; 200_001];
        Key::new(4).stream().normals(&mut values);
        let moment = |power| values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / values.len() as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02 && moment(3).abs() < 0.03);
        assert!((moment(4) - 3.0).abs() < 0.1);
        // The two of a pair, and neighbours of different pairs, do not go together.
        let lag = values.windows(2).map(|w| f64::from(w[0] * w[1])).sum::<f64>() / values.len() as f64;
        let squares = values.windows(2).map(|w| f64::from(w[0] * w[1]).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(lag.abs() < 0.01 && (squares - 1.0).abs() < 0.03, "{lag} {squares}");
    }

    /// a, b, and the quantile function of Beta(a, b).
    #[cfg(feature = "train")]
    type Law = (f64, f64, fn(f64) -> f64);

    /// Mean a/(a + b), variance ab/((a + b)²(a + b + 1)), and the quantiles of forms that have one.
    #[cfg(feature = "train")]
    #[test]
    fn beta_has_its_moments_and_quantiles() {
        let draws = |a: f64, b: f64| -> Vec<f64> {
            let mut stream = Key::new(5).stream();
            let mut values: Vec<f64> = (0..100_000).map(|_| stream.beta(a, b)).collect();
            assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
            values.sort_by(f64::total_cmp);
            values
        };
        for (a, b) in [(0.2, 0.2), (0.4, 0.4), (0.5, 2.0), (1.0, 1.0), (2.0, 5.0), (40.0, 60.0), (1e-3, 1e-3)] {
            let values = draws(a, b);
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let exact = a * b / ((a + b) * (a + b) * (a + b + 1.0));
            assert!((mean - a / (a + b)).abs() < 5.0 * (exact / n).sqrt(), "{a} {b}: {mean}");
            assert!((variance / exact - 1.0).abs() < 0.03, "{a} {b}: {variance} for {exact}");
        }
        // Beta(1, 1) is uniform, Beta(½, ½) the arcsine law sin²(πp/2), Beta(a, 1) has p^(1/a).
        let laws: [Law; 4] = [
            (1.0, 1.0, |p| p),
            (0.5, 0.5, |p| (std::f64::consts::FRAC_PI_2 * p).sin().powi(2)),
            (0.3, 1.0, |p| p.powf(1.0 / 0.3)),
            (3.0, 1.0, |p| p.powf(1.0 / 3.0)),
        ];
        for (a, b, quantile) in laws {
            let values = draws(a, b);
            for p in [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99] {
                let below = values.partition_point(|v| *v <= quantile(p)) as f64 / values.len() as f64;
                assert!((below - p).abs() < 0.006, "{a} {b}: {below} below the quantile {p}");
            }
        }
    }

    #[test]
    fn shuffle_is_a_permutation_and_below_stays_below() {
        let mut items: Vec<u32> = (0..1000).collect();
        Key::new(2).stream().shuffle(&mut items);
        assert_ne!(items[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        items.sort_unstable();
        assert!(items.iter().copied().eq(0..1000));
        let mut s = Key::new(3).stream();
        assert!((0..1000).all(|_| s.below(7) < 7));
        assert_eq!(s.below(0), 0);
    }

    #[test]
    fn order_of_coordinates_matters() {
        assert_ne!(Key::new(0).with(1).with(2), Key::new(0).with(2).with(1));
        assert_ne!(Key::new(0).with(0), Key::new(0));
    }
}
