// The driver's functions, one a line, with the types that pass their arguments: every pointer, handle and pointer to a
// function is a `Ptr`, a device an `i32`, an address of device memory a `u64`, an enum a `u32`. Each gives an error
// code.
//
// What a line becomes is said by whoever includes this file: the library makes functions of them, a test compares them
// with cust's declarations.

use super::Ptr;

forward! {
    // What cust 0.3.2 calls, besides `cuGetErrorString`, by the names that it links.
    cuInit(flags: u32);
    cuDriverGetVersion(version: Ptr);
    cuDeviceGet(device: Ptr, ordinal: i32);
    cuDeviceGetCount(count: Ptr);
    cuDeviceGetName(name: Ptr, len: i32, device: i32);
    cuDeviceTotalMem_v2(bytes: Ptr, device: i32);
    cuDeviceGetAttribute(value: Ptr, attribute: u32, device: i32);
    cuDevicePrimaryCtxRetain(context: Ptr, device: i32);
    cuDevicePrimaryCtxRelease_v2(device: i32);
    cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32);
    cuDevicePrimaryCtxReset_v2(device: i32);
    cuCtxCreate_v2(context: Ptr, flags: u32, device: i32);
    cuCtxDestroy_v2(context: Ptr);
    cuCtxPushCurrent_v2(context: Ptr);
    cuCtxPopCurrent_v2(context: Ptr);
    cuCtxSetCurrent(context: Ptr);
    cuCtxGetCurrent(context: Ptr);
    cuCtxGetDevice(device: Ptr);
    cuCtxGetFlags(flags: Ptr);
    cuCtxSynchronize();
    cuCtxSetLimit(limit: u32, value: usize);
    cuCtxGetLimit(value: Ptr, limit: u32);
    cuCtxGetCacheConfig(config: Ptr);
    cuCtxSetCacheConfig(config: u32);
    cuCtxGetSharedMemConfig(config: Ptr);
    cuCtxSetSharedMemConfig(config: u32);
    cuCtxGetApiVersion(context: Ptr, version: Ptr);
    cuCtxGetStreamPriorityRange(least: Ptr, greatest: Ptr);
    cuModuleLoad(module: Ptr, file: Ptr);
    cuModuleLoadData(module: Ptr, image: Ptr);
    cuModuleLoadDataEx(module: Ptr, image: Ptr, options: u32, names: Ptr, values: Ptr);
    cuModuleUnload(module: Ptr);
    cuModuleGetFunction(function: Ptr, module: Ptr, name: Ptr);
    cuModuleGetGlobal_v2(at: Ptr, bytes: Ptr, module: Ptr, name: Ptr);
    cuLinkCreate_v2(options: u32, names: Ptr, values: Ptr, state: Ptr);
    cuLinkAddData_v2(state: Ptr, kind: u32, data: Ptr, size: usize, name: Ptr, options: u32, names: Ptr, values: Ptr);
    cuLinkComplete(state: Ptr, cubin: Ptr, size: Ptr);
    cuLinkDestroy(state: Ptr);
    cuMemGetInfo_v2(free: Ptr, total: Ptr);
    cuMemAlloc_v2(at: Ptr, bytes: usize);
    cuMemFree_v2(at: u64);
    cuMemAllocHost_v2(to: Ptr, bytes: usize);
    cuMemFreeHost(at: Ptr);
    cuMemAllocManaged(at: Ptr, bytes: usize, flags: u32);
    cuMemcpyHtoD_v2(dst: u64, src: Ptr, bytes: usize);
    cuMemcpyDtoH_v2(dst: Ptr, src: u64, bytes: usize);
    cuMemcpyDtoD_v2(dst: u64, src: u64, bytes: usize);
    cuMemcpyHtoA_v2(dst: Ptr, dst_offset: usize, src: Ptr, bytes: usize);
    cuMemcpyAtoH_v2(dst: Ptr, src: Ptr, src_offset: usize, bytes: usize);
    cuMemcpy2D_v2(copy: Ptr);
    cuMemcpyHtoDAsync_v2(dst: u64, src: Ptr, bytes: usize, stream: Ptr);
    cuMemcpyDtoHAsync_v2(dst: Ptr, src: u64, bytes: usize, stream: Ptr);
    cuMemcpyDtoDAsync_v2(dst: u64, src: u64, bytes: usize, stream: Ptr);
    cuMemsetD8_v2(dst: u64, value: u8, count: usize);
    cuMemsetD16_v2(dst: u64, value: u16, count: usize);
    cuMemsetD32_v2(dst: u64, value: u32, count: usize);
    cuMemsetD8Async(dst: u64, value: u8, count: usize, stream: Ptr);
    cuMemsetD16Async(dst: u64, value: u16, count: usize, stream: Ptr);
    cuMemsetD32Async(dst: u64, value: u32, count: usize, stream: Ptr);
    cuArrayDestroy(array: Ptr);
    cuArray3DCreate_v2(handle: Ptr, descriptor: Ptr);
    cuArray3DGetDescriptor_v2(descriptor: Ptr, array: Ptr);
    cuMemFreeAsync(at: u64, stream: Ptr);
    cuMemAllocAsync(at: Ptr, bytes: usize, stream: Ptr);
    cuMemPrefetchAsync(at: u64, count: usize, device: i32, stream: Ptr);
    cuMemAdvise(at: u64, count: usize, advice: u32, device: i32);
    cuStreamCreateWithPriority(stream: Ptr, flags: u32, priority: i32);
    cuStreamGetPriority(stream: Ptr, priority: Ptr);
    cuStreamGetFlags(stream: Ptr, flags: Ptr);
    cuStreamWaitEvent(stream: Ptr, event: Ptr, flags: u32);
    cuStreamSynchronize(stream: Ptr);
    cuStreamDestroy_v2(stream: Ptr);
    cuEventCreate(event: Ptr, flags: u32);
    cuEventRecord(event: Ptr, stream: Ptr);
    cuEventQuery(event: Ptr);
    cuEventSynchronize(event: Ptr);
    cuEventDestroy_v2(event: Ptr);
    cuEventElapsedTime(milliseconds: Ptr, start: Ptr, end: Ptr);
    cuImportExternalMemory(memory: Ptr, handle: Ptr);
    cuExternalMemoryGetMappedBuffer(at: Ptr, memory: Ptr, buffer: Ptr);
    cuDestroyExternalMemory(memory: Ptr);
    cuFuncGetAttribute(value: Ptr, attribute: u32, function: Ptr);
    cuFuncSetCacheConfig(function: Ptr, config: u32);
    cuFuncSetSharedMemConfig(function: Ptr, config: u32);
    cuLaunchKernel(function: Ptr, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32,
        shared: u32, stream: Ptr, params: Ptr, extra: Ptr);
    cuLaunchHostFunc(stream: Ptr, function: Ptr, data: Ptr);
    cuGraphCreate(graph: Ptr, flags: u32);
    cuGraphAddKernelNode(node: Ptr, graph: Ptr, dependencies: Ptr, count: usize, params: Ptr);
    cuGraphKernelNodeGetParams(node: Ptr, params: Ptr);
    cuGraphNodeGetType(node: Ptr, kind: Ptr);
    cuGraphGetNodes(graph: Ptr, nodes: Ptr, count: Ptr);
    cuGraphGetEdges(graph: Ptr, from: Ptr, to: Ptr, count: Ptr);
    cuGraphDestroy(graph: Ptr);
    cuGraphDebugDotPrint(graph: Ptr, path: Ptr, flags: u32);
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Ptr, function: Ptr, block: i32, shared: usize);
    cuOccupancyMaxPotentialBlockSize(grid: Ptr, block: Ptr, function: Ptr, shared_of: Ptr, shared: usize, limit: i32);
    cuOccupancyAvailableDynamicSMemPerBlock(shared: Ptr, function: Ptr, blocks: i32, block: i32);
    cuTexObjectCreate(object: Ptr, resource: Ptr, texture: Ptr, view: Ptr);
    cuTexObjectDestroy(object: u64);
    cuTexObjectGetResourceDesc(resource: Ptr, object: u64);
    cuTexObjectGetResourceViewDesc(view: Ptr, object: u64);
    cuSurfObjectCreate(object: Ptr, resource: Ptr);
    cuSurfObjectDestroy(object: u64);
    cuSurfObjectGetResourceDesc(resource: Ptr, object: u64);


    // What cust only declares, in `cust::sys`: more than 48 KiB of shared memory, memory that is page-locked where it
    // lies, captured graphs, asking a stream whether it is done.
    cuDeviceGetUuid(uuid: Ptr, device: i32);
    cuMemHostAlloc(to: Ptr, bytes: usize, flags: u32);
    cuMemHostRegister_v2(at: Ptr, bytes: usize, flags: u32);
    cuMemHostUnregister(at: Ptr);
    cuStreamBeginCapture_v2(stream: Ptr, mode: u32);
    cuStreamEndCapture(stream: Ptr, graph: Ptr);
    cuStreamIsCapturing(stream: Ptr, status: Ptr);
    cuStreamQuery(stream: Ptr);
    cuFuncSetAttribute(function: Ptr, attribute: u32, value: i32);
    cuLaunchCooperativeKernel(function: Ptr, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32,
        shared: u32, stream: Ptr, params: Ptr);
    cuGraphInstantiateWithFlags(exec: Ptr, graph: Ptr, flags: u64);
    cuGraphLaunch(exec: Ptr, stream: Ptr);
    cuGraphExecDestroy(exec: Ptr);
}
