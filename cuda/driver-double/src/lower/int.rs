//! Integer and bit instructions.

use crate::lanes::{LaneFn, lanes};
use crate::num::{ones, signed};
use crate::ptx::Ty;

/// Two's complement of `bits` bits in the low part, as the type reads it.
#[inline(always)]
fn value(v: u64, bits: u32, sign: bool) -> i128 {
    if sign { i128::from(signed(v, bits)) } else { i128::from(v) }
}

/// The operation of an integer mnemonic; none if there is none of that name.
pub(super) fn integer(name: &str, mods: &[&str], ty: Ty) -> Option<LaneFn> {
    let has = |m: &str| mods.contains(&m);
    let (bits, sign) = (ty.bits(), ty.signed());
    let mask = ones(bits);
    Some(match name {
        "add" if has("sat") => {
            lanes(move |a, b, _| (signed(a, 32) + signed(b, 32)).clamp(i32::MIN.into(), i32::MAX.into()) as u32 as u64)
        }
        "sub" if has("sat") => {
            lanes(move |a, b, _| (signed(a, 32) - signed(b, 32)).clamp(i32::MIN.into(), i32::MAX.into()) as u32 as u64)
        }
        "add" => lanes(move |a, b, _| a.wrapping_add(b) & mask),
        "sub" => lanes(move |a, b, _| a.wrapping_sub(b) & mask),
        "mul" | "mad" => return product(name == "mad", mods, bits, sign),
        "mul24" | "mad24" => {
            let add = name == "mad24";
            let high = has("hi");
            lanes(move |a, b, c| {
                let p = (value(a & 0xff_ffff, 24, sign) * value(b & 0xff_ffff, 24, sign)) as u64;
                let p = if high { p >> 16 } else { p };
                p.wrapping_add(if add { c } else { 0 }) & mask
            })
        }
        "sad" => {
            lanes(move |a, b, c| c.wrapping_add(value(a, bits, sign).abs_diff(value(b, bits, sign)) as u64) & mask)
        }
        // A GPU gives all ones for a quotient by zero; the remainder is then the dividend.
        "div" if sign => lanes(
            move |a, b, _| if b == 0 { mask } else { signed(a, bits).wrapping_div(signed(b, bits)) as u64 & mask },
        ),
        "rem" if sign => {
            lanes(move |a, b, _| if b == 0 { a } else { signed(a, bits).wrapping_rem(signed(b, bits)) as u64 & mask })
        }
        "div" => lanes(move |a, b, _| a.checked_div(b).unwrap_or(mask)),
        "rem" => lanes(move |a, b, _| a.checked_rem(b).unwrap_or(a)),
        "abs" => lanes(move |a, _, _| signed(a, bits).wrapping_abs() as u64 & mask),
        "neg" => lanes(move |a, _, _| a.wrapping_neg() & mask),
        "min" if sign => lanes(move |a, b, _| if signed(a, bits) < signed(b, bits) { a } else { b }),
        "max" if sign => lanes(move |a, b, _| if signed(a, bits) > signed(b, bits) { a } else { b }),
        "min" => lanes(move |a, b, _| a.min(b)),
        "max" => lanes(move |a, b, _| a.max(b)),
        "popc" => lanes(move |a, _, _| u64::from(a.count_ones())),
        "clz" => lanes(move |a, _, _| u64::from(a.leading_zeros() - (64 - bits))),
        "bfind" => {
            let amount = has("shiftamt");
            lanes(move |a, _, _| {
                let v = if sign && signed(a, bits) < 0 { !a & mask } else { a };
                if v == 0 {
                    return 0xffff_ffff;
                }
                let top = u64::from(63 - v.leading_zeros());
                if amount { u64::from(bits) - 1 - top } else { top }
            })
        }
        "brev" => lanes(move |a, _, _| a.reverse_bits() >> (64 - bits)),
        "bfe" => lanes(move |a, b, c| {
            let (pos, len) = (b & 0xff, c & 0xff);
            let top = (pos + len).min(u64::from(bits)).wrapping_sub(1).min(u64::from(bits) - 1);
            let fill = sign && len > 0 && a >> top & 1 == 1;
            (0..u64::from(bits)).fold(0, |out, i| {
                let bit = if i < len && pos + i < u64::from(bits) { a >> (pos + i) & 1 } else { u64::from(fill) };
                out | bit << i
            })
        }),
        "bmsk" => {
            let wrap = has("wrap");
            lanes(move |a, b, _| {
                let (pos, len) = if wrap { (a & 31, b & 31) } else { (a.min(32), b.min(32)) };
                (ones(64) >> 1 & ((1 << len) - 1)) << pos & mask
            })
        }
        "and" => lanes(|a, b, _| a & b),
        "or" => lanes(|a, b, _| a | b),
        "xor" => lanes(|a, b, _| a ^ b),
        "not" => lanes(move |a, _, _| !a & mask),
        "cnot" => lanes(|a, _, _| u64::from(a == 0)),
        "shl" => lanes(move |a, b, _| if b < u64::from(bits) { a << b & mask } else { 0 }),
        "shr" if sign => lanes(move |a, b, _| (signed(a, bits) >> b.min(u64::from(bits) - 1)) as u64 & mask),
        "shr" => lanes(move |a, b, _| if b < u64::from(bits) { a >> b } else { 0 }),
        "shf" => {
            let (left, clamp) = (has("l"), has("clamp"));
            lanes(move |a, b, c| {
                let n = if clamp { c.min(32) } else { c & 31 };
                let both = b << 32 | a;
                (if left { (both << n) >> 32 } else { both >> n }) & 0xffff_ffff
            })
        }
        "prmt" => permute(mods)?,
        "dp4a" | "dp2a" => return None,
        _ => return None,
    })
}

fn product(add: bool, mods: &[&str], bits: u32, sign: bool) -> Option<LaneFn> {
    let mask = ones(bits);
    let half = match *mods.iter().find(|m| matches!(**m, "lo" | "hi" | "wide"))? {
        "lo" if add => return Some(lanes(move |a, b, c| a.wrapping_mul(b).wrapping_add(c) & mask)),
        "lo" => return Some(lanes(move |a, b, _| a.wrapping_mul(b) & mask)),
        half => half,
    };
    if half == "wide" {
        let wide = ones(2 * bits);
        return Some(match (sign, add) {
            (true, false) => lanes(move |a, b, _| signed(a, bits).wrapping_mul(signed(b, bits)) as u64 & wide),
            (true, true) => {
                lanes(move |a, b, c| (signed(a, bits).wrapping_mul(signed(b, bits)) as u64).wrapping_add(c) & wide)
            }
            (false, false) => lanes(move |a, b, _| a.wrapping_mul(b) & wide),
            (false, true) => lanes(move |a, b, c| a.wrapping_mul(b).wrapping_add(c) & wide),
        });
    }
    let saturating = mods.contains(&"sat");
    Some(lanes(move |a, b, c| {
        // Modulo 2^128 the product's high half is right for unsigned 64-bit numbers too.
        let p = value(a, bits, sign).wrapping_mul(value(b, bits, sign)) as u128;
        let high = (p >> bits) as u64 & mask;
        if add && saturating {
            return (signed(high, bits) + signed(c, bits)).clamp(i32::MIN.into(), i32::MAX.into()) as u64 & mask;
        }
        if add { high.wrapping_add(c) & mask } else { high }
    }))
}

/// Bytes of (b, a) picked by four nibbles of c, or by one of the named patterns.
fn permute(mods: &[&str]) -> Option<LaneFn> {
    let mode =
        mods.iter().find(|m| matches!(**m, "f4e" | "b4e" | "rc8" | "ecl" | "ecr" | "rc16")).map(|m| m.to_string());
    Some(lanes(move |a, b, c| {
        let bytes = (b << 32 | a).to_le_bytes();
        let s = (c & 3) as usize;
        let picked: [usize; 4] = match mode.as_deref() {
            None => {
                return (0..4).fold(0, |out, i| {
                    let n = (c >> (4 * i)) as usize & 15;
                    let byte = bytes[n & 7];
                    let byte = if n & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
                    out | u64::from(byte) << (8 * i)
                });
            }
            Some("f4e") => [s, s + 1, s + 2, s + 3],
            Some("b4e") => [s, (s + 7) & 7, (s + 6) & 7, (s + 5) & 7],
            Some("rc8") => [s; 4],
            Some("ecl") => [s, s.max(1), s.max(2), 3],
            Some("ecr") => [0, s.min(1), s.min(2), s],
            Some(_) => [2 * (s & 1), 2 * (s & 1) + 1, 2 * (s & 1), 2 * (s & 1) + 1],
        };
        picked.iter().enumerate().fold(0, |out, (i, n)| out | u64::from(bytes[*n]) << (8 * i))
    }))
}

/// `bfi d, a, b, pos, len` with its four sources: the two numbers come as one, pos | len << 8.
pub(crate) fn insert(a: u64, b: u64, pos: u64, len: u64, bits: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= u64::from(bits) || len == 0 {
        return b;
    }
    let field = ones(len.min(64) as u32) << pos & ones(bits);
    b & !field | a << pos & field
}

/// Any function of three bits, by its truth table.
pub(super) fn lop3(table: u64) -> LaneFn {
    let on = move |i: u32| if table >> i & 1 == 1 { u64::MAX } else { 0 };
    let t: [u64; 8] = std::array::from_fn(|i| on(i as u32));
    lanes(move |a, b, c| {
        let mut out = 0;
        for (i, t) in t.iter().enumerate() {
            let (x, y, z) =
                (if i & 4 != 0 { a } else { !a }, if i & 2 != 0 { b } else { !b }, if i & 1 != 0 { c } else { !c });
            out |= x & y & z & t;
        }
        out & 0xffff_ffff
    })
}

/// Dot products of four bytes, or of two halves with two of the bytes.
pub(super) fn dot(name: &str, sign_a: bool, sign_b: bool, high: bool) -> LaneFn {
    let four = name == "dp4a";
    lanes(move |a, b, c| {
        let part = |v: u64, width: u32, i: u32, sign: bool| value(v >> (width * i) & ones(width), width, sign) as i64;
        let sum: i64 = if four {
            (0..4).map(|i| part(a, 8, i, sign_a) * part(b, 8, i, sign_b)).sum()
        } else {
            (0..2).map(|i| part(a, 16, i, sign_a) * part(b, 8, i + if high { 2 } else { 0 }, sign_b)).sum()
        };
        (sum as u64).wrapping_add(c) & 0xffff_ffff
    })
}

/// Addition, subtraction and multiply-add with carry: result and carry (of a subtraction: the borrow).
pub(crate) type CarryFn = Box<dyn Fn(u64, u64, u64, u64) -> (u64, bool) + Send + Sync>;

pub(super) fn carry(name: &str, mods: &[&str], ty: Ty) -> Option<CarryFn> {
    let (bits, sign) = (ty.bits(), ty.signed());
    let mask = u128::from(ones(bits));
    let split = move |v: u128| ((v & mask) as u64, v >> bits & 1 == 1);
    Some(match name {
        "add" | "addc" => Box::new(move |a, b, _, cin| split(u128::from(a) + u128::from(b) + u128::from(cin))),
        "sub" | "subc" => {
            Box::new(move |a, b, _, cin| split(u128::from(a).wrapping_sub(u128::from(b)).wrapping_sub(u128::from(cin))))
        }
        "mad" | "madc" => {
            let high = mods.contains(&"hi");
            Box::new(move |a, b, c, cin| {
                let p = value(a, bits, sign).wrapping_mul(value(b, bits, sign)) as u128;
                let part = if high { p >> bits } else { p } & mask;
                split(part + u128::from(c) + u128::from(cin))
            })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::insert;

    #[test]
    fn a_field_is_inserted_within_its_width() {
        assert_eq!(insert(0xff, 0, 4, 8, 32), 0xff0);
        assert_eq!(insert(0xff, 0x1234, 40, 8, 32), 0x1234);
        assert_eq!(insert(1, 0, 31, 8, 32), 0x8000_0000);
        assert_eq!(insert(u64::MAX, 0, 0, 64, 64), u64::MAX);
        assert_eq!(insert(7, 9, 3, 0, 64), 9);
    }
}
