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
