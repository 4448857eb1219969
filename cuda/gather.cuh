// Convolutions that gather (forward, input gradient) as a matrix product whose left matrix is never stored:
//
//   C[m, n] = Σₖ A[m, k] · B[k, n]   m: window on an image, n: output channel, k: (cell, input channel) of a group
//
// A[m, k] is the map's pixel under window m's cell, zero outside; B is the weights, or for the input gradient their
// transpose. 8 or 16 columns of A at a time: with channels in multiples of four, two or four lanes read whole sectors
// of one pixel. While a tile is multiplied, the next one is on its way into registers, then into the other half of
// shared memory.

#pragma once

#include <type_traits>

#include "conv.cuh"
#include "tile.cuh"

// What a block computes. Read anew from the grid's numbers wherever it is asked for: the values would cost registers
// while a tile is multiplied.
struct Task {
    int group, part, row_tile, n0;

    __device__ __forceinline__ Task(int groups, int columns, int width) {
        int x, z, across = (columns + width - 1) / width;
        asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
        asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(z));
        group = z % groups, part = z / groups;
        row_tile = x / across, n0 = x % across * width;
    }
};

// A column of A: a cell and a channel of a group.
struct Cursor {
    int t, u, channel;

    __device__ __forceinline__ Cursor(const Sweep &s, int k, int channels) {
        int cell = k / channels;
        channel = k % channels;
        // A class without cells has no columns: any cell is behind its end.
        t = s.h.cells ? cell / s.h.cells : s.v.cells;
        u = s.h.cells ? cell % s.h.cells : 0;
    }
};

// The way from one tile's columns to the next one's: a number of digits (t, u, channel), added digit by digit.
struct Step {
    int t, u, channel, channels;
    int weights;   // of one cell, all output channels: for the transposed ones

    Step() = default;
    __device__ __forceinline__ Step(const Sweep &s, int by, int channels) : channels(channels) {
        Cursor c(s, by, channels);
        t = c.t, u = c.u, channel = c.channel;
    }

    __device__ __forceinline__ void advance(const Sweep &s, Cursor &c) const {
        c.channel += channel, c.u += u, c.t += t;
        if (c.channel >= channels) c.channel -= channels, c.u++;
        if (c.u >= s.h.cells) c.u -= s.h.cells, c.t++;
    }
};

// Adds columns [k, end) of A times rows [k, end) of B to a tile, and leaves the output's pixels that its rows are in
// `outs`. The group's first channels lie `first_in` numbers behind `map`, its first weights `first_weight` numbers
// behind `weights`; it has `inner` channels of the map and `outer` of the output.
template <class T, int VECTOR, bool TRANSPOSED>
__device__ __forceinline__ void gather(T &tile, int (&outs)[T::BM], const float *map, const float *weights,
                                       const ConvShape &s, const Sweep &sweep, int m0, int n0, int first_in,
                                       int first_weight, int inner, int outer, int k, int end) {
    // One row of A is read by LANES threads at a time; so is one column of B where it lies transposed.
    constexpr int LANES = T::BK / VECTOR, ROWS = T::THREADS / LANES, A = T::BM / ROWS;
    constexpr int ACROSS = TRANSPOSED ? ROWS : T::BN / VECTOR, DOWN = T::THREADS / ACROSS;
    constexpr int B = TRANSPOSED ? (T::BN + ROWS - 1) / ROWS : (T::BK + DOWN - 1) / DOWN;
    using TurnA = typename T::template Turned<VECTOR, LANES>;
    using TurnB = std::conditional_t<TRANSPOSED, TurnA, typename T::Straight>;
    __shared__ __align__(16) float as[2][T::BK][T::BM + TurnA::PADDING], bs[2][T::BK][T::BN + TurnB::PADDING];
    // Seldom used, and registers are scarce.
    __shared__ Place places[T::BM];
    __shared__ Step step;

    const int tid = threadIdx.x, lane = tid % LANES * VECTOR, row = tid / LANES;
    for (int i = tid; i < T::BM; i += T::THREADS) {
        Place place = Walk(sweep, m0 + i).place(sweep);
        place.at += first_in;
        places[i] = place;
        outs[i] = place.out;
    }
    if (tid == 0) {
        step = Step(sweep, T::BK, inner);
        step.weights = outer * s.q;
    }
    Cursor cursor(sweep, k + lane, inner);
    __syncthreads();
    const int down = tid / ACROSS, across = tid % ACROSS * VECTOR;
    // Rows of B that are not transposed follow each other in memory, whatever their cells.
    int line = TRANSPOSED ? first_weight + (n0 + row) * s.q : first_weight + (k + down) * s.q + n0 + across;
    // Where this thread's first column of B does not exist, no row does. Of transposed ones there are so many from its
    // first on.
    const int stop = n0 + across < outer ? end : 0, left = outer - n0 - row;
    float a[A][VECTOR], b[B][VECTOR];

    auto load = [&](int k) {
        bool there = cursor.t < sweep.v.cells;
        int dy = cursor.t * sweep.v.reach, dx = cursor.u * sweep.h.reach;
        unsigned offset = (dy * sweep.h.size + dx) * sweep.channels + cursor.channel;
#pragma unroll
        for (int i = 0; i < A; i++) {
            Place place = places[row + i * ROWS];
            load_or_zero<VECTOR>(a[i], map + (place.at + offset), there && place.inside(sweep, dy, dx));
        }
        if constexpr (TRANSPOSED) {
            int kh = sweep.v.kernel + cursor.t * sweep.v.kernel_step;
            int kw = sweep.h.kernel + cursor.u * sweep.h.kernel_step;
            int at = line + (kh * s.kw + kw) * step.weights + cursor.channel;
#pragma unroll
            for (int j = 0; j < B; j++) {
                int n = row + j * ROWS;
                bool inside = there && (T::BN % ROWS == 0 || n < T::BN) && j * ROWS < left;
                load_or_zero<VECTOR>(b[j], weights + (at + j * ROWS * s.q), inside);
            }
        } else {
#pragma unroll
            for (int j = 0; j < B; j++) {
                int r = down + j * DOWN;
                bool inside = (T::BK % DOWN == 0 || r < T::BK) && k + r < stop;
                load_or_zero<VECTOR>(b[j], weights + (line + j * DOWN * s.q), inside);
            }
            line += T::BK * s.q;
        }
        step.advance(sweep, cursor);
    };
    auto keep = [&](int half) {
        const int turn = TurnA::of(lane);
#pragma unroll
        for (int i = 0; i < A; i++)
#pragma unroll
            for (int l = 0; l < VECTOR; l++) put<T, 1>(&as[half][lane + l][(row + i * ROWS) ^ turn], &a[i][l]);
#pragma unroll
        for (int j = 0; j < B; j++) {
            if constexpr (TRANSPOSED) {
                int n = row + j * ROWS;
                if (T::BN % ROWS == 0 || n < T::BN)
#pragma unroll
                    for (int l = 0; l < VECTOR; l++) put<T, 1>(&bs[half][lane + l][n ^ turn], &b[j][l]);
            } else {
                int r = down + j * DOWN;
                if (T::BK % DOWN == 0 || r < T::BK) put<T, VECTOR>(&bs[half][r][across], b[j]);
            }
        }
    };

    if (k >= end) return;
    load(k);
    keep(0);
    __syncthreads();
    for (int half = 0;; half ^= 1) {
        k += T::BK;
        bool more = k < end;
        if (more) load(k);
        tile.template multiply<TurnA, TurnB>(as[half], bs[half]);
        if (!more) break;
        keep(half ^ 1);
        __syncthreads();
    }
}
