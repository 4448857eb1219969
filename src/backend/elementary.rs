//! Elementary functions as activations need them: exact in f64, vectorisable in f32.

use super::cpu::math;

/// Functions of one number. In f64 they are as good as the standard library's; in f32 they are free of branches and
/// calls, for loops over vector lanes, with the error bounds of [`math`].
///
/// ```
/// use handgrad::backend::Elementary;
/// assert_eq!(0.0_f32.lane_exp(), 1.0);
/// let (half, density) = 0.0_f64.lane_normal();
/// assert!((half - 0.5).abs() < 1e-15 && (density - 0.398_942_280_401_432_7).abs() < 1e-15);
/// ```
pub trait Elementary: Sized {
    /// e^x.
    fn lane_exp(self) -> Self;
    /// e^x − 1, without losing digits near 0.
    fn lane_exp_m1(self) -> Self;
    /// ln(1 + x) for x from 0 to 1, without losing digits near 0.
    fn lane_ln_1p(self) -> Self;
    /// The standard normal distribution Φ(x) = ½·(1 + erf(x/√2)), and its density.
    fn lane_normal(self) -> (Self, Self);
}

impl Elementary for f32 {
    #[inline(always)]
    fn lane_exp(self) -> f32 {
        math::exp(self)
    }
    #[inline(always)]
    fn lane_exp_m1(self) -> f32 {
        math::exp_m1(self)
    }
    #[inline(always)]
    fn lane_ln_1p(self) -> f32 {
        math::ln_1p(self)
    }
    #[inline(always)]
    fn lane_normal(self) -> (f32, f32) {
        math::normal(self)
    }
}

impl Elementary for f64 {
    fn lane_exp(self) -> f64 {
        self.exp()
    }
    fn lane_exp_m1(self) -> f64 {
        self.exp_m1()
    }
    fn lane_ln_1p(self) -> f64 {
        self.ln_1p()
    }
    fn lane_normal(self) -> (f64, f64) {
        let density = (-self * self / 2.0).exp() / std::f64::consts::TAU.sqrt();
        (0.5 * (1.0 + erf(self * std::f64::consts::FRAC_1_SQRT_2)), density)
    }
}

/// The error function: 2/√π·e^(−x²)·Σ 2ⁿ·x^(2n+1)/(2n+1)!!, whose terms all have one sign; ±1 to the last bit from 6
/// on.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() >= 6.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of erf from Abramowitz, Stegun (1964), table 7.1.
    #[test]
    fn the_error_function_has_its_known_values() {
        for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
            assert!((erf(x) - y).abs() < 1e-10 && (erf(-x) + y).abs() < 1e-10, "erf({x}) is {}", erf(x));
        }
        assert_eq!((erf(7.0), erf(f64::NEG_INFINITY)), (1.0, -1.0));
        assert!(erf(f64::NAN).is_nan());
        assert!((erf(5.999) - 1.0).abs() < 1e-14);
    }
}
