//! A program's way through the driver: load, copy, launch, fault.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use cuda_double::*;

const PTX: &CStr = c"
.version 7.0
.target sm_75
.address_size 64
.global .u32 counter;
.extern .shared .align 16 .b8 dyn[];
.visible .entry scale(.param .u64 x, .param .f32 by) {
    .reg .b32 %r<3>; .reg .f32 %f<4>; .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [x]; ld.param.f32 %f1, [by]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;
    ld.global.f32 %f2, [%rd3]; mul.f32 %f3, %f2, %f1; st.global.f32 [%rd3], %f3; st.shared.u32 [dyn], 1; ret;
}";

#[test]
fn a_program_runs_and_its_fault_stays() {
    // SAFETY: every pointer below is to a live variable of the type that the call writes or reads.
    unsafe {
        let (mut context, mut module, mut function, mut stream) = (null_mut(), null_mut(), null_mut(), null_mut());
        let mut at = 0u64;
        assert_eq!(cuMemAlloc_v2(&mut at, 16), 3);
        assert_eq!(cuInit(0), 0);
        assert_eq!(cuMemAlloc_v2(&mut at, 16), 201);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
        assert_eq!(cuCtxSetCurrent(context), 0);
        assert_eq!(cuModuleLoadDataEx(&mut module, PTX.as_ptr().cast(), 0, null_mut(), null_mut()), 0);
        assert_eq!(cuModuleLoadData(&mut module, c"nonsense".as_ptr().cast()), 218);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"none".as_ptr()), 500);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"scale".as_ptr()), 0);
        let (mut counter, mut bytes) = (0, 0);
        assert_eq!(cuModuleGetGlobal_v2(&mut counter, &mut bytes, module, c"counter".as_ptr()), 0);
        assert_eq!(bytes, 4);
        assert_eq!(cuStreamCreateWithPriority(&mut stream, 1, 0), 0);
        assert_eq!(cuMemAlloc_v2(&mut at, 16), 0);
        let mut x = [1.0f32, 2.0, 3.0, 4.0];
        assert_eq!(cuMemcpyHtoDAsync_v2(at, x.as_ptr().cast(), 16, stream), 0);
        let mut by = 2.5f32;
        let mut params: [*mut c_void; 2] = [(&raw mut at).cast(), (&raw mut by).cast()];
        let mut launch = |threads, shared| {
            cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, shared, stream, params.as_mut_ptr(), null_mut())
        };
        assert_eq!(launch(4, 64), 0);
        // More than 48 KiB only after asking for it.
        assert_eq!(launch(4, 60 << 10), 1);
        assert_eq!(cuFuncSetAttribute(function, 8, 60 << 10), 0);
        assert_eq!(launch(4, 60 << 10), 0);
        assert_eq!(launch(2000, 64), 1);
        assert_eq!(cuMemcpyDtoH_v2(x.as_mut_ptr().cast(), at, 16), 0);
        assert_eq!(x, [6.25, 12.5, 18.75, 25.0]);
        assert_eq!(cuMemsetD32_v2(at, 7, 4), 0);
        assert_eq!(cuMemcpyDtoD_v2(at, at + 8, 8), 0);
        let mut words = [0u32; 4];
        assert_eq!(cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), at, 16), 0);
        assert_eq!(words, [7; 4]);
        assert_eq!(cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), at + 8, 16), 1);

        let (mut start, mut end, mut ms) = (null_mut(), null_mut(), -1.0);
        assert_eq!((cuEventCreate(&mut start, 0), cuEventCreate(&mut end, 0)), (0, 0));
        assert_eq!((cuEventRecord(start, stream), cuEventRecord(end, null_mut())), (0, 0));
        assert_eq!(cuEventElapsedTime(&mut ms, start, end), 0);
        assert!(ms >= 0.0);
        assert_eq!((cuEventDestroy_v2(start), cuEventDestroy_v2(start)), (0, 400));
        assert_eq!(cuGraphCreate(), 801);
        let mut pinned = null_mut();
        assert_eq!(cuMemAllocHost_v2(&mut pinned, 100), 0);
        assert_eq!((cuMemFreeHost(pinned), cuMemFreeHost(pinned)), (0, 1));

        // Another thread has no context of its own.
        let other =
            std::thread::spawn(|| (cuCtxSynchronize(), cuCtxSetCurrent(0x10 as *mut c_void), cuCtxSynchronize()));
        assert_eq!(other.join().expect("no panic"), (201, 0, 0));

        assert_eq!(launch(5, 64), 700);
        assert_eq!(cuStreamSynchronize(stream), 700);
        assert_eq!(cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), at, 16), 700);
        let mut text = null();
        assert_eq!(cuGetErrorString(700, &mut text), 0);
        assert!(CStr::from_ptr(text).to_string_lossy().contains("illegal memory access"));
        assert_eq!(cuDevicePrimaryCtxReset_v2(0), 0);
        assert_eq!(cuStreamSynchronize(stream), 0);
    }
}
