// A block's tile of a matrix product on tensor cores, in the place of tile.cuh's: C[BM×BN] += A[BM×BK] · B[BK×BN], from
// shared memory, WM×WN numbers of C per warp.
//
// Operands are tf32: f32 with 10 bits of mantissa, to which they are rounded (to the nearest, ties away from zero) once,
// on their way into shared memory. Products of two such numbers are exact in f32, and sums are f32.
//
// mma.sync m16n8k8 multiplies 16 rows of A with 8 columns of B, over 8 of k. With g = lane / 4 and t = lane % 4, a lane
// gives A's rows g and g + 8 at k = t and t + 4, and B's column g at the same k; it has C's rows g and g + 8 in columns
// 2t and 2t + 1. Each of these loads takes 8 neighbouring columns of 4 rows of shared memory. Rows have 8 numbers of
// padding, so that they begin 8 banks apart: no two of a warp's words meet in a bank.
//
// A matrix that is turned on its way is written by LANES lanes, each to rows of its own, four apart: where all of them
// would begin in one bank. Column m of row k is kept at m ^ of(k), which parts them, 32 / LANES columns for each.
//
// Floor: for WM·WN·8 multiply-adds a warp loads (WM + WN) · 8 numbers: in a warp of 64×32, 24 loads for 16
// instructions of the tensor cores.

#pragma once

#include "tile.cuh"

template <int BM_, int BN_, int BK_, int WM, int WN> struct TensorTile {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, WARPS_ACROSS = BN / WN;
    static constexpr int THREADS = BM / WM * WARPS_ACROSS * 32;
    // Rows and columns of a thread.
    static constexpr int TM = WM / 8, TN = WN / 4;

    struct Straight {
        static constexpr int PADDING = 8;
        static __device__ __forceinline__ constexpr int of(int) { return 0; }
    };
    template <int V, int LANES> struct Turned {
        static_assert(V == 4 && LANES <= 4, "eight neighbouring columns stay together");
        static constexpr int PADDING = 8;
        static __device__ __forceinline__ constexpr int of(int k) { return k / 4 * (32 / LANES); }
    };

    static __device__ __forceinline__ float operand(float x) {
        unsigned rounded;
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
        return __uint_as_float(rounded);
    }

    float sums[TM][TN];
    int warp_row, warp_column, g, t;

    __device__ __forceinline__ TensorTile() {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        warp_row = warp / WARPS_ACROSS * WM, warp_column = warp % WARPS_ACROSS * WN;
        g = lane / 4, t = lane % 4;
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sums[i][j] = 0.0f;
    }

    __device__ __forceinline__ int row_of(int i) const { return warp_row + i * 8 + g; }
    __device__ __forceinline__ int column_of(int j) const { return warp_column + j / 2 * 8 + t * 2 + j % 2; }

    // Where number `of + g` of a warp's is kept, its first one being `begin`, a multiple of W: with 32 all but two
    // additions is known to the compiler.
    template <int W> __device__ __forceinline__ int place(int begin, int of, int turn) const {
        if constexpr (W % 32 == 0) return begin + (of ^ turn) + g;
        else return ((begin + of) ^ turn) + g;
    }

    template <class TurnA, class TurnB>
    __device__ __forceinline__ void multiply(const float (&a)[BK][BM + TurnA::PADDING],
                                             const float (&b)[BK][BN + TurnB::PADDING]) {
#pragma unroll
        for (int k = 0; k < BK; k += 8) {
            unsigned v[TN / 2][2];
#pragma unroll
            for (int j = 0; j < TN / 2; j++)
#pragma unroll
                for (int l = 0; l < 2; l++)
                    v[j][l] = __float_as_uint(b[k + l * 4 + t][place<WN>(warp_column, j * 8, TurnB::of(k + l * 4))]);
#pragma unroll
            for (int i = 0; i < TM; i += 2) {
                unsigned u[4];
#pragma unroll
                for (int l = 0; l < 4; l++) {
                    int down = k + l / 2 * 4, across = (i + l % 2) * 8;
                    u[l] = __float_as_uint(a[down + t][place<WM>(warp_row, across, TurnA::of(down))]);
                }
#pragma unroll
                for (int j = 0; j < TN / 2; j++) {
                    float *upper = &sums[i][j * 2], *lower = &sums[i + 1][j * 2];
                    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                                 : "+f"(upper[0]), "+f"(upper[1]), "+f"(lower[0]), "+f"(lower[1])
                                 : "r"(u[0]), "r"(u[1]), "r"(u[2]), "r"(u[3]), "r"(v[j][0]), "r"(v[j][1]));
                }
            }
        }
    }

    // As Tile::store_row, for rows in multiples of four numbers alone.
    __device__ __forceinline__ void store_row(int i, float *to, int columns, bool, bool add) const {
#pragma unroll
        for (int j = 0; j < TN; j += 2) {
            int n = column_of(j);
            if (n < columns) {
                float2 *at = (float2 *)(to + n), old = {0.0f, 0.0f};
                if (add) old = *at;
                *at = {old.x + sums[i][j], old.y + sums[i][j + 1]};
            }
        }
    }
};

using Tensor128x128 = TensorTile<128, 128, 16, 64, 32>;
using Tensor128x64 = TensorTile<128, 64, 16, 64, 32>;
using Tensor128x32 = TensorTile<128, 32, 16, 32, 32>;
using Tensor64x32 = TensorTile<64, 32, 16, 32, 16>;

static_assert(Tensor128x128::THREADS == 256 && Tensor128x64::THREADS == 128);
static_assert(Tensor128x32::THREADS == 128 && Tensor64x32::THREADS == 128);
