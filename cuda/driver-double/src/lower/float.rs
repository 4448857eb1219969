//! Floating-point instructions, comparisons and the approximations.

use crate::lanes::{LaneFn, TestFn, lanes, test};
use crate::num::{self, BF16, F16, Round, bits32, flush, from_bf16, from_f16, narrow, saturate, signed};
use crate::ptx::Ty;

/// How an instruction treats its operands and its result.
#[derive(Debug, Clone, Copy)]
struct Flags {
    round: Round,
    ftz: bool,
    sat: bool,
    /// Of min and max: a NaN operand makes the result NaN.
    nan: bool,
    /// Of fma: a negative result becomes 0.
    relu: bool,
}

/// The operation of a floating-point mnemonic; none if there is none of that name and type.
pub(super) fn float(name: &str, mods: &[&str], ty: Ty) -> Option<LaneFn> {
    let has = |m: &str| mods.contains(&m);
    let round = mods.iter().find_map(|m| Round::of(m)).unwrap_or(Round::Near);
    let flags = Flags { round, ftz: has("ftz"), sat: has("sat"), nan: has("NaN"), relu: has("relu") };
    match ty {
        Ty::F32 => single(name, has("approx") || has("full"), flags),
        Ty::F64 => double(name, has("approx"), flags),
        Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2 => small(name, ty, flags),
        _ => None,
    }
}

fn f(v: u64) -> f32 {
    f32::from_bits(v as u32)
}

/// An f32 operation with its modifiers; the plain form is short enough for the compiler to vectorise.
fn with(flags: Flags, op: impl Fn(f32, f32, f32) -> f32 + Send + Sync + 'static) -> LaneFn {
    if !flags.ftz && !flags.sat {
        return lanes(move |a, b, c| bits32(op(f(a), f(b), f(c))));
    }
    let Flags { ftz, sat, .. } = flags;
    lanes(move |a, b, c| {
        let read = |v: u64| if ftz { flush(f(v)) } else { f(v) };
        let mut out = op(read(a), read(b), read(c));
        if ftz {
            out = flush(out);
        }
        bits32(if sat { saturate(out.into()) as f32 } else { out })
    })
}

fn single(name: &str, approx: bool, flags: Flags) -> Option<LaneFn> {
    let near = flags.round == Round::Near;
    let round = flags.round;
    Some(match name {
        "add" if near => with(flags, |a, b, _| a + b),
        "add" => with(flags, move |a, b, _| num::add32(a, b, round)),
        "sub" if near => with(flags, |a, b, _| a - b),
        "sub" => with(flags, move |a, b, _| num::add32(a, -b, round)),
        "mul" if near => with(flags, |a, b, _| a * b),
        "mul" => with(flags, move |a, b, _| num::mul32(a, b, round)),
        "fma" | "mad" if near => with(flags, |a, b, c| a.mul_add(b, c)),
        "fma" | "mad" => with(flags, move |a, b, c| num::fma32(a, b, c, round)),
        "div" if approx || near => with(flags, |a, b, _| a / b),
        "div" => with(flags, move |a, b, _| num::div32(a, b, round)),
        "rcp" if approx || near => with(flags, |a, _, _| 1.0 / a),
        "rcp" => with(flags, move |a, _, _| num::div32(1.0, a, round)),
        "sqrt" if approx || near => with(flags, |a, _, _| a.sqrt()),
        "sqrt" => with(flags, move |a, _, _| num::sqrt32(a, round)),
        "rsqrt" => with(flags, |a, _, _| (1.0 / f64::from(a).sqrt()) as f32),
        "ex2" => with(flags, |a, _, _| f64::from(a).exp2() as f32),
        "lg2" => with(flags, |a, _, _| f64::from(a).log2() as f32),
        "sin" => with(flags, |a, _, _| f64::from(a).sin() as f32),
        "cos" => with(flags, |a, _, _| f64::from(a).cos() as f32),
        "tanh" => with(flags, |a, _, _| f64::from(a).tanh() as f32),
        // Signs are bits: a NaN keeps its own.
        "abs" => sign_bits(flags, |a, _| a & 0x7fff_ffff),
        "neg" => sign_bits(flags, |a, _| a ^ 0x8000_0000),
        "copysign" => sign_bits(flags, |a, b| a & 0x8000_0000 | b & 0x7fff_ffff),
        "min" => with(flags, move |a, b, _| least(a.into(), b.into(), flags.nan) as f32),
        "max" => with(flags, move |a, b, _| -least(-f64::from(a), -f64::from(b), flags.nan) as f32),
        _ => return None,
    })
}

fn sign_bits(flags: Flags, op: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> LaneFn {
    let ftz = flags.ftz;
    lanes(move |a, b, _| {
        let read = |v: u64| if ftz { flush(f(v)).to_bits() } else { v as u32 };
        u64::from(op(read(a), read(b)))
    })
}

/// The smaller number; of two zeros the negative; of a number and a NaN the number, unless NaN is asked for.
#[inline(always)]
fn least(a: f64, b: f64, nan: bool) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if nan || (a.is_nan() && b.is_nan()) {
            f64::NAN
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    if a < b || (a == b && a.is_sign_negative()) { a } else { b }
}

fn double(name: &str, approx: bool, flags: Flags) -> Option<LaneFn> {
    let round = flags.round;
    let wide = |op: fn(f64, f64, f64, Round) -> f64| {
        lanes(move |a, b, c| op(f64::from_bits(a), f64::from_bits(b), f64::from_bits(c), round).to_bits())
    };
    let near = round == Round::Near;
    Some(match name {
        "add" if near => lanes(|a, b, _| (f64::from_bits(a) + f64::from_bits(b)).to_bits()),
        "sub" if near => lanes(|a, b, _| (f64::from_bits(a) - f64::from_bits(b)).to_bits()),
        "mul" if near => lanes(|a, b, _| (f64::from_bits(a) * f64::from_bits(b)).to_bits()),
        "fma" | "mad" if near => {
            lanes(|a, b, c| f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits())
        }
        "add" => wide(|a, b, _, r| num::add64(a, b, r)),
        "sub" => wide(|a, b, _, r| num::add64(a, -b, r)),
        "mul" => wide(|a, b, _, r| num::mul64(a, b, r)),
        "fma" | "mad" => wide(num::fma64),
        "div" => wide(|a, b, _, r| num::div64(a, b, r)),
        // The approximations read and write the upper half of their number only.
        "rcp" if approx => lanes(|a, _, _| (1.0 / f64::from_bits(a & !0xffff_ffff)).to_bits() & !0xffff_ffff),
        "rsqrt" => lanes(|a, _, _| (1.0 / f64::from_bits(a & !0xffff_ffff).sqrt()).to_bits() & !0xffff_ffff),
        "rcp" => wide(|a, _, _, r| num::div64(1.0, a, r)),
        "sqrt" => wide(|a, _, _, r| num::sqrt64(a, r)),
        "abs" => lanes(|a, _, _| a & !(1 << 63)),
        "neg" => lanes(|a, _, _| a ^ 1 << 63),
        "copysign" => lanes(|a, b, _| a & 1 << 63 | b & !(1 << 63)),
        "min" => wide(|a, b, _, _| least(a, b, false)),
        "max" => wide(|a, b, _, _| -least(-a, -b, false)),
        _ => return None,
    })
}

/// Half precision and bfloat16, one or a pair: exact in f64, rounded once.
fn small(name: &str, ty: Ty, flags: Flags) -> Option<LaneFn> {
    let half = matches!(ty, Ty::F16 | Ty::F16x2);
    let pair = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    if matches!(name, "neg" | "abs") {
        let negate = name == "neg";
        let signs = if pair { 0x8000_8000 } else { 0x8000 };
        return Some(lanes(move |a, _, _| if negate { a ^ signs } else { a & !signs }));
    }
    let op: fn(f64, f64, f64, bool) -> f64 = match name {
        "add" => |a, b, _, _| num::add_odd(a, b),
        "sub" => |a, b, _, _| num::add_odd(a, -b),
        "mul" => |a, b, _, _| a * b,
        "fma" => |a, b, c, _| num::fma_odd(a, b, c),
        "min" => |a, b, _, nan| least(a, b, nan),
        "max" => |a, b, _, nan| -least(-a, -b, nan),
        "ex2" => |a, _, _, _| a.exp2(),
        "tanh" => |a, _, _, _| a.tanh(),
        _ => return None,
    };
    let format = if half { F16 } else { BF16 };
    let Flags { ftz, sat, nan, relu, .. } = flags;
    let one = move |a: u64, b: u64, c: u64| {
        let read = |v: u64| {
            let v = v & 0xffff;
            let v = if ftz && half && v & 0x7c00 == 0 { v & 0x8000 } else { v };
            f64::from(if half { from_f16(v) } else { from_bf16(v) })
        };
        let mut x = op(read(a), read(b), read(c), nan);
        if sat {
            x = saturate(x);
        }
        if relu && x < 0.0 {
            x = 0.0;
        }
        let out = narrow(x, format, Round::Near);
        if ftz && half && out & 0x7c00 == 0 { out & 0x8000 } else { out }
    };
    Some(lanes(move |a, b, c| if pair { one(a, b, c) | one(a >> 16, b >> 16, c >> 16) << 16 } else { one(a, b, c) }))
}

/// The value of a floating-point register.
#[inline(always)]
pub(super) fn read(v: u64, ty: Ty, ftz: bool) -> f64 {
    match ty {
        Ty::F64 => f64::from_bits(v),
        Ty::F16 => from_f16(v & 0xffff).into(),
        Ty::Bf16 => from_bf16(v & 0xffff).into(),
        _ => (if ftz { flush(f(v)) } else { f(v) }).into(),
    }
}

/// A comparison by its name; none if the name is none.
pub(super) fn compare(name: &str, ty: Ty, ftz: bool) -> Option<TestFn> {
    if ty.float() {
        return compare_floats(name, ty, ftz);
    }
    let bits = ty.bits();
    Some(match (name, ty.signed()) {
        ("eq", _) => test(|a, b| a == b),
        ("ne", _) => test(|a, b| a != b),
        ("lt", true) => test(move |a, b| signed(a, bits) < signed(b, bits)),
        ("le", true) => test(move |a, b| signed(a, bits) <= signed(b, bits)),
        ("gt", true) => test(move |a, b| signed(a, bits) > signed(b, bits)),
        ("ge", true) => test(move |a, b| signed(a, bits) >= signed(b, bits)),
        ("lt" | "lo", false) => test(|a, b| a < b),
        ("le" | "ls", false) => test(|a, b| a <= b),
        ("gt" | "hi", false) => test(|a, b| a > b),
        ("ge" | "hs", false) => test(|a, b| a >= b),
        _ => return None,
    })
}

// The negated comparisons are the ones that hold for NaN.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
fn compare_floats(name: &str, ty: Ty, ftz: bool) -> Option<TestFn> {
    macro_rules! ordered {
        ($holds:expr) => {{
            let holds = $holds;
            if ty == Ty::F32 && !ftz {
                test(move |a, b| holds(f(a).into(), f(b).into()))
            } else {
                test(move |a, b| holds(read(a, ty, ftz), read(b, ty, ftz)))
            }
        }};
    }
    Some(match name {
        "eq" => ordered!(|a: f64, b: f64| a == b),
        "ne" => ordered!(|a: f64, b: f64| a != b && !a.is_nan() && !b.is_nan()),
        "lt" => ordered!(|a: f64, b: f64| a < b),
        "le" => ordered!(|a: f64, b: f64| a <= b),
        "gt" => ordered!(|a: f64, b: f64| a > b),
        "ge" => ordered!(|a: f64, b: f64| a >= b),
        "equ" => ordered!(|a: f64, b: f64| a == b || a.is_nan() || b.is_nan()),
        "neu" => ordered!(|a: f64, b: f64| a != b),
        "ltu" => ordered!(|a: f64, b: f64| !(a >= b)),
        "leu" => ordered!(|a: f64, b: f64| !(a > b)),
        "gtu" => ordered!(|a: f64, b: f64| !(a <= b)),
        "geu" => ordered!(|a: f64, b: f64| !(a < b)),
        "num" => ordered!(|a: f64, b: f64| !a.is_nan() && !b.is_nan()),
        "nan" => ordered!(|a: f64, b: f64| a.is_nan() || b.is_nan()),
        _ => return None,
    })
}

/// `testp.finite.f32` and the others.
pub(super) fn property(name: &str, ty: Ty) -> Option<TestFn> {
    let holds: fn(f64) -> bool = match name {
        "finite" => |v| v.is_finite(),
        "infinite" => |v| v.is_infinite(),
        "number" => |v| !v.is_nan(),
        "notanumber" => |v| v.is_nan(),
        "normal" | "subnormal" => {
            let normal = name == "normal";
            let least = if ty == Ty::F64 { f64::MIN_POSITIVE } else { f32::MIN_POSITIVE.into() };
            return Some(test(move |a, _| {
                let v = read(a, ty, false).abs();
                if normal { v >= least && v.is_finite() } else { v > 0.0 && v < least }
            }));
        }
        _ => return None,
    };
    Some(test(move |a, _| holds(read(a, ty, false))))
}
