//! Each check catches what was planted for it.

use driver_double::{AccessKind, Config, Counters, Device, Fault, FaultKind, LaunchError, Space};

use crate::{device, launch, module, per_thread, put, words};

#[track_caller]
fn fault<T: std::fmt::Debug>(result: Result<T, LaunchError>) -> Fault {
    match result.expect_err("a fault was planted") {
        LaunchError::Fault(fault) => *fault,
        other => panic!("{other}"),
    }
}

/// The address of element tid.x of `x`, in %rd1.
const ELEMENT: &str = "ld.param.u64 %rd1, [x]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r1, %r2, 64, %r1; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd1, %rd1, %rd2;\n";

fn on_elements(body: &str, n: usize) -> Result<Counters, LaunchError> {
    let mut device = device();
    let x = put(&mut device, &vec![1u32; n], u32::to_le_bytes);
    launch(
        &mut device,
        &module(".param .u64 x", &format!("{ELEMENT}{body}")),
        [2, 1, 1],
        [64, 1, 1],
        0,
        &[&x.to_le_bytes()],
    )
}

#[test]
fn out_of_bounds() {
    on_elements("ld.global.u32 %r3, [%rd1];", 128).expect("within");
    let found = fault(on_elements("ld.global.u32 %r3, [%rd1];", 100));
    assert_eq!((found.kernel.as_str(), found.block, found.thread), ("k", [1, 0, 0], Some([36, 0, 0])));
    assert!(found.text.contains("ld.global.u32 %r3"), "{found}");
    assert!(
        matches!(found.kind, FaultKind::OutOfBounds { space: Space::Global, write: false, size: 4, .. }),
        "{found}"
    );
    assert!(found.to_string().contains("0 bytes after the end of 400 bytes"), "{found}");
    let found = fault(on_elements("st.global.u32 [%rd1+-4], %r1;", 128));
    assert!(matches!(found.kind, FaultKind::OutOfBounds { write: true, .. }), "{found}");
    let found = fault(on_elements("atom.global.add.u32 %r3, [%rd1+512], 1;", 128));
    assert!(matches!(found.kind, FaultKind::OutOfBounds { .. }), "{found}");
    let found = fault(on_elements("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1];", 130));
    assert!(matches!(found.kind, FaultKind::Misaligned { size: 16, .. }), "{found}");
    let found = fault(per_thread(".local .align 4 .b8 l[8]; st.local.u32 [l+8], 1; mov.u32 %r0, 1;", 1));
    assert!(matches!(found.kind, FaultKind::OutOfBounds { space: Space::Local, .. }), "{found}");
    let found = fault(per_thread(".shared .align 4 .b8 s[8]; st.shared.u32 [s+8], 1; mov.u32 %r0, 1;", 1));
    assert!(matches!(found.kind, FaultKind::OutOfBounds { space: Space::Shared, .. }), "{found}");
}

#[test]
fn memory_that_was_given_back() {
    let mut device = device();
    let x = put(&mut device, &[1u32; 64], u32::to_le_bytes);
    device.free(x).expect("allocated");
    let _other = put(&mut device, &[1u32; 64], u32::to_le_bytes);
    let text = module(".param .u64 x", &format!("{ELEMENT} ld.global.u32 %r3, [%rd1];"));
    let found = fault(launch(&mut device, &text, [1, 1, 1], [32, 1, 1], 0, &[&x.to_le_bytes()]));
    assert!(matches!(found.kind, FaultKind::OutOfBounds { .. }), "{found}");
}

#[test]
fn misaligned() {
    let found = fault(on_elements("ld.global.u32 %r3, [%rd1+2];", 128));
    assert!(matches!(found.kind, FaultKind::Misaligned { space: Space::Global, size: 4, .. }), "{found}");
    let found = fault(per_thread(".shared .align 8 .b8 s[16]; st.shared.u64 [s+4], 1; mov.u32 %r0, 1;", 1));
    assert!(matches!(found.kind, FaultKind::Misaligned { space: Space::Shared, size: 8, .. }), "{found}");
}

#[test]
fn uninitialised() {
    let mut device = device();
    let x = device.alloc(256).expect("room");
    device.upload(x, &[1; 100]).expect("in range");
    let text = module(".param .u64 x", &format!("{ELEMENT} ld.global.u32 %r3, [%rd1];"));
    let found = fault(launch(&mut device, &text, [1, 1, 1], [64, 1, 1], 0, &[&x.to_le_bytes()]));
    assert_eq!(
        (found.thread, found.kind),
        (Some([25, 0, 0]), FaultKind::Uninitialised { space: Space::Global, address: x + 100, size: 4 })
    );
    let text = module(
        ".param .u64 x",
        &format!("{ELEMENT} mov.u32 %r3, 7; st.global.u8 [%rd1], %r3; ld.global.u16 %h1, [%rd1];"),
    );
    let y = device.alloc(256).expect("room");
    let found = fault(launch(&mut device, &text, [1, 1, 1], [64, 1, 1], 0, &[&y.to_le_bytes()]));
    assert!(matches!(found.kind, FaultKind::Uninitialised { size: 2, .. }), "{found}");
    let mut bytes = [0; 256];
    assert!(device.download(y, &mut bytes).is_err());
    device.forget(x, 4).expect("in range");
    assert!(device.download(x, &mut bytes[..4]).is_err());
    let found = fault(per_thread(".shared .align 4 .b8 s[16]; ld.shared.u32 %r0, [s+4];", 1));
    assert_eq!(found.kind, FaultKind::Uninitialised { space: Space::Shared, address: 4, size: 4 });
    let found = fault(per_thread(".local .align 4 .b8 s[16]; ld.local.u32 %r0, [s+4];", 1));
    assert!(matches!(found.kind, FaultKind::Uninitialised { space: Space::Local, .. }), "{found}");
}

#[test]
fn races_in_shared_memory() {
    let setup = ".shared .align 4 .b8 s[512]; mov.u32 %r1, %tid.x; mov.u32 %r0, 0; mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3; xor.b32 %r5, %r3, 128; add.u32 %r5, %r5, %r2;\n";
    let run = |body: &str| per_thread(&format!("{setup}{body}"), 64);
    run("st.shared.u32 [%r4], %r1; bar.sync 0; ld.shared.u32 %r0, [%r5];").expect("ordered");
    let found = fault(run("st.shared.u32 [%r4], %r1; ld.shared.u32 %r0, [%r5];"));
    assert!(matches!(found.kind, FaultKind::Uninitialised { .. } | FaultKind::Race { .. }), "{found}");
    let found = fault(run("st.shared.u32 [%r4], %r1; bar.sync 0; ld.shared.u32 %r0, [%r5]; st.shared.u32 [%r4], %r0;"));
    assert_eq!(
        found.kind,
        FaultKind::Race { address: 0, this: AccessKind::Read, before: AccessKind::Write, warp: Some(0) }
    );
    let found = fault(run(
        "st.shared.u32 [%r4], %r1; bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 ld.shared.u32 %r0, [%r5]; @!%p1 st.shared.u32 [%r4], %r0;",
    ));
    assert_eq!(
        found.kind,
        FaultKind::Race { address: 128, this: AccessKind::Write, before: AccessKind::Read, warp: Some(0) }
    );
    let found = fault(run("st.shared.u32 [%r4], %r1; bar.sync 0; st.shared.u32 [%r4], %r1; st.shared.u32 [%r5], %r1;"));
    assert!(
        matches!(found.kind, FaultKind::Race { this: AccessKind::Write, before: AccessKind::Write, warp: Some(0), .. }),
        "{found}"
    );
    let found =
        fault(run("st.shared.u32 [%r4], %r1; bar.sync 0; atom.shared.add.u32 %r6, [s], 1; ld.shared.u32 %r0, [s];"));
    assert!(matches!(found.kind, FaultKind::Race { before: AccessKind::Atomic, .. }), "{found}");
    // Neighbouring bytes of one word belong to different warps: no race.
    run("add.u32 %r6, %r2, %r1; sub.u32 %r6, %r6, 0; st.shared.u8 [%r6], %r1; ld.shared.u8 %r0, [%r6];")
        .expect("own bytes");
    // After a thousand barriers the same as after one.
    let many = "st.shared.u32 [%r4], %r1; mov.u32 %r7, 0; L: bar.sync 0; add.u32 %r7, %r7, 1; setp.lt.u32 %p1, %r7, 3000; @%p1 bra L;";
    run(&format!("{many} ld.shared.u32 %r0, [%r5];")).expect("ordered");
    let found = fault(run(&format!("{many} st.shared.u32 [%r4], %r1; ld.shared.u32 %r0, [%r5];")));
    assert!(matches!(found.kind, FaultKind::Race { .. }), "{found}");
    let found = fault(run("st.shared.u32 [s], %r1;"));
    assert!(matches!(found.kind, FaultKind::Clash { space: Space::Shared, address: 0 }), "{found}");
    let found = fault(on_elements("ld.param.u64 %rd3, [x]; st.global.u32 [%rd3], %r1;", 128));
    assert!(matches!(found.kind, FaultKind::Clash { space: Space::Global, .. }), "{found}");
}

#[test]
fn divergent_barriers() {
    let found = fault(per_thread("mov.u32 %r0, %tid.x; setp.lt.u32 %p1, %r0, 5; @%p1 bar.sync 0;", 32));
    assert_eq!(found.kind, FaultKind::BarrierDivergence { here: 31, live: u32::MAX, other_line: None });
    let found = fault(per_thread(
        "mov.u32 %r0, %tid.x; setp.lt.u32 %p1, %r0, 5; @%p1 bra A; bar.sync 0; bra E; A: bar.sync 0; E:",
        32,
    ));
    assert!(matches!(found.kind, FaultKind::BarrierDivergence { .. }), "{found}");
    let found = fault(per_thread(
        "mov.u32 %r0, %tid.x; setp.lt.u32 %p1, %r0, 32;\n@%p1 bra A;\nbar.sync 0;\nbra E;\nA: bar.sync 0;\nE:",
        64,
    ));
    assert!(matches!(found.kind, FaultKind::BarrierDivergence { other_line: Some(_), .. }), "{found}");
    let found = fault(per_thread(
        "mov.u32 %r0, %tid.x; setp.lt.u32 %p1, %r0, 32; @%p1 bra A; bar.sync 1; bra E; A: bar.sync 2; E:",
        64,
    ));
    assert!(matches!(found.kind, FaultKind::Deadlock { .. }), "{found}");
}

#[test]
fn masks() {
    let bad = |body: &str| {
        fault(per_thread(&format!("mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16; mov.u32 %r0, 0; {body}"), 32))
    };
    for body in [
        "@%p1 shfl.sync.idx.b32 %r0, %r1, 0, 31, -1;",
        "shfl.sync.idx.b32 %r0, %r1, 0, 31, 0xffff;",
        "@%p1 shfl.sync.bfly.b32 %r0, %r1, 16, 31, 0xffff;",
        "@!%p1 exit; vote.sync.ballot.b32 %r0, %p1, -1;",
    ] {
        let found = bad(body);
        assert!(matches!(found.kind, FaultKind::BadMask { .. }), "{body}: {found}");
    }
    let found = bad("@%p1 bra A; bar.warp.sync -1; bra E; A: add.u32 %r0, %r0, 1; bar.warp.sync -1; E:");
    assert!(matches!(found.kind, FaultKind::Deadlock { .. }), "{found}");
}

#[test]
fn copies_not_waited_for() {
    let run = |wait: &str, before: &str| {
        let mut device = device();
        let x = put(&mut device, &[9u32; 256], u32::to_le_bytes);
        let body = format!(
            ".shared .align 16 .b8 s[1024]; mov.u32 %r1, %tid.x; mul.lo.u32 %r2, %r1, 16; mov.u32 %r3, s; add.u32 %r3, %r3, %r2;
             ld.param.u64 %rd1, [x]; mul.wide.u32 %rd2, %r1, 16; add.s64 %rd1, %rd1, %rd2; {before}
             cp.async.cg.shared.global.L2::128B [%r3], [%rd1], 16; cp.async.commit_group; {wait}
             ld.shared.u32 %r4, [%r3+4];"
        );
        launch(&mut device, &module(".param .u64 x", &body), [1, 1, 1], [64, 1, 1], 0, &[&x.to_le_bytes()])
    };
    run("cp.async.wait_group 0;", "").expect("waited");
    run("cp.async.wait_all;", "").expect("waited");
    for wait in ["", "cp.async.wait_group 1;", "bar.sync 0;"] {
        let found = fault(run(wait, ""));
        assert!(matches!(found.kind, FaultKind::Race { before: AccessKind::Copy, .. }), "{wait}: {found}");
    }
    let found = fault(run("cp.async.wait_group 0;", "add.s64 %rd1, %rd1, 16;"));
    assert!(matches!(found.kind, FaultKind::OutOfBounds { .. }), "{found}");
}

#[test]
fn endless_loops_traps_and_constants() {
    let found = fault(per_thread("L: mov.u32 %r0, 1; bra L;", 32));
    assert!(matches!(found.kind, FaultKind::Budget { .. }), "{found}");
    let found = fault(per_thread("mov.u32 %r0, %tid.x; setp.eq.u32 %p1, %r0, 4; @%p1 trap;", 32));
    assert_eq!((found.thread, found.kind), (Some([4, 0, 0]), FaultKind::Trap));
    let text = ".version 7.0\n.target sm_75\n.address_size 64\n.const .u32 c = 1;\n.visible .entry k() { .reg .b64 %rd<2>; mov.u64 %rd1, c; st.global.u32 [%rd1], 5; ret; }";
    let found = fault(launch(&mut device(), text, [1, 1, 1], [1, 1, 1], 0, &[]));
    assert!(matches!(found.kind, FaultKind::ReadOnly { .. }), "{found}");
}

#[test]
fn the_first_block_to_fail_is_named_whatever_the_threads() {
    for threads in [1, 4] {
        let mut device = Device::new(Config { threads, ..Config::default() });
        let x = put(&mut device, &[1u32; 64 * 40], u32::to_le_bytes);
        let text = module(".param .u64 x", &format!("{ELEMENT} ld.global.u32 %r3, [%rd1];"));
        let found = fault(launch(&mut device, &text, [200, 1, 1], [64, 1, 1], 0, &[&x.to_le_bytes()]));
        assert_eq!(found.block, [40, 0, 0]);
    }
}

#[test]
fn what_cannot_run_is_refused() {
    let mut device = device();
    for (text, what) in [
        ("", "no PTX text"),
        (".version 7.0\n.target sm_120\n.address_size 64", "sm_120"),
        (&module("", "tex.1d.v4.s32.s32 {%r1,%r2,%r3,%r4}, [%rd1, {%r1}];"), "expected"),
        (&module("", "frobnicate.b32 %r1, %r2;"), "frobnicate.b32: this instruction is not supported"),
        (&module("", "add.u32 %r1, %r2, %zz;"), "%zz"),
        (&module("", "bra NOWHERE;"), "NOWHERE"),
        (&module("", "ld.shared.u32 %r1, [gone];"), "gone"),
        (&module("", "call f, ();"), "function f"),
        ("}", "unexpected"),
        (&module("", "add.u32 %r1, %r2"), "expected"),
    ] {
        let error = device.load(text).expect_err("cannot run").to_string();
        assert!(error.contains(what), "{error}");
    }
    let text = module(".param .u64 x", ".reg .b32 q; mov.u32 q, 1;");
    for (grid, block, shared, args) in [
        ([0, 1, 1], [1, 1, 1], 0, 1),
        ([1, 1, 1], [1025, 1, 1], 0, 1),
        ([1, 1, 1], [1, 1, 1], 1 << 20, 1),
        ([1, 1, 1], [1, 1, 1], 0, 2),
    ] {
        let args = vec![[0u8; 8].as_slice(); args];
        assert!(matches!(launch(&mut device, &text, grid, block, shared, &args), Err(LaunchError::Invalid(_))));
    }
    assert!(device.alloc(usize::MAX).is_err());
}

#[test]
fn a_dry_device_checks_a_launch_and_does_nothing() {
    let mut device = Device::new(Config { dry: true, ..Config::default() });
    let at = put(&mut device, &[7u32], u32::to_le_bytes);
    let text = module(".param .u64 x", "ld.param.u64 %rd1, [x]; mov.u32 %r1, 1; st.global.u32 [%rd1], %r1;");
    let mut run = |threads| launch(&mut device, &text, [1, 1, 1], [threads, 1, 1], 0, &[&at.to_le_bytes()]);
    assert!(matches!(run(1025), Err(LaunchError::Invalid(_))));
    assert_eq!(run(1).expect("nothing runs"), Counters::default());
    assert_eq!(words(&device, at, 1), [7]);
}
