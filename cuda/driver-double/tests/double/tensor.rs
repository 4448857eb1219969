//! Tensor-core instructions against a plain product of matrices; the layouts of `tests/kernels/tensor.cu` are the ISA's.

use crate::compiled::load;
use crate::{go, noise, put, words};

const TENSOR: &str = include_str!("../kernels/tensor.ptx");

fn p(v: u64) -> [u8; 8] {
    v.to_le_bytes()
}

/// bf16 by cutting: exact for what it is given here.
fn bf16(v: f32) -> u16 {
    (v.to_bits() >> 16) as u16
}

/// Multiples of 1/8 in [-1, 1): exact in every format.
fn coarse(n: usize, seed: u32) -> Vec<f32> {
    noise(n, seed).iter().map(|v| (v * 8.0).floor() / 8.0).collect()
}

/// a [m][k] times b given as [n][k].
fn product(a: &[f32], b: &[f32], n: usize, k: usize) -> Vec<f32> {
    let m = a.len() / k;
    (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[i % n * k + j]).sum()).collect()
}

#[test]
fn bf16_through_ldmatrix() {
    let (mut device, module) = load(TENSOR);
    let (a, b) = (coarse(256, 1), coarse(128, 2));
    let (pa, pb) = (put(&mut device, &a, |v| bf16(v).to_le_bytes()), put(&mut device, &b, |v| bf16(v).to_le_bytes()));
    let d = device.alloc(512).expect("room");
    let counters = go(&device, &module, "mma_bf16", [1, 1, 1], [32, 1, 1], 0, &[&p(pa), &p(pb), &p(d)]);
    assert_eq!(device.f32s(d, 128).expect("written"), product(&a, &b, 8, 16));
    assert_eq!(counters.mma_flops, 4096);
}

#[test]
fn tf32_through_asynchronous_copies() {
    let (mut device, module) = load(TENSOR);
    let (m, n, k) = (32, 24, 40);
    let (a, b) = (noise(m * k, 3), noise(n * k, 4));
    let (pa, pb, c) = (
        device.with_f32(&a).expect("room"),
        device.with_f32(&b).expect("room"),
        device.alloc(4 * m * n).expect("room"),
    );
    let size = |v: usize| (v as u32).to_le_bytes();
    go(&device, &module, "mma_tf32_pipeline", [3, 2, 1], [32, 1, 1], 0, &[&p(pa), &p(pb), &p(c), &size(n), &size(k)]);
    let rounded =
        |v: &[f32]| -> Vec<f32> { v.iter().map(|v| f32::from_bits((v.to_bits() + 0x1000) & !0x1fff)).collect() };
    let want = product(&rounded(&a), &rounded(&b), n, k);
    for (found, want) in device.f32s(c, m * n).expect("written").into_iter().zip(want) {
        assert!((found - want).abs() < 2e-6, "{found} {want}");
    }
}

#[test]
fn f16_with_sums_of_both_kinds() {
    let (mut device, module) = load(TENSOR);
    let (a, b) = (coarse(256, 5), coarse(128, 6));
    // Multiples of 1/8 below 1: sign, and the mantissa that f32 has too.
    let half = |v: f32| {
        let bits = v.to_bits();
        let sign = (bits >> 16 & 0x8000) as u16;
        if v == 0.0 {
            sign
        } else {
            sign | (((bits >> 23 & 0xff) as u16 + 15 - 127) << 10) | (bits >> 13 & 0x3ff) as u16
        }
    };
    let (pa, pb) = (put(&mut device, &a, |v| half(v).to_le_bytes()), put(&mut device, &b, |v| half(v).to_le_bytes()));
    let [d8, d16, h8] = [512, 512, 256].map(|bytes| device.alloc(bytes).expect("room"));
    go(&device, &module, "mma_f16", [1, 1, 1], [32, 1, 1], 0, &[&p(pa), &p(pb), &p(d8), &p(d16), &p(h8)]);
    // The kernel's sums begin with 1, 2 in the upper rows and 3, 4 in the lower.
    let start = |i: usize| [1.0, 2.0, 3.0, 4.0][i % 2 + i / 64 * 2];
    let first = |v: &[f32]| -> Vec<f32> { v.chunks(16).flat_map(|r| &r[..8]).copied().collect() };
    let plus = |v: Vec<f32>| -> Vec<f32> { v.iter().enumerate().map(|(i, v)| v + start(i)).collect() };
    let short = plus(product(&first(&a), &first(&b), 8, 8));
    assert_eq!(device.f32s(d8, 128).expect("written"), short);
    assert_eq!(device.f32s(d16, 128).expect("written"), plus(product(&a, &b, 8, 16)));
    let halves = words(&device, h8, 64);
    for (i, want) in short.iter().enumerate() {
        assert_eq!(halves[i / 2] >> (16 * (i % 2)) & 0xffff, u32::from(half(*want)), "{i}");
    }
}

#[test]
fn bf16_pairs() {
    let (mut device, module) = load(TENSOR);
    let x = coarse(64, 7);
    let (at, y, back) =
        (device.with_f32(&x).expect("room"), device.alloc(128).expect("room"), device.alloc(256).expect("room"));
    go(&device, &module, "bf16_pairs", [1, 1, 1], [32, 1, 1], 0, &[&p(at), &p(y), &p(back)]);
    let want: Vec<f32> = x.chunks(2).flat_map(|p| [p[0] * 2.0 + 1.0, p[1] * 0.5 - 1.0]).collect();
    assert_eq!(device.f32s(back, 64).expect("written"), want);
}

#[test]
fn transposed_matrices() {
    let found = crate::per_thread(
        ".shared .align 16 .b8 s[128]; mov.u32 %r1, %tid.x; mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r2;
         shl.b32 %r4, %r1, 1; add.u32 %r5, %r4, 1; shl.b32 %r5, %r5, 16; or.b32 %r4, %r4, %r5; st.shared.u32 [%r3], %r4;
         and.b32 %r6, %r1, 7; shl.b32 %r6, %r6, 4; add.u32 %r6, %r6, %r2;
         ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r0}, [%r6];",
        32,
    );
    // Element (r, c) is 8 r + c; lane l gets column l / 4, rows 2 (l % 4) and the next.
    let want: Vec<u32> = (0..32).map(|l| (8 * (l % 4 * 2) + l / 4) | (8 * (l % 4 * 2 + 1) + l / 4) << 16).collect();
    assert_eq!(found.expect("runs"), want);
}
