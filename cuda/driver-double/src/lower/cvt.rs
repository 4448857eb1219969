//! Conversions.

use super::float::read;
use crate::lanes::{LaneFn, lanes};
use crate::num::{
    BF16, F16, F32, Round, add_odd, bits32, flush, narrow, ones, saturate, signed, to_f32, to_tf32, whole,
};
use crate::ptx::Ty;

/// `cvt{.round}{.ftz}{.sat}.to.from`; none if there is no such conversion here.
pub(super) fn convert(mods: &[&str], to: Ty, from: Ty) -> Option<LaneFn> {
    let has = |m: &str| mods.contains(&m);
    let (ftz, sat) = (has("ftz"), has("sat"));
    let to_whole = mods.iter().any(|m| matches!(*m, "rni" | "rzi" | "rmi" | "rpi"));
    let round = mods.iter().find_map(|m| Round::of(m));
    match (to, from) {
        (Ty::Bf16x2 | Ty::F16x2, Ty::F32) => return pair(mods, to, round?),
        (Ty::Tf32, Ty::F32) if round == Some(Round::Away) => {
            return Some(lanes(|a, _, _| to_tf32(f32::from_bits(a as u32)).into()));
        }
        (Ty::Tf32 | Ty::Bf16x2 | Ty::F16x2, _) | (_, Ty::Tf32 | Ty::Bf16x2 | Ty::F16x2) => return None,
        _ => {}
    }
    let mode = round.unwrap_or(Round::Near);
    Some(match (to.float(), from.float()) {
        (false, false) => integers(to, from, sat),
        (false, true) => {
            let (bits, sign, mask) = (to.bits(), to.signed(), ones(to.bits()));
            lanes(move |a, _, _| {
                // `as` clamps and makes 0 of NaN, as the ISA says.
                let v = whole(read(a, from, ftz), mode);
                if sign {
                    (v as i64).clamp(signed(1 << (bits - 1), bits), (mask >> 1) as i64) as u64 & mask
                } else {
                    (v as u64).min(mask)
                }
            })
        }
        (true, false) => from_integer(to, from, mode, sat)?,
        (true, true) if to_whole => {
            lanes(move |a, _, _| write(whole(read(a, from, ftz), mode), to, Round::Near, ftz, sat))
        }
        (true, true) => match (to, from) {
            (Ty::F32, Ty::F32) => lanes(move |a, _, _| write(read(a, from, ftz), to, Round::Near, ftz, sat)),
            (Ty::F64, Ty::F32) if !ftz && !sat => lanes(|a, _, _| f64::from(f32::from_bits(a as u32)).to_bits()),
            (Ty::F32, Ty::F64) if mode == Round::Near && !ftz && !sat => {
                lanes(|a, _, _| bits32(f64::from_bits(a) as f32))
            }
            _ => {
                let relu = has("relu");
                lanes(move |a, _, _| {
                    let v = read(a, from, ftz);
                    write(if relu && v < 0.0 { 0.0 } else { v }, to, mode, ftz, sat)
                })
            }
        },
    })
}

/// `v` in the format of a register.
#[inline(always)]
fn write(v: f64, to: Ty, mode: Round, ftz: bool, sat: bool) -> u64 {
    let v = if sat { saturate(v) } else { v };
    match to {
        Ty::F64 => v.to_bits(),
        Ty::F16 => narrow(v, F16, mode),
        Ty::Bf16 => narrow(v, BF16, mode),
        _ => {
            let v = to_f32(v, mode);
            bits32(if ftz { flush(v) } else { v })
        }
    }
}

fn integers(to: Ty, from: Ty, sat: bool) -> LaneFn {
    let (bits, sign, mask) = (from.bits(), from.signed(), ones(to.bits()));
    if !sat {
        return if sign {
            lanes(move |a, _, _| signed(a & ones(bits), bits) as u64 & mask)
        } else {
            lanes(move |a, _, _| a & ones(bits) & mask)
        };
    }
    let (low, high) =
        if to.signed() { (-(i128::from(mask >> 1)) - 1, i128::from(mask >> 1)) } else { (0, i128::from(mask)) };
    lanes(move |a, _, _| {
        let v = if sign { i128::from(signed(a, bits)) } else { i128::from(a & ones(bits)) };
        v.clamp(low, high) as u64 & mask
    })
}

fn from_integer(to: Ty, from: Ty, mode: Round, sat: bool) -> Option<LaneFn> {
    let (bits, sign) = (from.bits(), from.signed());
    if mode == Round::Near && !sat {
        match (to, sign) {
            (Ty::F32, true) if bits == 64 => return Some(lanes(|a, _, _| (a as i64 as f32).to_bits().into())),
            (Ty::F32, false) if bits == 64 => return Some(lanes(|a, _, _| (a as f32).to_bits().into())),
            (Ty::F32, true) => return Some(lanes(move |a, _, _| (signed(a, bits) as i32 as f32).to_bits().into())),
            (Ty::F32, false) => return Some(lanes(move |a, _, _| ((a & ones(bits)) as u32 as f32).to_bits().into())),
            (Ty::F64, true) => return Some(lanes(move |a, _, _| (signed(a, bits) as f64).to_bits())),
            (Ty::F64, false) => return Some(lanes(move |a, _, _| ((a & ones(bits)) as f64).to_bits())),
            _ => {}
        }
    }
    Some(lanes(move |a, _, _| {
        let v = if sign { i128::from(signed(a, bits)) } else { i128::from(a & ones(bits)) };
        let (high, low) = ((v >> 32 << 32) as f64, (v & 0xffff_ffff) as f64);
        if to == Ty::F64 {
            return crate::num::add64(high, low, mode).to_bits();
        }
        write(add_odd(high, low), to, mode, false, sat)
    }))
}

/// Two numbers into one register, the first into its upper half.
fn pair(mods: &[&str], to: Ty, mode: Round) -> Option<LaneFn> {
    let format = if to == Ty::F16x2 { F16 } else { BF16 };
    let relu = mods.contains(&"relu");
    let sat = mods.contains(&"satfinite");
    if sat {
        return None;
    }
    let one = move |v: u64| {
        let v = f64::from(f32::from_bits(v as u32));
        narrow(if relu && v < 0.0 { 0.0 } else { v }, format, mode)
    };
    debug_assert!(F32.mantissa > format.mantissa);
    Some(lanes(move |a, b, _| one(a) << 16 | one(b)))
}
