// Grouped and depthwise convolutions whose groups have few channels, without tiles: a product with 4 or 16 columns
// would leave most threads of a tile idle, and read 16 bytes of every sector.
//
//   y[o, q] = b[q] + Σₖ Σᵢ w[k, i, q] · x[o·s + k·d − p, g·cin + i]        g: the group of output channel q
//   dx[j, g·cin + i] = Σₖ Σ_q w[k, i, q] · dy[(j + p − k·d) / s, q]
//   dw[k, i, q] = Σₙ Σₒ x[o·s + k·d − p, g·cin + i] · dy[o, q]
//
// y and dx: a thread computes neighbouring channels of one group (one or four) at four windows, so that a weight serves
// four windows and a pixel four channels; a warp's lanes are neighbouring channels. dx goes class by class (conv.cuh),
// as many blocks for each. dw: a thread sums over pixels for up to nine cells of one pair of channels (or three of four
// channels with four), 32 pairs by 8 interleaved sequences of pixels in a block; the pixels are cut into parts along z,
// which `sum_parts` adds.
//
// Floor: reading each map once, as there are few operations per number: k·k·cin of them.

#include "conv.cuh"

// PAIRS_1: any channels. PAIRS_4: groups of multiples of four. DEPTHWISE_4: c = q = groups, multiples of four.
enum Kind { PAIRS_1, PAIRS_4, DEPTHWISE_4 };

template <Kind KIND, bool GRADIENT>
__device__ __forceinline__ void direct(const float *map, const float *w, const float *bias, float *to,
                                       const ConvShape &s, const Sweep &sweep, int block, int add) {
    constexpr int V = KIND == PAIRS_1 ? 1 : 4, WINDOWS = 4;
    const int cin = s.c / s.groups, cout = s.q / s.groups, channels = GRADIENT ? s.c : s.q;
    const int inner = GRADIENT ? cout : cin, outer = GRADIENT ? cin : cout, quads = channels / V;
    const int item = block * blockDim.x + threadIdx.x, channel = item % quads * V, group = channel / outer;
    const int m0 = item / quads * WINDOWS;
    if (m0 >= sweep.rows) return;

    Place places[WINDOWS];
    Walk walk(sweep, m0);
#pragma unroll
    for (int p = 0; p < WINDOWS; p++, walk.advance(sweep)) places[p] = walk.place(sweep);
    float sums[WINDOWS][V];
#pragma unroll
    for (int p = 0; p < WINDOWS; p++)
#pragma unroll
        for (int o = 0; o < V; o++) sums[p][o] = bias ? bias[channel + o] : 0.0f;

#pragma unroll 1
    for (int t = 0; t < sweep.v.cells; t++) {
#pragma unroll 1
        for (int u = 0; u < sweep.h.cells; u++) {
            const int dy = t * sweep.v.reach, dx = u * sweep.h.reach;
            const int kh = sweep.v.kernel + t * sweep.v.kernel_step, kw = sweep.h.kernel + u * sweep.h.kernel_step;
            const int cell = kh * s.kw + kw;
            const unsigned offset = (dy * sweep.h.size + dx) * sweep.channels;
            bool inside[WINDOWS];
#pragma unroll
            for (int p = 0; p < WINDOWS; p++) inside[p] = places[p].inside(sweep, dy, dx);
            if constexpr (KIND == DEPTHWISE_4) {
                float weight[4], pixel[4];
                Lanes<4>::load(weight, w + cell * s.q + channel);
#pragma unroll
                for (int p = 0; p < WINDOWS; p++) {
                    load_or_zero<4>(pixel, map + (places[p].at + offset + channel), inside[p]);
#pragma unroll
                    for (int o = 0; o < 4; o++) sums[p][o] += weight[o] * pixel[o];
                }
            } else {
                // Row i of the cell's weights, or its column for the gradient.
                const float *weights = GRADIENT ? w + (cell * cin + channel % outer) * s.q + group * cout
                                                : w + cell * cin * s.q + channel;
                const unsigned first = offset + group * inner;
#pragma unroll 1
                for (int i = 0; i < inner; i += V) {
                    float weight[V][V], pixel[V];
#pragma unroll
                    for (int l = 0; l < V; l++) Lanes<V>::load(weight[l], weights + l * s.q);
                    weights += GRADIENT ? V : V * s.q;
#pragma unroll
                    for (int p = 0; p < WINDOWS; p++) {
                        load_or_zero<V>(pixel, map + (places[p].at + first + i), inside[p]);
#pragma unroll
                        for (int l = 0; l < V; l++)
#pragma unroll
                            for (int o = 0; o < V; o++)
                                sums[p][o] += pixel[l] * (GRADIENT ? weight[o][l] : weight[l][o]);
                    }
                }
            }
        }
    }

#pragma unroll
    for (int p = 0; p < WINDOWS; p++) {
        if (places[p].out < 0) continue;
        float *at = to + places[p].out * channels + channel;
        if (add) {
#pragma unroll
            for (int o = 0; o < V; o++) sums[p][o] += at[o];
        }
        if constexpr (V == 4) *(float4 *)at = {sums[p][0], sums[p][1], sums[p][2], sums[p][3]};
        else at[0] = sums[p][0];
    }
}

template <Kind KIND>
__device__ __forceinline__ void direct_weights(const float *x, const float *dy, float *dw, const ConvShape &s,
                                               int p_part, int add) {
    constexpr int V = KIND == PAIRS_1 ? 1 : 4, CELLS = KIND == PAIRS_4 ? 3 : 9;
    constexpr int INPUTS = KIND == PAIRS_4 ? 4 : 1, SUMS = INPUTS * V, THREADS = 32, SEQUENCES = 8;
    // Rows of 40, so that eight pairs by four sums are in different banks.
    __shared__ float shared[SEQUENCES][SUMS][THREADS + 8];

    // Of a pair: the output channel, and the input channel within its group. A depthwise group has one.
    const int cin = s.c / s.groups, cout = s.q / s.groups, quads = s.q / V, pairs = cin / INPUTS * quads;
    const int pair = blockIdx.x * THREADS + threadIdx.x;
    const bool there = pair < pairs;
    const int out = pair % quads * V, in = pair / quads * INPUTS, channel = out / cout * cin + in;
    const int first = blockIdx.y * CELLS, cells = s.kh * s.kw;
    const int end = min(((int)blockIdx.z + 1) * p_part, s.n * s.oh * s.ow);
    const int kh0 = first / s.kw, kw0 = first % s.kw;
    // From a cell to the next, and on from a row's end to the next row.
    const unsigned across = s.dw * s.c, down = (s.dh * s.w - s.kw * s.dw) * s.c;
    const Divisor columns(s.ow), lines(s.oh);

    float sums[CELLS][SUMS];
#pragma unroll
    for (int c = 0; c < CELLS; c++)
#pragma unroll
        for (int i = 0; i < SUMS; i++) sums[c][i] = 0.0f;
    if (there) {
#pragma unroll 1
        for (int p = blockIdx.z * p_part + threadIdx.y; p < end; p += SEQUENCES) {
            int rest, image, oh, ow;
            columns.divide(p, rest, ow);
            lines.divide(rest, image, oh);
            float gradient[V], pixel[V];
            Lanes<V>::load(gradient, dy + p * s.q + out);
            int kh = kh0, kw = kw0, i = oh * s.sh - s.ph + kh * s.dh, j = ow * s.sw - s.pw + kw * s.dw;
            // Wraps around where the cell lies outside of the map.
            unsigned at = (unsigned)((image * s.h + i) * s.w + j) * s.c + channel;
#pragma unroll
            for (int c = 0; c < CELLS; c++) {
                const bool inside = kh < s.kh && (unsigned)i < (unsigned)s.h && (unsigned)j < (unsigned)s.w;
                load_or_zero<V>(pixel, x + at, inside);
                if constexpr (KIND == PAIRS_4) {
#pragma unroll
                    for (int l = 0; l < 4; l++)
#pragma unroll
                        for (int o = 0; o < 4; o++) sums[c][l * 4 + o] += pixel[l] * gradient[o];
                } else {
#pragma unroll
                    for (int o = 0; o < V; o++) sums[c][o] += pixel[o] * gradient[o];
                }
                kw++, j += s.dw, at += across;
                if (kw == s.kw) kw = 0, kh++, j -= s.kw * s.dw, i += s.dh, at += down;
            }
        }
    }

    float *to = dw + blockIdx.z * (cells * cin * s.q);
#pragma unroll
    for (int c = 0; c < CELLS; c++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < SUMS; i++) shared[threadIdx.y][i][threadIdx.x] = sums[c][i];
        __syncthreads();
        // Neighbouring threads take neighbouring output channels.
        for (int e = threadIdx.y * THREADS + threadIdx.x; e < SUMS * THREADS; e += SEQUENCES * THREADS) {
            const int o = e % V, x = e / V % THREADS, l = e / (V * THREADS), pair = blockIdx.x * THREADS + x;
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < SEQUENCES; k++) sum += shared[k][l * V + o][x];
            if (pair < pairs && first + c < cells) {
                float *at = to + ((first + c) * cin + pair / quads * INPUTS + l) * s.q + pair % quads * V + o;
                *at = add ? *at + sum : sum;
            }
        }
    }
}

#define DIRECT(NAME, KIND)                                                                                        \
    extern "C" __global__ void __launch_bounds__(128, 4)                                                             \
        conv_forward_##NAME(const float *__restrict__ x, const float *__restrict__ w,                             \
                            const float *__restrict__ bias, float *__restrict__ y, ConvShape s) {                 \
        direct<KIND, false>(x, w, bias, y, s, forward_sweep(s), blockIdx.x, 0);                                   \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(128, 4)                                                             \
        conv_dx_##NAME(const float *__restrict__ dy, const float *__restrict__ w, float *__restrict__ dx,         \
                       ConvShape s, int add) {                                                                    \
        const int blocks = gridDim.x / classes(s);                                                                \
        const Sweep sweep = gradient_sweep(s, blockIdx.x / blocks);                                               \
        direct<KIND, true>(dy, w, nullptr, dx, s, sweep, blockIdx.x % blocks, add);                               \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                             \
        conv_dw_##NAME(const float *__restrict__ x, const float *__restrict__ dy, float *__restrict__ dw,         \
                       ConvShape s, int p_part, int add) {                                                        \
        direct_weights<KIND>(x, dy, dw, s, p_part, add);                                                          \
    }

DIRECT(direct_any, PAIRS_1)
DIRECT(direct, PAIRS_4)
DIRECT(depthwise, DEPTHWISE_4)
