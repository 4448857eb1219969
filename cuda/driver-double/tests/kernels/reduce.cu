// Sums, maxima, softmax and scans: shuffles, votes, shared memory, barriers, atomics.

__device__ float warp_sum(float v) {
    for (int step = 16; step > 0; step /= 2) v += __shfl_down_sync(0xffffffffu, v, step);
    return v;
}

// One sum per block, in the order that the warps give.
extern "C" __global__ void block_sum(const float *__restrict__ x, float *__restrict__ sums, int n) {
    __shared__ float part[32];
    float v = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.0f;
        v = warp_sum(v);
        if (threadIdx.x == 0) sums[blockIdx.x] = v;
    }
}

// One row per block; the row lies in dynamic shared memory meanwhile.
extern "C" __global__ void softmax(const float *__restrict__ x, float *__restrict__ y, int width) {
    extern __shared__ float row[];
    __shared__ float part[32];
    const float *in = x + (size_t)blockIdx.x * width;
    float top = -INFINITY;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        row[i] = in[i];
        top = fmaxf(top, row[i]);
    }
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = top;
    __syncthreads();
    top = part[0];
    for (int w = 1; w < blockDim.x / 32; w++) top = fmaxf(top, part[w]);
    __syncthreads();
    float sum = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        row[i] = expf(row[i] - top);
        sum += row[i];
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = part[0];
    for (int w = 1; w < blockDim.x / 32; w++) sum += part[w];
    for (int i = threadIdx.x; i < width; i += blockDim.x) y[(size_t)blockIdx.x * width + i] = row[i] / sum;
}

// Inclusive scan within a warp: shfl.up with a bound.
extern "C" __global__ void warp_scan(const int *x, int *y) {
    int v = x[threadIdx.x];
    int lane = threadIdx.x % 32;
    for (int step = 1; step < 32; step *= 2) {
        int up = __shfl_up_sync(0xffffffffu, v, step);
        if (lane >= step) v += up;
    }
    y[threadIdx.x] = v;
}

// Keeps what is positive, in order within each warp: ballot, popc, atomics.
extern "C" __global__ void keep_positive(const int *x, int *kept, unsigned *count, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool keep = i < n && x[i] > 0;
    unsigned who = __ballot_sync(0xffffffffu, keep);
    unsigned lane = threadIdx.x % 32;
    unsigned base = 0;
    if (lane == 0) base = atomicAdd(count, __popc(who));
    base = __shfl_sync(0xffffffffu, base, 0);
    if (keep) kept[base + __popc(who & ((1u << lane) - 1))] = x[i];
}

// A histogram in shared memory, then in global memory; the last block to end doubles it.
__device__ unsigned blocks_done;
extern "C" __global__ void histogram(const unsigned char *x, unsigned *bins, int n) {
    __shared__ unsigned mine[64];
    __shared__ bool last;
    for (int b = threadIdx.x; b < 64; b += blockDim.x) mine[b] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&mine[x[i] & 63], 1u);
    __syncthreads();
    for (int b = threadIdx.x; b < 64; b += blockDim.x) atomicAdd(&bins[b], mine[b]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(&blocks_done, 1u) == gridDim.x - 1;
    __syncthreads();
    if (last)
        for (int b = threadIdx.x; b < 64; b += blockDim.x) bins[b] = 2 * ((volatile unsigned *)bins)[b];
}

// Atomics of every kind that CUDA C++ offers on plain types.
extern "C" __global__ void atomics(float *f, double *d, int *s, unsigned *u, unsigned long long *l) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(f, 1.0f);
    atomicAdd(d, 0.5);
    atomicMin(&s[0], -t);
    atomicMax(&s[1], t);
    atomicAdd(&s[2], t);
    atomicOr(&u[0], 1u << (t % 32));
    atomicAnd(&u[1], ~(1u << (t % 16)));
    atomicXor(&u[2], 1u << (t % 8));
    atomicExch(&u[3], 7u);
    atomicInc(&u[4], 9u);
    atomicDec(&u[5], 9u);
    atomicAdd(&l[0], 1ull << 33);
    atomicMax(&l[1], (unsigned long long)t << 32);
    unsigned old = u[6], seen;
    do { seen = old; old = atomicCAS(&u[6], seen, seen + 3); } while (old != seen);
}
