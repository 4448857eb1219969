//! What the compiler makes of real kernels: `tests/kernels/*.cu`, compiled by nvcc 13.0 for compute_75 (tensor.cu: compute_80).

use driver_double::{Device, Module};

use crate::{device, go, noise, put, words};

pub const REDUCE: &str = include_str!("../kernels/reduce.ptx");
pub const MATHS: &str = include_str!("../kernels/maths.ptx");
pub const TILES: &str = include_str!("../kernels/tiles.ptx");

pub fn load(text: &str) -> (Device, Module) {
    let mut device = device();
    let module = device.load(text).unwrap_or_else(|e| panic!("{e}"));
    (device, module)
}

fn p(v: u64) -> [u8; 8] {
    v.to_le_bytes()
}

fn n(v: usize) -> [u8; 4] {
    (v as u32).to_le_bytes()
}

#[test]
fn sums_of_blocks() {
    let (mut device, module) = load(REDUCE);
    let x = noise(5000, 1);
    let (at, sums) = (device.with_f32(&x).expect("room"), device.alloc(7 * 4).expect("room"));
    let counters = go(&device, &module, "block_sum", [7, 1, 1], [192, 1, 1], 0, &[&p(at), &p(sums), &n(5000)]);
    let total: f64 = device.f32s(sums, 7).expect("written").into_iter().map(f64::from).sum();
    let want: f64 = x.iter().map(|v| f64::from(*v)).sum();
    assert!((total - want).abs() < 1e-3, "{total} {want}");
    assert_eq!(counters.global_loads.bytes, 20000);
    assert_eq!(counters.global_loads.efficiency(), 1.0);
    assert_eq!(counters.bank_conflicts(), 0);
}

#[test]
fn softmax_of_rows() {
    let (mut device, module) = load(REDUCE);
    let (rows, width) = (3, 333);
    let x = noise(rows * width, 2);
    let (at, y) = (device.with_f32(&x).expect("room"), device.alloc(rows * width * 4).expect("room"));
    go(&device, &module, "softmax", [rows as u32, 1, 1], [128, 1, 1], width * 4, &[&p(at), &p(y), &n(width)]);
    let found = device.f32s(y, rows * width).expect("written");
    for (x, y) in x.chunks(width).zip(found.chunks(width)) {
        let sum: f64 = x.iter().map(|v| f64::from(*v).exp()).sum();
        for (x, y) in x.iter().zip(y) {
            let want = f64::from(*x).exp() / sum;
            assert!((f64::from(*y) / want - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn scans_and_compaction() {
    let (mut device, module) = load(REDUCE);
    let x: Vec<i32> = noise(256, 3).iter().map(|v| (v * 100.0) as i32).collect();
    let (at, y) = (put(&mut device, &x, i32::to_le_bytes), device.alloc(1024).expect("room"));
    go(&device, &module, "warp_scan", [1, 1, 1], [256, 1, 1], 0, &[&p(at), &p(y)]);
    let found = words(&device, y, 256);
    for (x, y) in x.chunks(32).zip(found.chunks(32)) {
        let mut sum = 0;
        for (x, y) in x.iter().zip(y) {
            sum += x;
            assert_eq!(sum as u32, *y);
        }
    }
    let (kept, count) = (device.alloc(1024).expect("room"), put(&mut device, &[0u32], u32::to_le_bytes));
    go(&device, &module, "keep_positive", [3, 1, 1], [96, 1, 1], 0, &[&p(at), &p(kept), &p(count), &n(250)]);
    let want: Vec<u32> = x[..250].iter().filter(|v| **v > 0).map(|v| *v as u32).collect();
    assert_eq!(words(&device, count, 1), [want.len() as u32]);
    assert_eq!(words(&device, kept, want.len()), want);
}

#[test]
fn histograms_and_atomics() {
    let (mut device, module) = load(REDUCE);
    let x: Vec<u8> = (0..1000u32).map(|i| (i * i % 251) as u8).collect();
    let (at, bins) = (put(&mut device, &x, u8::to_le_bytes), put(&mut device, &[0u32; 64], u32::to_le_bytes));
    go(&device, &module, "histogram", [4, 1, 1], [64, 1, 1], 0, &[&p(at), &p(bins), &n(1000)]);
    let mut want = [0; 64];
    x.iter().for_each(|v| want[usize::from(*v & 63)] += 2);
    assert_eq!(words(&device, bins, 64), want);

    let f = put(&mut device, &[0f32], f32::to_le_bytes);
    let d = put(&mut device, &[0f64], f64::to_le_bytes);
    let s = put(&mut device, &[0i32; 3], i32::to_le_bytes);
    let u = put(&mut device, &[0, u32::MAX, 0, 0, 0, 0, 0], u32::to_le_bytes);
    let l = put(&mut device, &[0u64; 2], u64::to_le_bytes);
    go(&device, &module, "atomics", [2, 1, 1], [64, 1, 1], 0, &[&p(f), &p(d), &p(s), &p(u), &p(l)]);
    assert_eq!(device.f32s(f, 1).expect("written"), [128.0]);
    assert_eq!(words(&device, d, 2), [0, (64f64.to_bits() >> 32) as u32]);
    assert_eq!(words(&device, s, 3), [-127i32 as u32, 127, 8128]);
    assert_eq!(words(&device, u, 7), [u32::MAX, 0xffff_0000, 0, 7, 8, 2, 384]);
    assert_eq!(words(&device, l, 4), [0, 256, 0, 127]);
}

/// Runs one function on numbers of both signs and many sizes; the largest error beside `want`, in units of f32's last place.
fn worst(kernel: &str, want: impl Fn(f64) -> f64) -> f64 {
    let (mut device, module) = load(MATHS);
    let x: Vec<f32> = noise(400, 4)
        .iter()
        .enumerate()
        .map(|(i, v)| v * [0.01, 1.0, 5.0, 30.0][i % 4])
        .filter(|v| *v != 0.0)
        .collect();
    let (at, y) = (device.with_f32(&x).expect("room"), device.alloc(4 * x.len()).expect("room"));
    go(&device, &module, kernel, [4, 1, 1], [128, 1, 1], 0, &[&p(at), &p(y), &n(x.len())]);
    let found = device.f32s(y, x.len()).expect("written");
    let error = |(x, y): (&f32, &f32)| {
        let want = want((*x).into());
        if f64::from(*y) == want || (want as f32) == *y {
            return 0.0;
        }
        (f64::from(*y) - want).abs() / (f64::from((want as f32).abs().max(1e-37)) * f64::from(f32::EPSILON) / 2.0)
    };
    x.iter().zip(&found).map(error).fold(0.0, f64::max)
}

#[test]
fn functions_of_the_compiler() {
    let erf = |v: f64| {
        // Its series, which for |v| up to 6 converges well enough in f64.
        if v.abs() > 5.0 {
            return v.signum();
        }
        let (mut sum, mut term) = (v, v);
        for k in 1..200 {
            term *= -v * v / f64::from(k);
            sum += term / f64::from(2 * k + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    };
    let check = |kernel: &str, want: &dyn Fn(f64) -> f64, limit: f64| {
        let found = worst(kernel, want);
        assert!(found <= limit, "{kernel}: {found} units, at most {limit}");
    };
    check("f_exp", &f64::exp, 4.0);
    check("f_tanh", &f64::tanh, 4.0);
    check("f_erf", &erf, 8.0);
    check("f_pow", &|v| v.abs().powf(f64::from(1.7f32)), 8.0);
    check("f_sqrt", &|v| v.abs().sqrt(), 1.0);
    check("f_rsqrt", &|v| 1.0 / v.abs().sqrt(), 4.0);
    check("f_recip", &|v| 1.0 / v, 1.0);
    check("f_log1p", &|v| v.abs().ln_1p(), 4.0);
    check("f_expm1", &f64::exp_m1, 4.0);
    check("f_cbrt", &f64::cbrt, 4.0);
    check("f_atan", &f64::atan, 4.0);
    check("f_fmod", &|v| f64::from(v as f32 % 0.7), 0.0);
    check("f_d_exp", &f64::exp, 1.0);
    check("f_d_log", &|v| v.abs().ln(), 1.0);
    check("f_d_pow", &|v| v.abs().powf(1.3), 1.0);
    check("f_d_sin", &|v| (v * 1e6).sin(), 1.0);
    check("f_d_sqrt", &|v| v.abs().sqrt(), 1.0);
    check("f_d_div", &|v| 1.0 / v, 1.0);
    check("f_d_tanh", &f64::tanh, 1.0);
    let rint = |v: f64| {
        let v = v as f32;
        (v.round_ties_even() + v.floor() * 3.0 + v.ceil() * 5.0 + v.trunc() * 7.0 + v.round() * 11.0).into()
    };
    check("f_rint", &rint, 2.0);
    // Near their zeros the error is counted against the function's range.
    for (kernel, want) in [
        ("f_sin", f64::sin as fn(f64) -> f64),
        ("f_cos", f64::cos),
        ("f_log", |v| v.ln()),
        ("f_fast", |v| v.exp() + (v.abs() + 1.0).ln() + v.sin() + v / 3.0 + 1.0 / v),
    ] {
        let (mut device, module) = load(MATHS);
        let x: Vec<f32> = noise(200, 5).iter().map(|v| v.abs() * 20.0 + 0.1).collect();
        let (at, y) = (device.with_f32(&x).expect("room"), device.alloc(800).expect("room"));
        go(&device, &module, kernel, [2, 1, 1], [128, 1, 1], 0, &[&p(at), &p(y), &n(200)]);
        for (x, y) in x.iter().zip(device.f32s(y, 200).expect("written")) {
            let want = want((*x).into());
            // __expf multiplies by log2(e) first, in f32: its error grows with the exponent.
            let limit = if kernel == "f_fast" { 3e-6 } else { 3e-7 };
            assert!((f64::from(y) - want).abs() <= limit * want.abs().max(1.0), "{kernel} {x}: {y} {want}");
        }
    }
}

#[test]
fn half_precision_keeps_eleven_bits() {
    let (mut device, module) = load(MATHS);
    let x = noise(100, 14);
    let (at, y) = (device.with_f32(&x).expect("room"), device.alloc(400).expect("room"));
    go(&device, &module, "f_half", [1, 1, 1], [128, 1, 1], 0, &[&p(at), &p(y), &n(100)]);
    let errors: Vec<f32> =
        x.iter().zip(device.f32s(y, 100).expect("written")).map(|(x, y)| (x + 0.5 - y).abs()).collect();
    assert!(errors.iter().all(|e| *e <= 1.0 / 1024.0) && errors.iter().any(|e| *e > 1.0 / 8192.0));
}

#[test]
fn integers_of_every_width() {
    let (mut device, module) = load(MATHS);
    let values = |seed| -> Vec<i32> {
        noise(64, seed)
            .iter()
            .enumerate()
            .map(|(i, v)| (v * [5.0, 300.0, 1e5, 2e9][i % 4]) as i32)
            .map(|v| if v == 0 { 3 } else { v })
            .collect()
    };
    let (a, b) = (values(6), values(7));
    let (pa, pb) = (put(&mut device, &a, i32::to_le_bytes), put(&mut device, &b, i32::to_le_bytes));
    let out = device.alloc(64 * 20 * 8).expect("room");
    go(&device, &module, "integers", [1, 1, 1], [64, 1, 1], 0, &[&p(pa), &p(pb), &p(out), &n(64)]);
    let found = words(&device, out, 64 * 40);
    for (i, (x, y)) in a.into_iter().zip(b).enumerate() {
        let (ux, uy) = (x as u32, y as u32);
        let (lx, ly) = (i64::from(x).wrapping_mul(1_234_567_891_011), i64::from(y));
        let (ulx, uly) = (lx as u64, u64::from(uy));
        let bytes = ((u64::from(uy) << 32) | u64::from(ux)).to_le_bytes();
        let dp: i32 =
            x.to_le_bytes().iter().zip(y.to_le_bytes()).map(|(p, q)| i32::from(*p as i8) * i32::from(q as i8)).sum();
        let want: [i64; 20] = [
            (x.wrapping_div(y)).into(),
            (x.wrapping_rem(y)).into(),
            (ux / uy).into(),
            (ux % uy).into(),
            lx.wrapping_div(ly),
            lx.wrapping_rem(ly),
            (ulx / uly) as i64,
            (ulx % uly) as i64,
            (x / 7 + x % 13).into(),
            (i64::from(x) * i64::from(y)) >> 32,
            ((u64::from(ux) * u64::from(uy)) >> 32) as i64,
            ((u128::from(ulx) * u128::from(uly)) >> 64) as i64,
            (ux.count_ones() as i32 + x.leading_zeros() as i32 * 100 + (x.trailing_zeros() as i32 + 1) * 10000).into(),
            ux.reverse_bits().into(),
            ((u64::from(uy) << 32 | u64::from(ux)) << (y & 31) >> 32) as u32 as i64,
            u32::from_le_bytes([bytes[0], bytes[4], bytes[1], bytes[5]]).into(),
            // min is an int, max an unsigned: their sum is unsigned.
            (x.min(y) as u32).wrapping_add(ux.max(uy)).wrapping_add(x.wrapping_abs() as u32).into(),
            (i32::from(x as i16) * i32::from(y as i16) + i32::from(x as i8)).into(),
            (ulx.leading_zeros() + ulx.count_ones() * 1000).into(),
            (dp.wrapping_add(5)
                .wrapping_add(x.wrapping_shl(uy & 31))
                .wrapping_add(x >> (y & 15))
                .wrapping_add((lx >> (y & 63)) as i32))
            .into(),
        ];
        let found: Vec<i64> =
            found[40 * i..40 * i + 40].chunks(2).map(|w| (u64::from(w[1]) << 32 | u64::from(w[0])) as i64).collect();
        assert_eq!(found, want, "{x} {y}");
    }
}

#[test]
fn structs_by_value() {
    let (mut device, module) = load(MATHS);
    let mut s = [0u8; 56];
    for (i, v) in [2i32, 3, 4, 5].iter().enumerate() {
        s[4 * i..4 * i + 4].copy_from_slice(&v.to_le_bytes());
    }
    let scale = [1.0f32, -2.0, 0.5, 3.0, 10.0];
    for (i, v) in scale.iter().enumerate() {
        s[16 + 4 * i..20 + 4 * i].copy_from_slice(&v.to_le_bytes());
    }
    s[40..48].copy_from_slice(&1_000i64.to_le_bytes());
    s[48..51].copy_from_slice(&[7, 8, 9]);
    let x = noise(120, 8);
    let (at, y) = (device.with_f32(&x).expect("room"), device.alloc(480).expect("room"));
    go(&device, &module, "by_value", [2, 1, 1], [64, 1, 1], 0, &[&s, &p(at), &p(y), &2i16.to_le_bytes()]);
    let table = [1.5f32, -2.0, 0.25, 8.0];
    for (i, y) in device.f32s(y, 120).expect("written").into_iter().enumerate() {
        let (c, w, h) = (i % 5, i / 5 % 4, i / 20 % 3);
        let want = (x[i] * ((w + 2) % 6) as f32 + h as f32) * scale[(c + h) % 5]
            + table[i % 4]
            + [7.0, 8.0, 9.0][i % 3]
            + 1000.0
            + 5.0;
        assert!((y - want).abs() < 1e-3, "{i}: {y} {want}");
    }
}

#[test]
fn switches_and_calls() {
    let (mut device, module) = load(MATHS);
    let which: Vec<u32> = (0..32).map(|i| i * 7 % 10).collect();
    let (at, y) = (put(&mut device, &which, u32::to_le_bytes), device.alloc(128).expect("room"));
    go(&device, &module, "pick", [1, 1, 1], [32, 1, 1], 0, &[&p(at), &p(y)]);
    for (i, y) in device.f32s(y, 32).expect("written").into_iter().enumerate() {
        let v = i as f32;
        let want = match which[i] {
            0 => v.sqrt(),
            1 => v * v,
            2 => v + 3.0,
            3 => (-v).exp(),
            4 => -v,
            5 => v * 0.5 - 1.0,
            6 => (v / 3.0).floor(),
            7 => (0..i).fold(v, |v, k| v * 0.9 + k as f32),
            _ => 1e9,
        };
        assert!((y - want).abs() <= 1e-6 * want.abs(), "{i}: {y} {want}");
    }
    let x: Vec<u32> = (1..33).collect();
    let (at, steps) = (put(&mut device, &x, u32::to_le_bytes), device.alloc(128).expect("room"));
    go(&device, &module, "collatz", [1, 1, 1], [32, 1, 1], 0, &[&p(at), &p(steps)]);
    let length = |mut v: u32| {
        let mut count = 0;
        while v != 1 {
            v = if v % 2 == 1 { 3 * v + 1 } else { v / 2 };
            count += 1;
        }
        count
    };
    assert_eq!(words(&device, steps, 32), x.iter().map(|v| length(*v)).collect::<Vec<u32>>());
}

#[test]
fn transposes_show_their_bank_conflicts() {
    let (mut device, module) = load(TILES);
    let (rows, cols) = (70, 45);
    let x = noise(rows * cols, 9);
    let (at, y) = (device.with_f32(&x).expect("room"), device.alloc(rows * cols * 4).expect("room"));
    let run = |kernel| {
        let counters = go(&device, &module, kernel, [2, 3, 1], [32, 8, 1], 0, &[&p(at), &p(y), &n(rows), &n(cols)]);
        let found = device.f32s(y, rows * cols).expect("written");
        assert!((0..rows * cols).all(|i| found[i % cols * rows + i / cols] == x[i]));
        counters.bank_conflicts()
    };
    assert_eq!(run("transpose_padded"), 0);
    assert!(run("transpose_plain") > 1000);
}

#[test]
fn products_of_matrices() {
    let (mut device, module) = load(TILES);
    let (rows, cols, inner) = (70, 99, 37);
    let (a, b) = (noise(rows * inner, 10), noise(inner * cols, 11));
    let (pa, pb, pc) = (
        device.with_f32(&a).expect("room"),
        device.with_f32(&b).expect("room"),
        device.alloc(rows * cols * 4).expect("room"),
    );
    go(&device, &module, "matmul", [2, 2, 1], [256, 1, 1], 0, &[&p(pa), &p(pb), &p(pc), &n(rows), &n(cols), &n(inner)]);
    for (i, found) in device.f32s(pc, rows * cols).expect("written").into_iter().enumerate() {
        let want: f64 =
            (0..inner).map(|k| f64::from(a[i / cols * inner + k]) * f64::from(b[k * cols + i % cols])).sum();
        assert!((f64::from(found) - want).abs() < 1e-5);
    }
    // One row more than the buffer has is found.
    let launch = driver_double::Launch { grid: [2, 2, 1], block: [256, 1, 1], shared: 0 };
    let error = device
        .launch(&module, "matmul", launch, &[&p(pa), &p(pb), &p(pc), &n(rows + 1), &n(cols), &n(inner)])
        .unwrap_err();
    assert!(error.to_string().contains("out of bounds"), "{error}");
}

#[test]
fn vectors_of_all_widths() {
    let (mut device, module) = load(TILES);
    let bytes: Vec<u8> = (0..256u32).map(|i| (i * 37) as u8).collect();
    let shorts: Vec<i16> = (0..128i16).map(|i| i * 250 - 16000).collect();
    let (floats, doubles) = (noise(256, 12), noise(128, 13));
    let args = [
        put(&mut device, &bytes, u8::to_le_bytes),
        put(&mut device, &shorts, i16::to_le_bytes),
        device.with_f32(&floats).expect("room"),
        put(&mut device, &doubles, |v| f64::from(v).to_le_bytes()),
        device.alloc(1024).expect("room"),
    ];
    let args: Vec<[u8; 8]> = args.map(p).to_vec();
    let args: Vec<&[u8]> = args.iter().map(|a| a.as_slice()).collect();
    go(&device, &module, "vectors", [2, 1, 1], [32, 1, 1], 0, &args);
    let out = u64::from_le_bytes(args[4].try_into().expect("eight"));
    let found = device.f32s(out, 256).expect("written");
    for i in 0..64 {
        let (b, s, f) = (&bytes[4 * i..], &shorts[2 * i..], &floats[4 * i..]);
        let whole = |v: u8| i32::from(v);
        let want = [
            whole(b[0]) as f32 + f[0],
            (whole(b[1]) * i32::from(s[0])) as f32 + f[1],
            (whole(b[2]) - i32::from(s[1])) as f32 + f[2],
            f64::from(doubles[2 * i]).mul_add(f64::from(doubles[2 * i + 1]), f64::from(b[3])) as f32 + f[3],
        ];
        assert_eq!(found[4 * i..4 * i + 4], want, "{i}");
    }
}
