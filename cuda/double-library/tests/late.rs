//! A double that does its work as late as it may: what waits for nothing goes wrong.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use cuda_double::*;

const PTX: &CStr = c"
.version 7.0
.target sm_75
.address_size 64
.visible .entry double_it(.param .u64 x) {
    .reg .b32 %r<2>; .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [x]; ld.global.u32 %r1, [%rd1]; add.u32 %r1, %r1, %r1; st.global.u32 [%rd1], %r1; ret;
}";

#[test]
fn work_is_done_when_somebody_waits_and_not_before() {
    // SAFETY: no other thread reads the environment, and every pointer below is to a live variable of the type that the
    // call writes or reads; memory from the driver is used until it is given back.
    unsafe {
        std::env::set_var("DRIVER_DOUBLE_LATE", "1");
        std::env::set_var("DRIVER_DOUBLE_QUIET", "1");
        let (mut context, mut module, mut function) = (null_mut(), null_mut(), null_mut());
        let (mut copies, mut kernels, mut event, mut host) = (null_mut(), null_mut(), null_mut(), null_mut());
        let mut at = 0u64;
        assert_eq!(cuInit(0), 0);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
        assert_eq!(cuCtxSetCurrent(context), 0);
        assert_eq!(cuModuleLoadData(&mut module, PTX.as_ptr().cast()), 0);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"double_it".as_ptr()), 0);
        // NON_BLOCKING, so that the default stream waits for neither.
        assert_eq!((cuStreamCreate(&mut copies, 1), cuStreamCreate(&mut kernels, 1)), (0, 0));
        assert_eq!((cuEventCreate(&mut event, 0), cuMemAllocHost_v2(&mut host, 8)), (0, 0));
        assert_eq!(cuMemAlloc_v2(&mut at, 4), 0);
        let words = host.cast::<u32>();
        let mut params: [*mut c_void; 1] = [(&raw mut at).cast()];
        let upload = || cuMemcpyHtoDAsync_v2(at, host, 4, copies);
        let mut launch = || cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, kernels, params.as_mut_ptr(), null_mut());
        let result = words.add(1);
        let download = || cuMemcpyDtoHAsync_v2(result.cast(), at, 4, kernels);

        // In order: a copy, an event behind it, a kernel that waits for that, the way back.
        words.write(21);
        assert_eq!((upload(), cuEventRecord(event, copies), cuStreamWaitEvent(kernels, event, 0)), (0, 0, 0));
        assert_eq!((launch(), download()), (0, 0));
        assert_eq!(result.read(), u32::MAX, "nobody has waited");
        assert_eq!(cuStreamSynchronize(kernels), 0);
        assert_eq!(result.read(), 42);

        // The next copy on a stream of its own, for which the kernel does not wait, is no earlier than the kernel.
        words.write(5);
        assert_eq!((upload(), launch(), download(), cuStreamSynchronize(kernels)), (0, 0, 0, 0));
        assert_eq!(result.read(), 84);
        assert_eq!(cuEventRecord(event, copies), 0);
        assert_eq!(cuEventSynchronize(event), 0);
        assert_eq!((download(), cuEventRecord(event, kernels), cuEventSynchronize(event)), (0, 0, 0));
        assert_eq!(result.read(), 5);

        // Memory that can be paged out is copied away before the call returns, or waited for.
        let mut word = 8u32;
        assert_eq!(cuMemcpyHtoDAsync_v2(at, (&raw const word).cast(), 4, kernels), 0);
        word = 0;
        assert_eq!((launch(), cuMemcpyDtoHAsync_v2((&raw mut word).cast(), at, 4, kernels)), (0, 0));
        assert_eq!(word, 16);

        // The default stream waits for neither, giving memory back for all.
        assert_eq!((launch(), cuMemcpyDtoH_v2((&raw mut word).cast(), at, 4)), (0, 0));
        assert_eq!(word, 16);
        assert_eq!((download(), cuCtxSynchronize()), (0, 0));
        assert_eq!(result.read(), 32);

        // A page-locked buffer that is written while a copy from it is queued.
        assert_eq!(upload(), 0);
        words.write(6);
        assert_eq!(cuStreamSynchronize(kernels), 0);
        assert_eq!((cuStreamSynchronize(copies), cuStreamSynchronize(kernels)), (700, 700));
        assert_eq!((cuDevicePrimaryCtxReset_v2(0), cuStreamSynchronize(copies)), (0, 0));

        // The fault of a kernel shows at the next wait.
        let mut nowhere = 8u64;
        params[0] = (&raw mut nowhere).cast();
        assert_eq!(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, kernels, params.as_mut_ptr(), null_mut()), 0);
        assert_eq!((cuEventRecord(event, kernels), cuEventSynchronize(event)), (0, 700));
        assert_eq!(cuMemFreeHost(host), 0);
    }
}
