// The forward convolution on tiles of any kind; its mathematics is told in conv.cu.

#pragma once

#include "gather.cuh"

template <class T, int VECTOR>
__device__ __forceinline__ void forward(const float *x, const float *w, const float *bias, float *y,
                                        const ConvShape &s, int k_part) {
    const int inner = s.c / s.groups, outer = s.q / s.groups;
    // In shared memory for want of registers.
    __shared__ Sweep sweep;
    __shared__ int outs[T::BM];
    if (threadIdx.x == 0) sweep = forward_sweep(s);
    __syncthreads();
    T tile;
    {
        const Task task(s.groups, outer, T::BN);
        const int k = task.part * k_part, end = min(k + k_part, s.kh * s.kw * inner);
        gather<T, VECTOR, false>(tile, outs, x, w, s, sweep, task.row_tile * T::BM, task.n0, task.group * inner,
                                 task.group * outer, inner, outer, k, end);
    }
    const Task task(s.groups, outer, T::BN);
    const int columns = outer - task.n0, first = task.group * outer + task.n0;
    if (bias) {
#pragma unroll
        for (int j = 0; j < T::TN; j++) {
            int n = tile.column_of(j);
            float b = n < columns ? bias[first + n] : 0.0f;
#pragma unroll
            for (int i = 0; i < T::TM; i++) tile.sums[i][j] += b;
        }
    }
    const bool quads = VECTOR == 4 || in_quads(y, s.q, outer);
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
        int pixel = outs[tile.row_of(i)];
        if (pixel >= 0) tile.store_row(i, y + (task.part * sweep.rows + pixel) * s.q + first, columns, quads, false);
    }
}

#define FORWARD(NAME, TILE, VECTOR, BLOCKS)                                                                       \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, BLOCKS)                                           \
        NAME(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ bias,            \
             float *__restrict__ y, ConvShape s, int k_part) {                                                    \
        forward<TILE, VECTOR>(x, w, bias, y, s, k_part);                                                          \
    }
