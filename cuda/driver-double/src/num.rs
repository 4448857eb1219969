//! Arithmetic as the PTX ISA states it, where Rust's own operators say something else: directed rounding, small floats,
//! flushing of subnormal numbers, the one NaN.
//!
//! Directed rounding of an f32 (or smaller) result goes through f64 rounded to odd: if a result is inexact, its last bit
//! is made one. An f64 has more than twice f32's bits and two, so rounding that again, in any mode, gives what rounding
//! the exact result once would (Boldo and Melquiond, 2008).

/// Rounding modes: nearest even, toward zero, down, up, nearest with ties away from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Near,
    Zero,
    Down,
    Up,
    Away,
}

impl Round {
    /// `rn`, `rzi`, …: a rounding modifier, of a fraction or to whole numbers.
    pub(crate) fn of(name: &str) -> Option<Round> {
        Some(match name {
            "rn" | "rni" => Round::Near,
            "rz" | "rzi" => Round::Zero,
            "rm" | "rmi" => Round::Down,
            "rp" | "rpi" => Round::Up,
            "rna" => Round::Away,
            _ => return None,
        })
    }
}

/// The NaN that f32 arithmetic gives on a GPU.
pub(crate) const NAN32: u32 = 0x7fff_ffff;

/// A binary format by its sizes of exponent and mantissa.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub exponent: u32,
    pub mantissa: u32,
}

pub(crate) const F16: Format = Format { exponent: 5, mantissa: 10 };
pub(crate) const BF16: Format = Format { exponent: 8, mantissa: 7 };
pub(crate) const F32: Format = Format { exponent: 8, mantissa: 23 };

/// The bits of `x` rounded once to a smaller format.
pub(crate) fn narrow(x: f64, to: Format, mode: Round) -> u64 {
    let sign = (x.to_bits() >> 63) << (to.exponent + to.mantissa);
    let infinity = ((1u64 << to.exponent) - 1) << to.mantissa;
    if x.is_nan() {
        return (1 << (to.exponent + to.mantissa)) - 1;
    }
    if x.is_infinite() {
        return sign | infinity;
    }
    if x == 0.0 {
        return sign;
    }
    let bits = x.to_bits() & !(1 << 63);
    let bias = (1i64 << (to.exponent - 1)) - 1;
    // |x| = mant 2^(power - 52); a subnormal f64 is smaller than every format here can show.
    let (power, mant) = match bits >> 52 {
        0 => (-1022, bits),
        e => (e as i64 - 1023, (bits & ((1 << 52) - 1)) | 1 << 52),
    };
    let lowest = 1 - bias;
    let shift = (power.max(lowest) - i64::from(to.mantissa) - (power - 52)).min(60);
    let (kept, rest, half) = (mant >> shift, mant & ((1 << shift) - 1), 1u64 << (shift - 1));
    let negative = sign != 0;
    let up = match mode {
        Round::Near => rest > half || (rest == half && kept & 1 == 1),
        Round::Away => rest >= half,
        Round::Zero => false,
        Round::Down => negative && rest > 0,
        Round::Up => !negative && rest > 0,
    };
    let kept = kept + u64::from(up);
    let magnitude =
        if power < lowest { kept } else { (((power + bias) as u64) << to.mantissa) + kept - (1 << to.mantissa) };
    if magnitude >= infinity {
        let finite = match mode {
            Round::Near | Round::Away => false,
            Round::Zero => true,
            Round::Down => !negative,
            Round::Up => negative,
        };
        return sign | if finite { infinity - 1 } else { infinity };
    }
    sign | magnitude
}

/// Half precision to f32: exact.
#[inline(always)]
pub(crate) fn from_f16(h: u64) -> f32 {
    let h = h as u32;
    let magnitude = if h & 0x7c00 == 0x7c00 {
        0x7f80_0000 | (h & 0x3ff) << 13
    } else {
        // 2^112 moves the exponent to f32's bias; a subnormal number becomes a normal one by the same product.
        (f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000)).to_bits()
    };
    f32::from_bits(magnitude | (h & 0x8000) << 16)
}

/// bfloat16 to f32: exact.
#[inline(always)]
pub(crate) fn from_bf16(h: u64) -> f32 {
    f32::from_bits((h as u32) << 16)
}

/// f32 in any rounding mode from a value that is exact or rounded to odd.
#[inline(always)]
pub(crate) fn to_f32(x: f64, mode: Round) -> f32 {
    if mode == Round::Near { x as f32 } else { f32::from_bits(narrow(x, F32, mode) as u32) }
}

/// `value + error` without loss becomes a value whose last bit says that it is inexact.
fn odd(value: f64, error: f64) -> f64 {
    if error == 0.0 || !value.is_finite() || value.to_bits() & 1 == 1 {
        return value;
    }
    if (error > 0.0) == (value > 0.0) {
        f64::from_bits(value.to_bits() + 1)
    } else {
        f64::from_bits(value.to_bits() - 1)
    }
}

/// What rounding took from `a + b`.
fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let part = sum - a;
    (a - (sum - part)) + (b - part)
}

pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if sum.is_finite() { odd(sum, sum_error(a, b, sum)) } else { sum }
}

/// a b + c where a b is exact in f64, as it is for every format up to f32. A sum that is exactly zero takes its sign by
/// the rounding mode.
pub(crate) fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    add_odd(a * b, c)
}

pub(crate) fn div_odd(a: f64, b: f64) -> f64 {
    let q = a / b;
    if !q.is_finite() || q == 0.0 || b.is_infinite() {
        return q;
    }
    let rest = (-q).mul_add(b, a);
    odd(q, if b > 0.0 { rest } else { -rest })
}

pub(crate) fn sqrt_odd(a: f64) -> f64 {
    let r = a.sqrt();
    if r.is_finite() && r > 0.0 { odd(r, (-r).mul_add(r, a)) } else { r }
}

/// The f64 next to `value` that rounding in `mode` gives when `value + error` is the exact result and `value` the nearest.
fn direct(value: f64, error: f64, mode: Round) -> f64 {
    if !value.is_finite() || error == 0.0 || error.is_nan() {
        return value;
    }
    let too_high = error < 0.0;
    match mode {
        Round::Near | Round::Away => value,
        Round::Down => {
            if too_high {
                value.next_down()
            } else {
                value
            }
        }
        Round::Up => {
            if too_high {
                value
            } else {
                value.next_up()
            }
        }
        Round::Zero => match (value > 0.0 || (value == 0.0 && error > 0.0), too_high) {
            (true, true) => value.next_down(),
            (false, false) => value.next_up(),
            _ => value,
        },
    }
}

/// The largest finite number instead of infinity, where the mode says so and no operand was infinite.
fn bounded(value: f64, mode: Round, finite: bool) -> f64 {
    let stays = match mode {
        Round::Near | Round::Away => false,
        Round::Zero => true,
        Round::Down => value > 0.0,
        Round::Up => value < 0.0,
    };
    if value.is_infinite() && finite && stays { f64::MAX.copysign(value) } else { value }
}

/// −0 where an exact sum of non-zero terms cancels in round-down.
fn zero_sign(sum: f64, a: f64, b: f64, mode: Round) -> f64 {
    if sum == 0.0 && mode == Round::Down && (a != 0.0 || (a.is_sign_negative() != b.is_sign_negative())) {
        -0.0
    } else {
        sum
    }
}

pub(crate) fn add64(a: f64, b: f64, mode: Round) -> f64 {
    let sum = a + b;
    if mode == Round::Near {
        return sum;
    }
    zero_sign(bounded(direct(sum, sum_error(a, b, sum), mode), mode, a.is_finite() && b.is_finite()), a, b, mode)
}

pub(crate) fn mul64(a: f64, b: f64, mode: Round) -> f64 {
    let product = a * b;
    if mode == Round::Near {
        return product;
    }
    bounded(direct(product, a.mul_add(b, -product), mode), mode, a.is_finite() && b.is_finite())
}

pub(crate) fn div64(a: f64, b: f64, mode: Round) -> f64 {
    let q = a / b;
    if mode == Round::Near || !q.is_finite() || b.is_infinite() {
        return bounded(q, mode, a.is_finite() && b != 0.0);
    }
    let rest = (-q).mul_add(b, a);
    direct(q, if b > 0.0 { rest } else { -rest }, mode)
}

pub(crate) fn sqrt64(a: f64, mode: Round) -> f64 {
    let r = a.sqrt();
    if r.is_finite() && r > 0.0 { direct(r, (-r).mul_add(r, a), mode) } else { r }
}

/// a b + c. Its rounding error comes from Boldo and Muller's ErrFma; products below 2^-969 are outside of its proof.
pub(crate) fn fma64(a: f64, b: f64, c: f64, mode: Round) -> f64 {
    let value = a.mul_add(b, c);
    if mode == Round::Near {
        return value;
    }
    let high = a * b;
    let low = a.mul_add(b, -high);
    let t = c + low;
    let lost = sum_error(c, low, t);
    let top = high + t;
    let rest = sum_error(high, t, top);
    let error = ((top - value) + rest) + lost;
    let exact = direct(value, error, mode);
    zero_sign(bounded(exact, mode, a.is_finite() && b.is_finite() && c.is_finite()), high, c, mode)
}

/// f32 sums and products in any mode.
#[inline(always)]
pub(crate) fn add32(a: f32, b: f32, mode: Round) -> f32 {
    if mode == Round::Near {
        a + b
    } else {
        zero_sign(f64::from(to_f32(add_odd(a.into(), b.into()), mode)), a.into(), b.into(), mode) as f32
    }
}

#[inline(always)]
pub(crate) fn mul32(a: f32, b: f32, mode: Round) -> f32 {
    if mode == Round::Near { a * b } else { to_f32(f64::from(a) * f64::from(b), mode) }
}

#[inline(always)]
pub(crate) fn fma32(a: f32, b: f32, c: f32, mode: Round) -> f32 {
    if mode == Round::Near {
        return a.mul_add(b, c);
    }
    let (x, y, z) = (f64::from(a), f64::from(b), f64::from(c));
    zero_sign(f64::from(to_f32(fma_odd(x, y, z), mode)), x * y, z, mode) as f32
}

#[inline(always)]
pub(crate) fn div32(a: f32, b: f32, mode: Round) -> f32 {
    if mode == Round::Near { a / b } else { to_f32(div_odd(a.into(), b.into()), mode) }
}

#[inline(always)]
pub(crate) fn sqrt32(a: f32, mode: Round) -> f32 {
    if mode == Round::Near { a.sqrt() } else { to_f32(sqrt_odd(a.into()), mode) }
}

/// Rounding to a whole number.
#[inline(always)]
pub(crate) fn whole(x: f64, mode: Round) -> f64 {
    match mode {
        Round::Near => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
        Round::Away => x.round(),
    }
}

/// A subnormal number becomes zero of its sign.
#[inline(always)]
pub(crate) fn flush(x: f32) -> f32 {
    if x.to_bits() & 0x7f80_0000 == 0 { f32::from_bits(x.to_bits() & 0x8000_0000) } else { x }
}

/// Clamped to [0, 1]; NaN becomes 0.
#[inline(always)]
pub(crate) fn saturate(x: f64) -> f64 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

/// f32 bits, every NaN being the same.
#[inline(always)]
pub(crate) fn bits32(x: f32) -> u64 {
    u64::from(if x.is_nan() { NAN32 } else { x.to_bits() })
}

/// tf32: 10 bits of mantissa, nearest with ties away from zero.
#[inline(always)]
pub(crate) fn to_tf32(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits & 0x7f80_0000 == 0x7f80_0000 { if x.is_nan() { NAN32 } else { bits } } else { (bits + 0x1000) & !0x1fff }
}

/// The low `bits` of `v` as a signed number.
#[inline(always)]
pub(crate) fn signed(v: u64, bits: u32) -> i64 {
    ((v << (64 - bits)) as i64) >> (64 - bits)
}

/// `bits` ones.
#[inline(always)]
pub(crate) fn ones(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits that look random.
    fn random() -> impl Iterator<Item = u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
    }

    #[test]
    fn narrowing_to_f32_is_the_processors_conversion() {
        for bits in random().take(100_000) {
            // Half of them near f32's range, where its subnormal numbers and its overflow are.
            let bits = if bits & 1 == 1 { bits } else { bits & 0x8fff_ffff_ffff_ffff | 0x3000_0000_0000_0000 };
            let x = f64::from_bits(bits);
            if !x.is_nan() {
                assert_eq!(narrow(x, F32, Round::Near) as u32, (x as f32).to_bits(), "{x:e}");
            }
        }
    }

    #[test]
    fn small_formats_come_back() {
        for h in 0..=0xffffu64 {
            let (a, b) = (f64::from(from_f16(h)), f64::from(from_bf16(h)));
            assert!(a.is_nan() || narrow(a, F16, Round::Near) == h);
            assert!(b.is_nan() || narrow(b, BF16, Round::Zero) == h);
        }
    }

    /// Exact results lie between rounding down and up, which are neighbours; the other modes are one of the two.
    fn around(exact: f64, of: impl Fn(Round) -> f32) {
        let [near, zero, down, up] = [Round::Near, Round::Zero, Round::Down, Round::Up].map(of);
        assert!(f64::from(down) <= exact && exact <= f64::from(up), "{exact:e}: {down:e} {up:e}");
        assert!(up == down || up == down.next_up());
        assert!(near == up || near == down);
        assert_eq!(zero, if exact > 0.0 { down } else { up });
    }

    #[test]
    fn directed_rounding_brackets_the_exact_result() {
        let mut bits = random();
        // Exponents that are near enough for f64 to hold sums and products exactly.
        let mut next = || f32::from_bits((bits.next().unwrap_or(0) as u32 & 0x80ff_ffff) | 0x3f00_0000);
        for _ in 0..20_000 {
            let (a, b, c) = (next(), next(), next());
            let (x, y, z) = (f64::from(a), f64::from(b), f64::from(c));
            around(x + y, |mode| add32(a, b, mode));
            around(x * y, |mode| mul32(a, b, mode));
            around(x.mul_add(y, z), |mode| fma32(a, b, c, mode));
            // Where f64 is not exact, its own rounding is too small to cross an f32.
            let quotient = x / y;
            if quotient as f32 as f64 != quotient {
                around(quotient, |mode| div32(a, b, mode));
            }
        }
    }

    #[test]
    fn rounding_to_odd_keeps_what_f64_loses() {
        // 1 + 2^-24 + 2^-80: f64 drops the last term, and f32 would then round to even.
        let sum = add_odd(1.0 + 2f64.powi(-24), 2f64.powi(-80));
        assert_eq!(to_f32(sum, Round::Near), 1.0 + f32::EPSILON);
        assert_eq!(to_f32(1.0 + 2f64.powi(-24), Round::Near), 1.0);
    }
}
