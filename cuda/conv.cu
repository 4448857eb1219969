// Forward convolution:
//
//   y[o, q] = b[q] + Σₖ Σᵢ w[k, i, q] · x[o·s + k·d − p, g·cin + i]        g: the group of output channel q
//
// as matrix products (gather.cuh) of n·oh·ow rows, q / groups columns, and sums over kh·kw·c / groups. A linear layer
// is the case of 1×1 kernels on 1×1 maps. Where there are too few tiles to fill a GPU, sums are cut into parts of
// k_part terms, a multiple of 16: part p of the sum is written to y + p·n·oh·ow·q, without bias, and `sum_parts` adds
// them up in order.
//
// Floor: 2·n·oh·ow·q·kh·kw·c / groups operations over the rate of f32.
//
// Grid: x: row tiles × column tiles, columns first, so that neighbouring blocks share pixels; z: groups × parts, groups
// first.

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

// Channels of a group in multiples of four, at multiples of 16 bytes.
FORWARD(conv_forward_128x128, Tile128x128, 4, 2)
FORWARD(conv_forward_128x64, Tile128x64, 4, 4)
FORWARD(conv_forward_128x32, Tile128x32, 4, 4)
FORWARD(conv_forward_64x32, Tile64x32, 4, 6)
// Any channels.
FORWARD(conv_forward_any_128x64, Tile128x64, 1, 3)
FORWARD(conv_forward_any_128x32, Tile128x32Any, 1, 4)
