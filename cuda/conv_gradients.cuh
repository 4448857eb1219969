// The gradients of a convolution on tiles of any kind; their mathematics is told in conv_backward.cu.

#pragma once

#include "gather.cuh"

template <class T, int VECTOR>
__device__ __forceinline__ void input_gradient(const float *dy, const float *w, float *dx, const ConvShape &s,
                                               int k_part, int add) {
    const int inner = s.q / s.groups, outer = s.c / s.groups;
    const int tiles = gridDim.x / ((outer + T::BN - 1) / T::BN) / classes(s);
    // Each block's own, and in shared memory for want of registers.
    __shared__ Sweep sweep;
    __shared__ int outs[T::BM];
    T tile;
    {
        const Task task(s.groups, outer, T::BN);
        if (threadIdx.x == 0) sweep = gradient_sweep(s, task.row_tile / tiles);
        __syncthreads();
        const int m0 = task.row_tile % tiles * T::BM;
        if (m0 >= sweep.rows) return;
        const int k = task.part * k_part, end = min(k + k_part, sweep.v.cells * sweep.h.cells * inner);
        gather<T, VECTOR, true>(tile, outs, dy, w, s, sweep, m0, task.n0, task.group * inner, task.group * inner, inner,
                                outer, k, end);
    }
    const Task task(s.groups, outer, T::BN);
    const bool quads = VECTOR == 4 || in_quads(dx, s.c, outer);
    float *to = dx + task.part * (s.n * s.h * s.w * s.c) + task.group * outer + task.n0;
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
        int pixel = outs[tile.row_of(i)];
        if (pixel >= 0) tile.store_row(i, to + pixel * s.c, outer - task.n0, quads, add);
    }
}

// A row of the weights' matrix, one cell and channel: how far from a window's begin its pixel lies.
struct Row {
    int from;   // channel
    int down, right;
};

template <class T, int VECTOR>
__device__ __forceinline__ void weight_gradient(const float *x, const float *dy, float *dw, const ConvShape &s,
                                                int p_part, int add) {
    // Both matrices' rows are pixels with neighbouring columns in memory: tiles need no turning.
    using Straight = typename T::Straight;
    constexpr int A_LANES = T::BM / VECTOR, A_ROWS = T::THREADS / A_LANES, A = (T::BK + A_ROWS - 1) / A_ROWS;
    constexpr int B_LANES = T::BN / VECTOR, B_ROWS = T::THREADS / B_LANES, B = (T::BK + B_ROWS - 1) / B_ROWS;
    __shared__ __align__(16) float as[2][T::BK][T::BM + Straight::PADDING], bs[2][T::BK][T::BN + Straight::PADDING];

    const int cin = s.c / s.groups, cout = s.q / s.groups, rows = s.kh * s.kw * cin;
    // In shared memory for want of registers.
    __shared__ Divisor columns, lines;
    __shared__ Row taps[A_LANES];
    const int tid = threadIdx.x, a_row = tid / A_LANES, a_lane = tid % A_LANES * VECTOR;
    const int b_row = tid / B_LANES, b_lane = tid % B_LANES * VECTOR;
    float a[A][VECTOR], b[B][VECTOR];
    int p, end, from;
    bool column_there;
    {
        const Task task(s.groups, cout, T::BN);
        p = task.part * p_part, end = min(p + p_part, s.n * s.oh * s.ow);
        from = task.group * cout + task.n0 + b_lane, column_there = task.n0 + b_lane < cout;
        if (tid == 0) columns = Divisor(s.ow), lines = Divisor(s.oh);
        for (int i = tid; i < A_LANES; i += T::THREADS) {
            const int m = task.row_tile * T::BM + i * VECTOR, cell = m / cin;
            Row row = {task.group * cin + m % cin, cell / s.kw * s.dh - s.ph, cell % s.kw * s.dw - s.pw};
            // Outside of any map.
            if (m >= rows) row.down = -(1 << 30);
            taps[i] = row;
        }
    }
    __syncthreads();

    auto load = [&](int p) {
        const Row row = taps[a_lane / VECTOR];
#pragma unroll
        for (int i = 0; i < A; i++) {
            int r = a_row + i * A_ROWS, pixel = p + r, rest, ow, oh, image;
            columns.divide(pixel, rest, ow);
            lines.divide(rest, image, oh);
            int i0 = oh * s.sh + row.down, j0 = ow * s.sw + row.right;
            bool there = (T::BK % A_ROWS == 0 || r < T::BK) && pixel < end;
            bool inside = there && (unsigned)i0 < (unsigned)s.h && (unsigned)j0 < (unsigned)s.w;
            load_or_zero<VECTOR>(a[i], x + (((image * s.h + i0) * s.w + j0) * s.c + row.from), inside);
        }
#pragma unroll
        for (int j = 0; j < B; j++) {
            int r = b_row + j * B_ROWS;
            bool inside = (T::BK % B_ROWS == 0 || r < T::BK) && p + r < end && column_there;
            load_or_zero<VECTOR>(b[j], dy + ((p + r) * s.q + from), inside);
        }
    };
    auto keep = [&](int half) {
#pragma unroll
        for (int i = 0; i < A; i++) {
            int r = a_row + i * A_ROWS;
            if (T::BK % A_ROWS == 0 || r < T::BK) put<T, VECTOR>(&as[half][r][a_lane], a[i]);
        }
#pragma unroll
        for (int j = 0; j < B; j++) {
            int r = b_row + j * B_ROWS;
            if (T::BK % B_ROWS == 0 || r < T::BK) put<T, VECTOR>(&bs[half][r][b_lane], b[j]);
        }
    };

    T tile;
    if (p < end) {
        load(p);
        keep(0);
        __syncthreads();
        for (int half = 0;; half ^= 1) {
            p += T::BK;
            bool more = p < end;
            if (more) load(p);
            tile.template multiply<Straight, Straight>(as[half], bs[half]);
            if (!more) break;
            keep(half ^ 1);
            __syncthreads();
        }
    }

    const bool quads = VECTOR == 4 || in_quads(dw, s.q, cout);
    const Task task(s.groups, cout, T::BN);
    const int m0 = task.row_tile * T::BM;
    float *to = dw + (task.part * rows + m0) * s.q + task.group * cout + task.n0;
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
        int row = tile.row_of(i);
        if (m0 + row < rows) tile.store_row(i, to + row * s.q, cout - task.n0, quads, add);
    }
}

#define INPUT_GRADIENT(NAME, TILE, VECTOR, BLOCKS)                                                                \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, BLOCKS)                                           \
        NAME(const float *__restrict__ dy, const float *__restrict__ w, float *__restrict__ dx, ConvShape s,      \
             int k_part, int add) {                                                                               \
        input_gradient<TILE, VECTOR>(dy, w, dx, s, k_part, add);                                                  \
    }

#define WEIGHT_GRADIENT(NAME, TILE, VECTOR, BLOCKS)                                                               \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, BLOCKS)                                           \
        NAME(const float *__restrict__ x, const float *__restrict__ dy, float *__restrict__ dw, ConvShape s,      \
             int p_part, int add) {                                                                               \
        weight_gradient<TILE, VECTOR>(x, dy, dw, s, p_part, add);                                                 \
    }
