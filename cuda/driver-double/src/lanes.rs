//! One operation for 32 lanes: what an instruction becomes when it is decoded.

/// The 32 values of a register, each zero-extended to 64 bits.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub [u64; 32]);

/// Index of a register within its warp's file; constants and special registers have one too.
pub(crate) type Reg = u16;

/// All 32 lanes.
pub(crate) const ALL: u32 = u32::MAX;

/// Destination and sources of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Regs {
    pub d: Reg,
    pub a: Reg,
    pub b: Reg,
    pub c: Reg,
}

/// Works on a warp's register file; writes only the lanes of the mask.
pub(crate) type LaneFn = Box<dyn Fn(&mut [Lanes], Regs, u32) + Send + Sync>;

/// Compares two registers: a bit per lane.
pub(crate) type TestFn = Box<dyn Fn(&Lanes, &Lanes) -> u32 + Send + Sync>;

/// Whether the machine has the instructions that [`wide3`] is compiled for.
#[cfg(target_arch = "x86_64")]
fn has_wide() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("bmi2")
}

#[inline(always)]
fn body(f: impl Fn(u64, u64, u64) -> u64, file: &mut [Lanes], r: Regs, mask: u32) {
    let (a, b, c) = (&file[r.a as usize].0, &file[r.b as usize].0, &file[r.c as usize].0);
    let mut out = [0; 32];
    for l in 0..32 {
        out[l] = f(a[l], b[l], c[l]);
    }
    let d = &mut file[r.d as usize].0;
    if mask == ALL {
        *d = out;
    } else {
        for l in 0..32 {
            if mask >> l & 1 == 1 {
                d[l] = out[l];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi2")]
fn wide3(f: &impl Fn(u64, u64, u64) -> u64, file: &mut [Lanes], r: Regs, mask: u32) {
    body(f, file, r, mask);
}

/// An operation given for one lane.
pub(crate) fn lanes(f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> LaneFn {
    #[cfg(target_arch = "x86_64")]
    if has_wide() {
        // SAFETY: the machine has these instructions.
        return Box::new(move |file, r, mask| unsafe { wide3(&f, file, r, mask) });
    }
    // Compiled once for all operations: other machines are served, slowly.
    let f: Box<dyn Fn(u64, u64, u64) -> u64 + Send + Sync> = Box::new(f);
    Box::new(move |file, r, mask| body(&*f, file, r, mask))
}

#[inline(always)]
fn test_body(f: impl Fn(u64, u64) -> bool, a: &Lanes, b: &Lanes) -> u32 {
    let mut out = 0;
    for l in 0..32 {
        out |= u32::from(f(a.0[l], b.0[l])) << l;
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi2")]
fn wide_test(f: &impl Fn(u64, u64) -> bool, a: &Lanes, b: &Lanes) -> u32 {
    test_body(f, a, b)
}

/// A comparison given for one lane.
pub(crate) fn test(f: impl Fn(u64, u64) -> bool + Send + Sync + 'static) -> TestFn {
    #[cfg(target_arch = "x86_64")]
    if has_wide() {
        // SAFETY: the machine has these instructions.
        return Box::new(move |a, b| unsafe { wide_test(&f, a, b) });
    }
    let f: Box<dyn Fn(u64, u64) -> bool + Send + Sync> = Box::new(f);
    Box::new(move |a, b| test_body(&*f, a, b))
}

/// The lanes of a mask, lowest first.
pub(crate) fn each(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}
