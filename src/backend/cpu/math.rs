//! Elementary functions for loops: polynomials without branches or calls, so that a loop over them vectorises inside
//! [`multiversion!`](crate::multiversion).
//!
//! Nothing is fused, so a value has the same bits at every SIMD level. Polynomials interpolate at Chebyshev nodes.
//! Bounds are tested against f64 over all exponents; in units in the last place (ulp) of the result:
//!
//! | function | range | error |
//! |---|---|---|
//! | [`exp`] | all; subnormal results too | 2 ulp |
//! | [`exp_m1`] | all | 3 ulp |
//! | [`ln_1p`] | 0 to 1 | 2 ulp |
//! | [`normal`] | all | 8 ulp for \|x\| ≤ 1; beyond 1.2e-7·(4 + x²) of the smaller tail |
//!
//! A NaN gives a NaN, infinities give the limits.

/// 1.5·2²³: adding it rounds a small number to an integer, which then lies in the lowest bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has 9 bits, so that its product with an exponent is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;

/// x = k·ln 2 + r with |r| ≤ ln 2 / 2: the bits of k (as [`ROUND`] leaves them), and e^r − 1.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let p = 1.392_625e-3;
    let p = p * r + 8.363_233e-3;
    let p = p * r + 4.166_655_2e-2;
    let p = p * r + 1.666_657_7e-1;
    let p = p * r + 0.5;
    (shifted.to_bits() as i32 - ROUND.to_bits() as i32, p * (r * r) + r)
}

/// 2^k for k from −126 to 127.
#[inline(always)]
fn power_of_2(k: i32) -> f32 {
    f32::from_bits(((k + 127) << 23) as u32)
}

/// e^x.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (k, m) = reduce(x.clamp(-104.0, 89.0));
    // In two factors, so that results below the least normal number and above half the largest come out.
    let half = k >> 1;
    (m + 1.0) * power_of_2(half) * power_of_2(k - half)
}

/// e^x − 1, without losing digits near 0.
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let (k, m) = reduce(x.clamp(-40.0, 89.0));
    let (half, rest) = (power_of_2(k >> 1), power_of_2(k - (k >> 1)));
    // 2^k·m + (2^k − 1); where 2^k overflows, 1 is nothing.
    let whole = if k > 64 { (m + 1.0) * half * rest } else { m * half * rest + (half * rest - 1.0) };
    // The sum above loses the sign of −0.
    if x == 0.0 { x } else { whole }
}

/// ln(1 + x) for x from 0 to 1, without losing digits near 0.
#[inline(always)]
pub fn ln_1p(x: f32) -> f32 {
    let p = -3.176_057e-3;
    let p = p * x + 1.954_252_7e-2;
    let p = p * x - 5.637_361e-2;
    let p = p * x + 1.054_362_4e-1;
    let p = p * x - 1.526_966_7e-1;
    let p = p * x + 1.966_327_4e-1;
    let p = p * x - 2.495_161_6e-1;
    let p = p * x + 3.332_971e-1;
    let p = p * x - 4.999_989_3e-1;
    x + x * (p * x)
}

/// The standard normal distribution: Φ(x) = ½·(1 + erf(x/√2)) and its density e^(−x²/2)/√(2π).
///
/// With a = |x| and t = 1/(1 + a/4), the tail Φ(−a) is e^(−a²/2)·t·P(t): both share one exponential.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    let a = x.abs().clamp(0.0, 14.5);
    let g = exp(-0.5 * (a * a));
    let t = 1.0 / (1.0 + 0.25 * a);
    let p = 1.574_184_4e-2;
    let p = p * t - 5.837_098e-2;
    let p = p * t + 4.158_928_6e-2;
    let p = p * t + 4.136_781e-2;
    let p = p * t + 2.400_358_7e-3;
    let p = p * t + 9.193_209_6e-2;
    let p = p * t + 7.027_288e-2;
    let p = p * t + 9.586_339e-2;
    let p = p * t + 9.945_357e-2;
    let p = p * t + 9.974_976e-2;
    let tail = g * (p * t);
    let density = g * 0.398_942_3;
    (if x > 0.0 { 1.0 - tail } else { tail }, density)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Elementary;
    use crate::backend::cpu::simd::levels_available;

    /// Numbers of every sign and exponent, about a million.
    fn all_exponents() -> impl Iterator<Item = f32> {
        (0..=u32::MAX).step_by(4099).map(f32::from_bits).filter(|x| !x.is_nan())
    }

    fn between(low: f64, high: f64) -> impl Iterator<Item = f32> {
        (0..400_000).map(move |i| (low + (high - low) * f64::from(i) / 399_999.0) as f32)
    }

    /// The distance from f32 to f32 around a value: an ulp, also among subnormal numbers.
    fn ulp(value: f64) -> f64 {
        let exponent = (value.abs().max(f64::from(f32::MIN_POSITIVE)).to_bits() >> 52) as i32 - 1023;
        2f64.powi(exponent - 23)
    }

    fn check(what: &str, values: impl Iterator<Item = f32>, ours: fn(f32) -> f32, truth: fn(f64) -> f64, ulps: f64) {
        let mut worst = (0.0, 0.0);
        for x in values {
            let (y, truth) = (ours(x), truth(f64::from(x)));
            if truth.abs() >= f64::from(f32::MAX) {
                assert!(f64::from(y.abs()) >= 0.99 * f64::from(f32::MAX), "{what}({x:e}) is {y:e}");
                continue;
            }
            let error = (f64::from(y) - truth).abs() / ulp(truth);
            assert!(error <= ulps, "{what}({x:e}) is {y:e}, not {truth:e}: {error} ulp");
            if error > worst.0 {
                worst = (error, x);
            }
        }
        println!("{what}: at most {:.2} ulp, at {:e}", worst.0, worst.1);
    }

    #[test]
    fn exponentials_are_exact_to_two_and_three_ulp() {
        check("exp", all_exponents(), exp, f64::exp, 2.0);
        check("exp", between(-104.0, 88.8), exp, f64::exp, 2.0);
        check("exp_m1", all_exponents(), exp_m1, f64::exp_m1, 3.0);
        check("exp_m1", between(-20.0, 20.0), exp_m1, f64::exp_m1, 3.0);
        check("exp_m1", between(40.0, 88.8), exp_m1, f64::exp_m1, 3.0);
    }

    #[test]
    fn logarithms_are_exact_to_two_ulp() {
        check("ln_1p", all_exponents().filter(|x| (0.0..=1.0).contains(x)), ln_1p, f64::ln_1p, 2.0);
        check("ln_1p", between(0.0, 1.0), ln_1p, f64::ln_1p, 2.0);
    }

    #[test]
    fn the_normal_distribution_is_as_exact_as_stated() {
        check("Φ", between(-1.0, 1.0), |x| normal(x).0, |x| x.lane_normal().0, 8.0);
        check("Φ", between(1.0, 20.0), |x| normal(x).0, |x| x.lane_normal().0, 2.0);
        for x in between(-12.9, -1.0).chain(all_exponents().filter(|x| (-12.9..=12.9).contains(x))) {
            let (wide, ours) = (f64::from(x), normal(x));
            let density = (-wide * wide / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let relative = 1.2e-7 * (4.0 + wide * wide);
            assert!((f64::from(ours.1) - density).abs() <= relative * density, "density of {x}");
            if x < 0.0 {
                let tail = tail(-wide);
                assert!((f64::from(ours.0) - tail).abs() <= relative * tail, "Φ({x}) is {}, not {tail}", ours.0);
            }
        }
    }

    /// Φ(−a) to ten digits or more: by the error function, then by the continued fraction of Mills' ratio.
    fn tail(a: f64) -> f64 {
        if a < 3.0 {
            return (-a).lane_normal().0;
        }
        let fraction = (1..200).rev().fold(a, |below, k| a + f64::from(k) / below);
        (-a * a / 2.0).exp() / std::f64::consts::TAU.sqrt() / fraction
    }

    #[test]
    fn limits_are_reached_and_a_nan_stays_one() {
        let (infinity, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!([exp(infinity), exp(-infinity), exp(0.0), exp(-0.0)], [infinity, 0.0, 1.0, 1.0]);
        assert_eq!([exp_m1(infinity), exp_m1(-infinity), exp_m1(0.0)], [infinity, -1.0, 0.0]);
        assert!(exp_m1(-0.0).is_sign_negative() && exp_m1(-1e-42) == -1e-42);
        assert_eq!([ln_1p(0.0), ln_1p(1.0)], [0.0, 2f32.ln()]);
        assert_eq!([normal(infinity), normal(-infinity)], [(1.0, 0.0), (0.0, 0.0)]);
        assert!((normal(0.0).0 - 0.5).abs() <= f32::EPSILON);
        assert!([exp(nan), exp_m1(nan), ln_1p(nan), normal(nan).0, normal(nan).1].iter().all(|y| y.is_nan()));
    }

    crate::multiversion! {
        fn each(x: &[f32], y: &mut [f32]) {
            for (x, y) in x.iter().zip(y) {
                *y = exp(*x) + exp_m1(0.5 * *x) + ln_1p((0.01 * *x).abs()) + normal(*x).0;
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let x: Vec<f32> = between(-30.0, 30.0).collect();
        let runs: Vec<Vec<u32>> = levels_available()
            .map(|level| {
                let mut y = vec![f32::NAN; x.len()];
                each(level, &x, &mut y);
                y.into_iter().map(f32::to_bits).collect()
            })
            .collect();
        assert!(runs.iter().all(|run| run == &runs[0]));
    }
}
