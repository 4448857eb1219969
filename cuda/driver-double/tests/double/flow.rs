//! Branches, barriers, shuffles, votes, atomics, memory of every space.

use crate::{device, launch, module, per_thread, put, words};

fn each(body: &str) -> Vec<u32> {
    per_thread(&format!("mov.u32 %r1, %tid.x;\n{body}"), 32).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn lanes_part_and_come_together() {
    let found = each(
        "and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0;
         @%p1 bra EVEN;
         mul.lo.u32 %r0, %r1, 10; bra.uni JOIN;
         EVEN: add.u32 %r0, %r1, 100;
         JOIN: activemask.b32 %r3; setp.ne.u32 %p2, %r3, -1; @%p2 mov.u32 %r0, 0;",
    );
    assert_eq!(found, (0..32).map(|i| if i % 2 == 0 { i + 100 } else { 10 * i }).collect::<Vec<_>>());
}

#[test]
fn loops_of_different_length() {
    let found = each(
        "mov.u32 %r0, 0; mov.u32 %r2, 0;
         LOOP: setp.ge.u32 %p1, %r2, %r1; @%p1 bra DONE;
         add.u32 %r0, %r0, %r2; add.u32 %r2, %r2, 1; bra LOOP;
         DONE:",
    );
    assert_eq!(found, (0..32).map(|i: u32| i * i.saturating_sub(1) / 2).collect::<Vec<_>>());
}

#[test]
fn a_table_of_branches() {
    let found = each(
        "rem.u32 %r2, %r1, 3;
         T: .branchtargets A, B, C;
         brx.idx %r2, T;
         A: mov.u32 %r0, 7; bra END;
         B: mov.u32 %r0, 8; bra END;
         C: mov.u32 %r0, 9;
         END:",
    );
    assert_eq!(found, (0..32).map(|i| 7 + i % 3).collect::<Vec<_>>());
}

#[test]
fn some_lanes_end_early() {
    let mut device = device();
    let out = put(&mut device, &[5u32; 32], u32::to_le_bytes);
    let text = module(
        ".param .u64 out",
        "mov.u32 %r1, %tid.x; setp.gt.u32 %p1, %r1, 20; @%p1 exit; bar.sync 0;
         ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r1;",
    );
    launch(&mut device, &text, [1, 1, 1], [32, 1, 1], 0, &[&out.to_le_bytes()]).expect("runs");
    assert_eq!(words(&device, out, 32), (0..32).map(|i| if i > 20 { 5 } else { i }).collect::<Vec<_>>());
}

#[test]
fn shuffles() {
    let run = |instruction: &str| each(&format!("mul.lo.u32 %r2, %r1, 3; {instruction}"));
    let of = |from: fn(u32) -> u32| (0..32).map(|i| 3 * from(i)).collect::<Vec<_>>();
    assert_eq!(run("shfl.sync.idx.b32 %r0, %r2, 5, 31, -1;"), of(|_| 5));
    assert_eq!(run("shfl.sync.up.b32 %r0, %r2, 2, 0, -1;"), of(|i| if i < 2 { i } else { i - 2 }));
    assert_eq!(run("shfl.sync.down.b32 %r0, %r2, 4, 31, -1;"), of(|i| if i > 27 { i } else { i + 4 }));
    assert_eq!(run("shfl.sync.bfly.b32 %r0, %r2, 16, 31, -1;"), of(|i| i ^ 16));
    // Segments of 8 lanes: c = (32 - 8) << 8 | 7.
    assert_eq!(run("shfl.sync.down.b32 %r0, %r2, 2, 6175, -1;"), of(|i| if i % 8 > 5 { i } else { i + 2 }));
    assert_eq!(run("shfl.sync.idx.b32 %r0, %r2, 3, 6175, -1;"), of(|i| i / 8 * 8 + 3));
    assert_eq!(
        run("shfl.sync.up.b32 %r0|%p1, %r2, 1, 0, -1; selp.u32 %r0, 1, 0, %p1;"),
        (0..32).map(|i| u32::from(i > 0)).collect::<Vec<_>>()
    );
    // Lanes that part meet again at the instruction that names them all.
    let met =
        run("setp.lt.u32 %p1, %r1, 7; @%p1 bra S; add.u32 %r2, %r2, 1; S: shfl.sync.idx.b32 %r0, %r2, 31, 31, -1;");
    assert_eq!(met, vec![94; 32]);
    // A half of the warp among itself.
    let half =
        run("setp.lt.u32 %p1, %r1, 16; mov.u32 %r0, 0; @!%p1 bra E; shfl.sync.bfly.b32 %r0, %r2, 1, 31, 0xffff; E:");
    assert_eq!(half, (0..32).map(|i| if i < 16 { 3 * (i ^ 1) } else { 0 }).collect::<Vec<_>>());
}

#[test]
fn votes_and_matches() {
    let run = |body: &str| each(&format!("setp.lt.u32 %p1, %r1, 3; {body}"));
    assert_eq!(run("vote.sync.ballot.b32 %r0, %p1, -1;"), vec![7; 32]);
    assert_eq!(run("vote.sync.ballot.b32 %r0, !%p1, -1;"), vec![!7; 32]);
    assert_eq!(run("vote.sync.any.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;"), vec![1; 32]);
    assert_eq!(run("vote.sync.all.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;"), vec![0; 32]);
    assert_eq!(run("vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;"), vec![0; 32]);
    assert_eq!(
        run("shr.u32 %r2, %r1, 4; match.any.sync.b32 %r0, %r2, -1;"),
        (0..32).map(|i| if i < 16 { 0xffff } else { 0xffff_0000 }).collect::<Vec<_>>()
    );
    assert_eq!(run("mov.u32 %r2, 4; match.all.sync.b32 %r0|%p2, %r2, -1;"), vec![u32::MAX; 32]);
    assert_eq!(run("redux.sync.add.u32 %r0, %r1, -1;"), vec![496; 32]);
    assert_eq!(run("sub.u32 %r2, %r1, 5; redux.sync.min.s32 %r0, %r2, -1;"), vec![-5i32 as u32; 32]);
    assert_eq!(run("sub.u32 %r2, %r1, 5; redux.sync.min.u32 %r0, %r2, -1;"), vec![0; 32]);
    assert_eq!(run("redux.sync.xor.b32 %r0, %r1, -1;"), vec![0; 32]);
    assert_eq!(run("mov.u32 %r0, %lanemask_lt;")[5], 31);
    assert_eq!(run("mov.u32 %r0, %lanemask_ge;")[31], 1 << 31);
}

#[test]
fn barriers_order_shared_memory() {
    let found = per_thread(
        ".shared .align 4 .b8 s[512];
         mov.u32 %r1, %tid.x; mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;
         bar.sync 0;
         mov.u32 %r5, 127; sub.u32 %r5, %r5, %r1; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; ld.shared.u32 %r0, [%r5];",
        128,
    );
    assert_eq!(found.expect("no race"), (0..128).rev().collect::<Vec<_>>());
    let votes = per_thread(
        "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 40;
         bar.red.popc.u32 %r0, 0, %p1; bar.red.and.pred %p2, 0, %p1; bar.red.or.pred %p3, 0, %p1;
         @%p2 add.u32 %r0, %r0, 1000; @%p3 add.u32 %r0, %r0, 2000;",
        96,
    );
    assert_eq!(votes.expect("runs"), vec![2040; 96]);
    // Two warps meet at barrier 1 while the third has its own way.
    let named = per_thread(
        "mov.u32 %r1, %tid.x; mov.u32 %r0, %r1; setp.ge.u32 %p1, %r1, 64; @%p1 bra E; bar.sync 1, 64; E: bar.sync 0;",
        96,
    );
    assert_eq!(named.expect("runs"), (0..96).collect::<Vec<_>>());
}

#[test]
fn memory_of_a_thread_and_calls() {
    let text = ".version 7.0\n.target sm_75\n.address_size 64\n
        .global .align 4 .u32 seen = 3;
        .const .align 4 .b8 table[8] = {1, 0, 0, 0, 2, 0, 0, 0};
        .func (.param .b32 res) twice(.param .b32 v) {
            .reg .b32 %r<4>; .reg .pred %p<2>;
            ld.param.u32 %r1, [v];
            setp.gt.u32 %p1, %r1, 50;
            @%p1 bra BIG;
            add.u32 %r2, %r1, %r1; st.param.b32 [res+0], %r2; ret;
        BIG: mov.u32 %r2, 1; st.param.b32 [res+0], %r2; ret;
        }
        .visible .entry k(.param .align 8 .b8 s[24], .param .u64 out) {
            .local .align 8 .b8 depot[64];
            .reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .b16 %h<4>; .reg .pred %p<4>;
            mov.u64 %rd1, depot; cvta.local.u64 %rd2, %rd1;
            mov.u32 %r1, %tid.x; mul.wide.u32 %rd3, %r1, 2; rem.u64 %rd3, %rd3, 64; add.s64 %rd4, %rd2, %rd3;
            mov.b16 %h1, 77; st.u16 [%rd4], %h1; ld.local.s16 %r2, [%rd4-562949953421312];
            // The struct: a byte at 1, a word at 4 by a computed address, a pair at 8.
            ld.param.s8 %r3, [s+1]; mov.b64 %rd5, s; add.s64 %rd5, %rd5, 4; ld.param.u32 %r4, [%rd5]; ld.param.v2.u32 {%r5, %r6}, [s+8];
            { .param .b32 a0; .param .b32 r0; st.param.b32 [a0+0], %r1; call.uni (r0), twice, (a0); ld.param.b32 %r7, [r0+0]; }
            atom.global.add.u32 %r8, [seen], 1;
            ld.const.u32 %r9, [table+4];
            add.u32 %r10, %r2, %r3; add.u32 %r10, %r10, %r4; add.u32 %r10, %r10, %r5; add.u32 %r10, %r10, %r6;
            add.u32 %r10, %r10, %r7; add.u32 %r10, %r10, %r9;
            ld.param.u64 %rd6, [out]; mul.wide.u32 %rd7, %r1, 4; add.s64 %rd6, %rd6, %rd7; st.global.u32 [%rd6], %r10;
            ret;
        }";
    let mut device = device();
    let out = device.alloc(4 * 64).expect("room");
    let module = device.load(text).expect("parses");
    let mut s = [0u8; 24];
    s[1] = 0xff;
    s[4] = 100;
    s[8] = 10;
    s[12] = 20;
    crate::go(&device, &module, "k", [1, 1, 1], [64, 1, 1], 0, &[&s, &out.to_le_bytes()]);
    let want: Vec<u32> = (0..64).map(|i| 77 - 1 + 100 + 30 + if i > 50 { 1 } else { 2 * i } + 2).collect();
    assert_eq!(words(&device, out, 64), want);
    let (seen, bytes) = module.variable("seen").expect("declared");
    assert_eq!((words(&device, seen, 1), bytes), (vec![67], 4));
    assert_eq!(module.kernel("k").expect("there").params, [24, 8]);
}

#[test]
fn dynamic_shared_memory_lies_behind_static() {
    let mut device = device();
    let out = device.alloc(4).expect("room");
    let text = ".version 7.0\n.target sm_75\n.address_size 64\n.extern .shared .align 16 .b8 dyn[];
        .visible .entry k(.param .u64 out) { .shared .align 4 .b8 fixed[12]; .reg .b32 %r<9>; .reg .b64 %rd<9>;
        mov.u32 %r1, fixed; mov.u32 %r2, dyn; st.shared.u32 [%r1+8], 5; st.shared.u32 [dyn+28], 6;
        ld.shared.u32 %r3, [%r2+28]; add.u32 %r3, %r3, %r2; ld.param.u64 %rd1, [out]; st.global.u32 [%rd1], %r3; ret; }";
    launch(&mut device, text, [1, 1, 1], [1, 1, 1], 32, &[&out.to_le_bytes()]).expect("runs");
    assert_eq!(words(&device, out, 1), [22]);
    let error = launch(&mut device, text, [1, 1, 1], [1, 1, 1], 16, &[&out.to_le_bytes()]).unwrap_err();
    assert!(error.to_string().contains("Shared memory"), "{error}");
}

#[test]
fn counters_say_what_happened() {
    let mut device = device();
    let x = put(&mut device, &[1u32; 4096], u32::to_le_bytes);
    let count = |device: &mut crate::Device, stride: u32| {
        let text = module(
            ".param .u64 x",
            &format!(
                ".shared .align 4 .b8 s[16384]; ld.param.u64 %rd1, [x]; mov.u32 %r1, %tid.x; mul.lo.u32 %r2, %r1, {}; cvt.u64.u32 %rd2, %r2;
                 add.s64 %rd1, %rd1, %rd2; ld.global.u32 %r3, [%rd1]; mov.u32 %r4, s; add.u32 %r4, %r4, %r2; st.shared.u32 [%r4], %r3;",
                4 * stride
            ),
        );
        launch(device, &text, [2, 1, 1], [32, 1, 1], 0, &[&x.to_le_bytes()]).expect("runs")
    };
    let dense = count(&mut device, 1);
    assert_eq!((dense.global_loads.requests, dense.global_loads.bytes, dense.global_loads.transactions), (2, 256, 8));
    assert_eq!((dense.global_loads.efficiency(), dense.bank_conflicts(), dense.blocks), (1.0, 0, 2));
    // Both blocks read the same four sectors.
    assert_eq!((dense.global_loads.distinct, dense.global_stores.distinct), (4, 0));
    let sparse = count(&mut device, 32);
    assert_eq!((sparse.global_loads.transactions, sparse.global_loads.efficiency()), (64, 0.125));
    assert_eq!(sparse.bank_conflicts(), 62);
    let two = count(&mut device, 2);
    assert_eq!((two.global_loads.transactions, two.bank_conflicts()), (16, 2));
    assert_eq!(dense.threads(), 32 * dense.warps());
    assert!(dense.json().contains("\"global_loads\":{\"requests\":2,\"bytes\":256"));
}
