//! One instruction at a time: operands, and the result that the PTX ISA states.

use crate::{device, launch, module};

/// `instruction` with operands a, b, c, e and result d: types and values of the operands, type and bits of the result.
fn eval(instruction: &str, out: &str, operands: &[(&str, u64)]) -> u64 {
    let mut device = device();
    let names = ["a", "b", "c", "e"];
    let bytes = |ty: &str| ty[1..].parse::<usize>().expect("bits") / 8;
    let mut body = format!(".reg .pred p, q; .reg .{out} d;\n");
    let mut args = Vec::new();
    for ((ty, value), name) in operands.iter().zip(names) {
        let at = device.alloc(8).expect("room");
        device.upload(at, &value.to_le_bytes()).expect("in range");
        args.push(at.to_le_bytes());
        body += &format!(".reg .{ty} {name}; ld.param.u64 %rd1, [p{name}]; ld.global.{ty} {name}, [%rd1];\n");
    }
    let result = device.alloc(8).expect("room");
    args.push(result.to_le_bytes());
    let pred = if instruction.contains(" p, ") || instruction.contains(" p|q, ") { "selp.b32 d, 1, 0, p;" } else { "" };
    body += &format!("{instruction}\n{pred}\nld.param.u64 %rd2, [pd];\nst.global.{out} [%rd2], d;");
    let params: Vec<String> =
        names[..operands.len()].iter().chain(&["d"]).map(|n| format!(".param .u64 p{n}")).collect();
    let args: Vec<&[u8]> = args.iter().map(|a| a.as_slice()).collect();
    launch(&mut device, &module(&params.join(", "), &body), [1, 1, 1], [1, 1, 1], 0, &args)
        .unwrap_or_else(|e| panic!("{instruction}: {e}"));
    let mut found = [0; 8];
    let n = bytes(out);
    device.download(result, &mut found[..n]).expect("written");
    u64::from_le_bytes(found)
}

#[track_caller]
fn check(instruction: &str, out: &str, operands: &[(&str, u64)], expected: u64) {
    let found = eval(instruction, out, operands);
    assert_eq!(found, expected, "{instruction} {operands:x?}: {found:#x}, expected {expected:#x}");
}

fn f(v: f32) -> u64 {
    v.to_bits().into()
}

fn d(v: f64) -> u64 {
    v.to_bits()
}

fn i(v: i32) -> u64 {
    (v as u32).into()
}

#[test]
fn integers() {
    let two = |ins: &str, a: i32, b: i32, want: i32| check(ins, "b32", &[("b32", i(a)), ("b32", i(b))], i(want));
    two("add.s32 d, a, b;", i32::MAX, 1, i32::MIN);
    two("add.sat.s32 d, a, b;", i32::MAX, 1, i32::MAX);
    two("sub.s32 d, a, b;", 3, 5, -2);
    two("sub.sat.s32 d, a, b;", i32::MIN, 1, i32::MIN);
    two("mul.lo.s32 d, a, b;", 0x1_0001, 0x1_0001, 0x2_0001);
    two("mul.hi.s32 d, a, b;", -2, 3, -1);
    two("mul.hi.u32 d, a, b;", -1, -1, -2);
    two("mul24.lo.s32 d, a, b;", 0x80_0001, 2, -0xff_fffe);
    two("div.s32 d, a, b;", -7, 2, -3);
    two("rem.s32 d, a, b;", -7, 2, -1);
    two("div.u32 d, a, b;", -7, 2, 0x7fff_fffc);
    two("rem.u32 d, a, b;", -7, 4, 1);
    two("min.s32 d, a, b;", -7, 2, -7);
    two("min.u32 d, a, b;", -7, 2, 2);
    two("max.s32 d, a, b;", -7, 2, 2);
    two("max.u32 d, a, b;", -7, 2, -7);
    two("and.b32 d, a, b;", 12, 10, 8);
    two("or.b32 d, a, b;", 12, 10, 14);
    two("xor.b32 d, a, b;", 12, 10, 6);
    two("shl.b32 d, a, b;", 3, 31, i32::MIN);
    two("shl.b32 d, a, b;", 3, 32, 0);
    two("shr.s32 d, a, b;", -8, 40, -1);
    two("shr.u32 d, a, b;", -8, 28, 15);
    two("bmsk.clamp.b32 d, a, b;", 4, 8, 0xff0);
    two("sad.s32 d, a, b, 10;", -3, 4, 17);
    two("mov.b32 d, a;", 5, 0, 5);
    let one = |ins: &str, a: i32, want: i32| check(ins, "b32", &[("b32", i(a))], i(want));
    one("neg.s32 d, a;", 5, -5);
    one("abs.s32 d, a;", i32::MIN, i32::MIN);
    one("not.b32 d, a;", 0, -1);
    one("cnot.b32 d, a;", 0, 1);
    one("popc.b32 d, a;", 0x0f0f, 8);
    one("clz.b32 d, a;", 0, 32);
    one("clz.b32 d, a;", 0xffff, 16);
    one("brev.b32 d, a;", 1, i32::MIN);
    one("bfind.u32 d, a;", 0x100, 8);
    one("bfind.u32 d, a;", 0, -1);
    one("bfind.s32 d, a;", -2, 0);
    one("bfind.shiftamt.u32 d, a;", 0x100, 23);
    one("bfe.u32 d, a, 4, 8;", 0xabcd, 0xbc);
    one("bfe.s32 d, a, 4, 8;", 0xabcd, 0xffff_ffbcu32 as i32);
    one("bfe.s32 d, a, 28, 8;", i32::MIN, -8);
    one("bfe.u32 d, a, 4, 0;", -1, 0);
    let three = |ins: &str, [a, b, c]: [i32; 3], want: i32| {
        check(ins, "b32", &[("b32", i(a)), ("b32", i(b)), ("b32", i(c))], i(want))
    };
    three("mad.lo.s32 d, a, b, c;", [3, -4, 5], -7);
    three("mad.hi.s32 d, a, b, c;", [1 << 30, 8, 5], 7);
    three("mad.hi.u32 d, a, b, c;", [-1, -1, 5], 3);
    three("mad24.lo.u32 d, a, b, c;", [0x0100_0002, 3, 4], 10);
    three("bfi.b32 d, a, b, 8, c;", [0xff, 0, 4], 0xf00);
    three("lop3.b32 d, a, b, c, 0x96;", [0b1100, 0b1010, 0b0110], 0);
    three("lop3.b32 d, a, b, c, 0xE8;", [0b1100, 0b1010, 0b0110], 0b1110);
    three("shf.l.wrap.b32 d, a, b, c;", [i32::MIN, 1, 33], 3);
    three("shf.r.wrap.b32 d, a, b, c;", [0, 1, 1], i32::MIN);
    three("shf.r.clamp.b32 d, a, b, c;", [7, 5, 40], 5);
    three("prmt.b32 d, a, b, c;", [0x3322_1100, 0x7766_5544, 0x5140], 0x5511_4400);
    three("prmt.b32 d, a, b, c;", [0x80, 0, 0x8888], -1);
    three("prmt.b32.f4e d, a, b, c;", [0x3322_1100, 0x7766_5544, 1], 0x4433_2211);
    three("prmt.b32.rc16 d, a, b, c;", [0x3322_1100, 0, 1], 0x3322_3322);
    three("dp4a.s32.s32 d, a, b, c;", [0x01ff_0203, 0x0202_0202, 100], 110);
    three("dp4a.u32.u32 d, a, b, c;", [0x01ff_0203, 0x0202_0202, 0], 522);
    three("dp2a.lo.s32.s32 d, a, b, c;", [0x0003_fffe, 0x0000_0504, 1], 8);
    three("slct.b32.s32 d, a, b, c;", [1, 2, -1], 2);
    check("div.s32 d, a, b;", "b32", &[("b32", i(i32::MIN)), ("b32", i(-1))], i(i32::MIN));
    check("mul.wide.s32 d, a, b;", "b64", &[("b32", i(-3)), ("b32", i(1 << 30))], (-3i64 << 30) as u64);
    check("mul.wide.u32 d, a, b;", "b64", &[("b32", i(-1)), ("b32", i(-1))], 0xffff_fffe_0000_0001);
    check("mul.wide.s16 d, a, b;", "b32", &[("b16", 0xffff), ("b16", 300)], i(-300));
    check("mad.wide.s32 d, a, b, c;", "b64", &[("b32", i(-3)), ("b32", 5), ("b64", 1 << 40)], (1 << 40) - 15);
    check("mul.hi.u64 d, a, b;", "b64", &[("b64", u64::MAX), ("b64", u64::MAX)], u64::MAX - 1);
    check("mul.hi.s64 d, a, b;", "b64", &[("b64", u64::MAX), ("b64", 5)], u64::MAX);
    check("div.s64 d, a, b;", "b64", &[("b64", (-7i64) as u64), ("b64", 2)], (-3i64) as u64);
    check("rem.u64 d, a, b;", "b64", &[("b64", u64::MAX), ("b64", 10)], 5);
    check("shr.s64 d, a, b;", "b64", &[("b64", 1 << 63), ("b32", 63)], u64::MAX);
    check("bfe.u64 d, a, 60, 8;", "b64", &[("b64", u64::MAX)], 15);
    check("bfi.b64 d, a, b, 60, 8;", "b64", &[("b64", 0xff), ("b64", 0)], 0xf << 60);
    check("clz.b64 d, a;", "b32", &[("b64", 1)], 63);
    check("popc.b64 d, a;", "b32", &[("b64", u64::MAX)], 64);
    check("brev.b64 d, a;", "b64", &[("b64", 1)], 1 << 63);
    check("add.s16 d, a, b;", "b16", &[("b16", 0x7fff), ("b16", 1)], 0x8000);
    check("shr.s16 d, a, b;", "b16", &[("b16", 0x8000), ("b32", 3)], 0xf000);
    check("mov.b32 d, {a, b};", "b32", &[("b16", 0x1111), ("b16", 0x2222)], 0x2222_1111);
    check("mov.b32 {%h1, %h2}, a; mov.b32 d, {%h2, %h1};", "b32", &[("b32", 0x2222_1111)], 0x1111_2222);
    check("mov.b64 {%r1, _}, a; mov.b32 d, %r1;", "b32", &[("b64", 0x2222_1111)], 0x2222_1111);
}

#[test]
fn carries() {
    let wide = |ins: &str, a: u64, b: u64, want: u64| {
        let text = format!("mov.b64 {{%r1, %r2}}, a; mov.b64 {{%r3, %r4}}, b; {ins} mov.b64 d, {{%r5, %r6}};");
        check(&text, "b64", &[("b64", a), ("b64", b)], want);
    };
    wide("add.cc.u32 %r5, %r1, %r3; addc.u32 %r6, %r2, %r4;", 0xffff_ffff_ffff, 1, 0x1_0000_0000_0000);
    wide("sub.cc.u32 %r5, %r1, %r3; subc.u32 %r6, %r2, %r4;", 1 << 40, 1, (1 << 40) - 1);
    let product = "mul.lo.u32 %r5, %r1, %r3; mul.hi.u32 %r6, %r1, %r3; mad.lo.cc.u32 %r6, %r1, %r4, %r6; madc.hi.u32 %r7, %r1, %r4, 0; mad.lo.u32 %r6, %r2, %r3, %r6;";
    wide(
        product,
        0x1234_5678_9abc_def0,
        0xfedc_ba98_7654_3211,
        0x1234_5678_9abc_def0u64.wrapping_mul(0xfedc_ba98_7654_3211),
    );
    wide("add.cc.u32 %r5, %r1, %r3; addc.cc.u32 %r6, %r2, %r4; addc.u32 %r5, 0, 0;", u64::MAX, 1, 1);
}

#[test]
fn single_precision() {
    let two = |ins: &str, a: f32, b: f32, want: f32| check(ins, "f32", &[("f32", f(a)), ("f32", f(b))], f(want));
    let tiny = f32::from_bits(1);
    let ulp = f32::EPSILON;
    two("add.f32 d, a, b;", 1.0, ulp / 2.0, 1.0);
    two("add.rz.f32 d, a, b;", -1.0, -ulp / 2.0, -1.0);
    two("add.rp.f32 d, a, b;", 1.0, 1e-30, 1.0 + ulp);
    two("add.rm.f32 d, a, b;", 1.0, -1e-30, 1.0 - ulp / 2.0);
    two("add.rm.f32 d, a, b;", 1.0, -1.0, -0.0);
    two("add.rn.f32 d, a, b;", 1.0, -1.0, 0.0);
    two("add.rz.f32 d, a, b;", f32::MAX, f32::MAX, f32::MAX);
    two("add.ftz.f32 d, a, b;", tiny, -0.0, 0.0);
    two("add.sat.f32 d, a, b;", 0.75, 0.5, 1.0);
    two("add.sat.f32 d, a, b;", f32::NAN, 0.5, 0.0);
    two("sub.rp.f32 d, a, b;", 1.0, -1e-30, 1.0 + ulp);
    two("mul.ftz.f32 d, a, b;", 1e-20, 1e-20, 0.0);
    two("mul.f32 d, a, b;", 1e-20, 1e-20, 1e-20 * 1e-20);
    two("mul.rz.f32 d, a, b;", 1.0 + ulp, 1.0 + ulp, 1.0 + 2.0 * ulp);
    two("mul.rp.f32 d, a, b;", 1.0 + ulp, 1.0 + ulp, 1.0 + 3.0 * ulp);
    two("mul.rp.f32 d, a, b;", tiny, tiny, tiny);
    two("mul.rm.f32 d, a, b;", -tiny, tiny, -tiny);
    two("div.rn.f32 d, a, b;", 1.0, 3.0, 1.0 / 3.0);
    two("div.rz.f32 d, a, b;", 1.0, 3.0, f32::from_bits((1.0f32 / 3.0).to_bits() - 1));
    two("div.rm.f32 d, a, b;", 2.0, 3.0, f32::from_bits((2.0f32 / 3.0).to_bits() - 1));
    two("div.approx.f32 d, a, b;", 6.0, 3.0, 2.0);
    two("div.full.ftz.f32 d, a, b;", 6.0, tiny, f32::INFINITY);
    two("min.f32 d, a, b;", f32::NAN, 2.0, 2.0);
    two("max.f32 d, a, b;", -0.0, 0.0, 0.0);
    two("min.f32 d, a, b;", 0.0, -0.0, -0.0);
    two("copysign.f32 d, a, b;", -1.0, 3.0, -3.0);
    check("max.NaN.f32 d, a, b;", "f32", &[("f32", f(f32::NAN)), ("f32", f(2.0))], 0x7fff_ffff);
    check("sub.f32 d, a, b;", "f32", &[("f32", f(f32::INFINITY)), ("f32", f(f32::INFINITY))], 0x7fff_ffff);
    let three = |ins: &str, [a, b, c]: [f32; 3], want: f32| {
        check(ins, "f32", &[("f32", f(a)), ("f32", f(b)), ("f32", f(c))], f(want))
    };
    let x = 1.0 + ulp;
    three("fma.rn.f32 d, a, b, c;", [x, x, -1.0 - 2.0 * ulp], ulp * ulp);
    three("fma.rm.f32 d, a, b, c;", [1.0, 1.0, -1e-30], 1.0 - ulp / 2.0);
    three("fma.rp.f32 d, a, b, c;", [1.0, 1.0, 1e-30], 1.0 + ulp);
    three("fma.rz.f32 d, a, b, c;", [-1.0, 1.0, 1e-30], -1.0 + ulp / 2.0);
    three("fma.rm.f32 d, a, b, c;", [3.0, 1.0, -3.0], -0.0);
    three("fma.rn.ftz.f32 d, a, b, c;", [tiny, 1.0, 0.0], 0.0);
    three("fma.rn.sat.f32 d, a, b, c;", [2.0, 2.0, -9.0], 0.0);
    // The largest number below 12582912.5 added to it: what expf does.
    three("fma.rm.f32 d, a, b, c;", [0.5, 1.9, 12_582_912.0], 12_582_912.0);
    let one = |ins: &str, a: f32, want: f32| check(ins, "f32", &[("f32", f(a))], f(want));
    one("rcp.rn.f32 d, a;", 3.0, 1.0 / 3.0);
    one("rcp.rp.f32 d, a;", 3.0, 1.0 / 3.0);
    one("rcp.rm.f32 d, a;", 3.0, f32::from_bits((1.0f32 / 3.0).to_bits() - 1));
    one("rcp.approx.ftz.f32 d, a;", f32::from_bits(1 << 31 | 1), f32::NEG_INFINITY);
    one("sqrt.rn.f32 d, a;", 2.0, 2f32.sqrt());
    one("sqrt.rm.f32 d, a;", 2.0, 2f32.sqrt());
    one("sqrt.rp.f32 d, a;", 2.0, f32::from_bits(2f32.sqrt().to_bits() + 1));
    one("sqrt.approx.f32 d, a;", 9.0, 3.0);
    one("rsqrt.approx.f32 d, a;", 4.0, 0.5);
    one("ex2.approx.f32 d, a;", -149.0, tiny);
    one("ex2.approx.ftz.f32 d, a;", -149.0, 0.0);
    one("lg2.approx.f32 d, a;", 8.0, 3.0);
    one("sin.approx.f32 d, a;", 0.0, 0.0);
    one("cos.approx.f32 d, a;", 0.0, 1.0);
    one("tanh.approx.f32 d, a;", 100.0, 1.0);
    one("abs.f32 d, a;", -2.0, 2.0);
    one("neg.f32 d, a;", 0.0, -0.0);
    one("abs.ftz.f32 d, a;", -tiny, 0.0);
}

#[test]
fn double_precision() {
    let two = |ins: &str, a: f64, b: f64, want: f64| check(ins, "f64", &[("f64", d(a)), ("f64", d(b))], d(want));
    let ulp = f64::EPSILON;
    two("add.f64 d, a, b;", 0.1, 0.2, 0.1 + 0.2);
    two("add.rp.f64 d, a, b;", 1.0, 1e-300, 1.0 + ulp);
    two("add.rm.f64 d, a, b;", 1.0, -1e-300, 1.0 - ulp / 2.0);
    two("add.rz.f64 d, a, b;", -1.0, 1e-300, -1.0 + ulp / 2.0);
    two("add.rm.f64 d, a, b;", f64::MAX, f64::MAX, f64::MAX);
    two("sub.rm.f64 d, a, b;", 5.0, 5.0, -0.0);
    two("mul.rz.f64 d, a, b;", 1.0 + ulp, 1.0 + ulp, 1.0 + 2.0 * ulp);
    two("mul.rp.f64 d, a, b;", 1.0 + ulp, 1.0 + ulp, 1.0 + 3.0 * ulp);
    two("div.rn.f64 d, a, b;", 1.0, 3.0, 1.0 / 3.0);
    two("div.rp.f64 d, a, b;", 1.0, 3.0, (1.0f64 / 3.0).next_up());
    two("div.rm.f64 d, a, b;", -1.0, 3.0, (-1.0f64 / 3.0).next_down());
    two("min.f64 d, a, b;", f64::NAN, 1.0, 1.0);
    two("max.f64 d, a, b;", -0.0, 0.0, 0.0);
    two("copysign.f64 d, a, b;", -1.0, 3.0, -3.0);
    let three = |ins: &str, [a, b, c]: [f64; 3], want: f64| {
        check(ins, "f64", &[("f64", d(a)), ("f64", d(b)), ("f64", d(c))], d(want))
    };
    let x = 1.0 + ulp;
    three("fma.rn.f64 d, a, b, c;", [x, x, -1.0 - 2.0 * ulp], ulp * ulp);
    three("fma.rp.f64 d, a, b, c;", [x, x, 0.0], 1.0 + 3.0 * ulp);
    three("fma.rz.f64 d, a, b, c;", [x, x, 1e-300], 1.0 + 2.0 * ulp);
    three("fma.rm.f64 d, a, b, c;", [1.0, 1.0, -1e-300], 1.0 - ulp / 2.0);
    let one = |ins: &str, a: f64, want: f64| check(ins, "f64", &[("f64", d(a))], d(want));
    one("sqrt.rn.f64 d, a;", 2.0, 2f64.sqrt());
    one("sqrt.rp.f64 d, a;", 2.0, 2f64.sqrt());
    one("sqrt.rm.f64 d, a;", 2.0, 2f64.sqrt().next_down());
    one("rcp.rn.f64 d, a;", 3.0, 1.0 / 3.0);
    one("rcp.approx.ftz.f64 d, a;", 4.0, 0.25);
    one("rsqrt.approx.ftz.f64 d, a;", 4.0, 0.5);
    one("abs.f64 d, a;", -2.0, 2.0);
    one("neg.f64 d, a;", 2.0, -2.0);
}

#[test]
fn small_floats() {
    let h = |v: f32| eval("cvt.rn.f16.f32 d, a;", "b16", &[("f32", f(v))]);
    let b = |v: f32| eval("cvt.rn.bf16.f32 d, a;", "b16", &[("f32", f(v))]);
    assert_eq!(
        [h(1.0), h(65520.0), h(65519.0), h(6e-8), h(-2.0), h(f32::NAN)],
        [0x3c00, 0x7c00, 0x7bff, 1, 0xc000, 0x7fff]
    );
    assert_eq!([b(1.0), b(257.0), b(259.0), b(f32::MAX), b(f32::NAN)], [0x3f80, 0x4380, 0x4382, 0x7f80, 0x7fff]);
    check("cvt.rz.f16.f32 d, a;", "b16", &[("f32", f(65520.0))], 0x7bff);
    check("cvt.f32.f16 d, a;", "f32", &[("b16", 1)], f(2f32.powi(-24)));
    check("cvt.f32.f16 d, a;", "f32", &[("b16", 0xfc00)], f(f32::NEG_INFINITY));
    check("cvt.rn.bf16x2.f32 d, a, b;", "b32", &[("f32", f(1.0)), ("f32", f(2.0))], 0x3f80_4000);
    check("cvt.rn.f16x2.f32 d, a, b;", "b32", &[("f32", f(1.0)), ("f32", f(2.0))], 0x3c00_4000);
    check("cvt.rna.tf32.f32 d, a;", "b32", &[("f32", 0x3f80_1000)], 0x3f80_2000);
    check("cvt.rna.tf32.f32 d, a;", "b32", &[("f32", 0x3f80_0fff)], 0x3f80_0000);
    let two = |ins: &str, a: u64, b: u64, want: u64| check(ins, "b32", &[("b32", a), ("b32", b)], want);
    two("add.f16x2 d, a, b;", 0x3c00_4000, 0x3c00_3c00, 0x4000_4200);
    two("mul.bf16x2 d, a, b;", 0x3f80_4000, 0x4000_4000, 0x4000_4080);
    two("fma.rn.bf16x2 d, a, b, a;", 0x3f80_4000, 0x4000_4000, 0x4040_40c0);
    two("fma.rn.relu.f16x2 d, a, b, a;", 0xbc00_3c00, 0x3c00_3c00, 0x0000_4000);
    two("max.f16x2 d, a, b;", 0xbc00_7fff, 0x3c00_3c00, 0x3c00_3c00);
    two("neg.bf16x2 d, a;", 0x3f80_c000, 0, 0xbf80_4000);
    check("add.f16 d, a, b;", "b16", &[("b16", 0x3c00), ("b16", 0x1000)], 0x3c00);
    check("fma.rn.f16 d, a, b, c;", "b16", &[("b16", 0x3c01), ("b16", 0x3c01), ("b16", 0xbc02)], 0x0010);
    check("setp.lt.f16 p, a, b;", "b32", &[("b16", 0xbc00), ("b16", 0x3c00)], 1);
}

#[test]
fn conversions() {
    let one = |ins: &str, from: (&str, u64), out: &str, want: u64| check(ins, out, &[from], want);
    one("cvt.rzi.s32.f32 d, a;", ("f32", f(-2.7)), "b32", i(-2));
    one("cvt.rni.s32.f32 d, a;", ("f32", f(2.5)), "b32", i(2));
    one("cvt.rmi.s32.f32 d, a;", ("f32", f(-2.1)), "b32", i(-3));
    one("cvt.rpi.s32.f32 d, a;", ("f32", f(2.1)), "b32", i(3));
    one("cvt.rzi.s32.f32 d, a;", ("f32", f(3e9)), "b32", i(i32::MAX));
    one("cvt.rzi.u32.f32 d, a;", ("f32", f(-3.0)), "b32", 0);
    one("cvt.rzi.u32.f32 d, a;", ("f32", f(f32::NAN)), "b32", 0);
    one("cvt.rzi.u8.f32 d, a;", ("f32", f(300.0)), "b16", 255);
    one("cvt.rzi.s64.f64 d, a;", ("f64", d(-1e15)), "b64", (-1_000_000_000_000_000i64) as u64);
    one("cvt.rni.f32.f32 d, a;", ("f32", f(3.5)), "f32", f(4.0));
    one("cvt.rzi.f64.f64 d, a;", ("f64", d(-3.5)), "f64", d(-3.0));
    one("cvt.rmi.ftz.f32.f32 d, a;", ("f32", 0x8000_0001), "f32", f(-0.0));
    one("cvt.sat.f32.f32 d, a;", ("f32", f(7.0)), "f32", f(1.0));
    one("cvt.ftz.f32.f32 d, a;", ("f32", 5), "f32", 0);
    one("cvt.rn.f32.s32 d, a;", ("b32", i(-16_777_217)), "f32", f(-16_777_216.0));
    one("cvt.rm.f32.s32 d, a;", ("b32", i(-16_777_217)), "f32", f(-16_777_218.0));
    one("cvt.rz.f32.u32 d, a;", ("b32", 0xffff_ffff), "f32", f(4_294_967_040.0));
    one("cvt.rp.f32.s64 d, a;", ("b64", (1 << 40) + 1), "f32", f(f32::from_bits((2f32.powi(40)).to_bits() + 1)));
    one("cvt.rn.f32.u64 d, a;", ("b64", u64::MAX), "f32", f(18_446_744_073_709_551_615.0));
    one("cvt.rz.f64.u64 d, a;", ("b64", u64::MAX), "f64", d(18_446_744_073_709_549_568.0));
    one("cvt.rn.f64.s64 d, a;", ("b64", u64::MAX), "f64", d(-1.0));
    one("cvt.rn.f32.u16 d, a;", ("b16", 0xffff), "f32", f(65535.0));
    one("cvt.rn.f32.s8 d, a;", ("b16", 0xff), "f32", f(-1.0));
    one("cvt.rn.f32.u8 d, a;", ("b32", 0x1ff), "f32", f(255.0));
    one("cvt.rn.f16.s32 d, a;", ("b32", 2049), "b16", 0x6800);
    one("cvt.rn.f32.f64 d, a;", ("f64", d(0.1)), "f32", f(0.1));
    one("cvt.rm.f32.f64 d, a;", ("f64", d(0.1)), "f32", f(f32::from_bits(0.1f32.to_bits() - 1)));
    one("cvt.rz.f32.f64 d, a;", ("f64", d(1e300)), "f32", f(f32::MAX));
    one("cvt.rn.ftz.f32.f64 d, a;", ("f64", d(-1e-40)), "f32", f(-0.0));
    one("cvt.f64.f32 d, a;", ("f32", f(0.1)), "f64", d(0.1f32.into()));
    one("cvt.s32.s8 d, a;", ("b32", 0x1ff), "b32", i(-1));
    one("cvt.u32.u8 d, a;", ("b32", 0x1ff), "b32", 255);
    one("cvt.s64.s32 d, a;", ("b32", i(-5)), "b64", (-5i64) as u64);
    one("cvt.u64.u32 d, a;", ("b32", i(-5)), "b64", 0xffff_fffb);
    one("cvt.s8.s32 d, a;", ("b32", 0x1ff), "b32", i(-1));
    one("cvt.sat.u8.s32 d, a;", ("b32", i(-4)), "b32", 0);
    one("cvt.sat.s16.s32 d, a;", ("b32", 70000), "b16", 0x7fff);
    one("cvt.sat.u32.u64 d, a;", ("b64", 1 << 40), "b32", 0xffff_ffff);
}

#[test]
fn comparisons() {
    let ints = |ins: &str, a: i32, b: i32, want: u64| check(ins, "b32", &[("b32", i(a)), ("b32", i(b))], want);
    ints("setp.lt.s32 p, a, b;", -1, 1, 1);
    ints("setp.lt.u32 p, a, b;", -1, 1, 0);
    ints("setp.lo.u32 p, a, b;", 1, 2, 1);
    ints("setp.hs.u32 p, a, b;", 2, 2, 1);
    ints("setp.ne.b32 p, a, b;", 2, 2, 0);
    ints("setp.eq.s32 p|q, a, b;", 2, 3, 0);
    ints("setp.eq.s32 _|p, a, b; selp.b32 d, 1, 0, p;", 2, 3, 1);
    ints("setp.eq.s32 q, a, b; setp.lt.and.s32 p, a, b, !q;", 2, 3, 1);
    ints("setp.eq.s32 q, a, b; setp.gt.or.s32 p, a, b, q;", 2, 3, 0);
    ints("setp.eq.s32 q, a, b; setp.lt.xor.s32 p, a, b, q;", 2, 3, 1);
    ints("setp.lt.s32 p, a, b; not.pred p, p;", 2, 3, 0);
    ints("setp.lt.s32 q, a, b; and.pred p, q, 1; or.pred p, p, q; xor.pred p, p, q;", 2, 3, 0);
    ints("set.lt.u32.s32 d, a, b;", 2, 3, 0xffff_ffff);
    ints("set.lt.f32.s32 d, a, b;", 2, 3, f(1.0));
    ints("mov.pred p, 0;", 0, 0, 0);
    let floats = |ins: &str, a: f32, b: f32, want: u64| check(ins, "b32", &[("f32", f(a)), ("f32", f(b))], want);
    let nan = f32::NAN;
    for (name, less, equal, greater, unordered) in [
        ("eq", 0, 1, 0, 0),
        ("ne", 1, 0, 1, 0),
        ("lt", 1, 0, 0, 0),
        ("le", 1, 1, 0, 0),
        ("gt", 0, 0, 1, 0),
        ("ge", 0, 1, 1, 0),
        ("equ", 0, 1, 0, 1),
        ("neu", 1, 0, 1, 1),
        ("ltu", 1, 0, 0, 1),
        ("leu", 1, 1, 0, 1),
        ("gtu", 0, 0, 1, 1),
        ("geu", 0, 1, 1, 1),
        ("num", 1, 1, 1, 0),
        ("nan", 0, 0, 0, 1),
    ] {
        let ins = format!("setp.{name}.f32 p, a, b;");
        floats(&ins, 1.0, 2.0, less);
        floats(&ins, -0.0, 0.0, equal);
        floats(&ins, 2.0, 1.0, greater);
        floats(&ins, nan, 1.0, unordered);
    }
    floats("setp.eq.ftz.f32 p, a, b;", f32::from_bits(1), 0.0, 1);
    check("setp.gtu.f64 p, a, b;", "b32", &[("f64", d(f64::NAN)), ("f64", d(1.0))], 1);
    for (name, value, want) in [
        ("finite", 1.0, 1),
        ("infinite", f32::INFINITY, 1),
        ("number", nan, 0),
        ("notanumber", nan, 1),
        ("normal", 1e-40, 0),
        ("subnormal", 1e-40, 1),
    ] {
        check(&format!("testp.{name}.f32 p, a;"), "b32", &[("f32", f(value))], want);
    }
}
