// A block's tile of a matrix product: C[BM×BN] += A[BM×8] · B[8×BN], from shared memory, TM×TN numbers of C per thread.
//
// Floor: a thread reads TM + TN numbers for TM·TN multiply-adds, in loads of 16 bytes. A warp's lanes lie as 8 rows × 4 columns of
// groups of four numbers. Of every eight neighbouring lanes (which one pass over the banks serves) four have different
// rows and two different columns, next to each other: lanes that read one word share it, and no two words meet in a bank.

#pragma once

template <int BM_, int BN_, int TM_, int TN_> struct Tile {
    static constexpr int BM = BM_, BN = BN_, BK = 8, TM = TM_, TN = TN_;
    static constexpr int WARP_ROWS = 8 * TM, WARP_COLUMNS = 4 * TN, WARPS_ACROSS = BN / WARP_COLUMNS;
    static constexpr int THREADS = BM / WARP_ROWS * WARPS_ACROSS * 32;

    float sums[TM][TN];
    int row, column;   // of the first number; the others lie in groups of four, 32 rows or 16 columns apart

    __device__ __forceinline__ Tile() {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        row = warp / WARPS_ACROSS * WARP_ROWS + (lane >> 1 & 7) * 4;
        column = warp % WARPS_ACROSS * WARP_COLUMNS + (lane >> 3 & 2 | lane & 1) * 4;
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sums[i][j] = 0.0f;
    }

    __device__ __forceinline__ int row_of(int i) const { return row + i / 4 * 32 + i % 4; }
    __device__ __forceinline__ int column_of(int j) const { return column + j / 4 * 16 + j % 4; }

    template <int PA, int PB>
    __device__ __forceinline__ void multiply(const float (&a)[BK][PA], const float (&b)[BK][PB]) {
#pragma unroll
        for (int k = 0; k < BK; k++) {
            float u[TM], v[TN];
#pragma unroll
            for (int i = 0; i < TM; i += 4) *(float4 *)&u[i] = *(const float4 *)&a[k][row_of(i)];
#pragma unroll
            for (int j = 0; j < TN; j += 4) *(float4 *)&v[j] = *(const float4 *)&b[k][column_of(j)];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sums[i][j] += u[i] * v[j];
        }
    }

    // Row i of this thread goes to `to`, which is its row's first column in this tile; columns from `columns` on do not
    // exist. `quads`: rows begin at multiples of 16 bytes and have multiples of four numbers.
    __device__ __forceinline__ void store_row(int i, float *to, int columns, bool quads, bool add) const {
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            int n = column_of(j);
            if (quads) {
                if (n < columns) {
                    float4 *at = (float4 *)(to + n), old = {0.0f, 0.0f, 0.0f, 0.0f};
                    if (add) old = *at;
                    *at = {old.x + sums[i][j], old.y + sums[i][j + 1], old.z + sums[i][j + 2], old.w + sums[i][j + 3]};
                }
            } else {
#pragma unroll
                for (int l = 0; l < 4; l++) {
                    if (n + l < columns) {
                        float old = 0.0f;
                        if (add) old = to[n + l];
                        to[n + l] = old + sums[i][j + l];
                    }
                }
            }
        }
    }
};

// 8×8 numbers a thread for large products; fewer where there are few columns, or few rows and columns.
using Tile128x128 = Tile<128, 128, 8, 8>;
using Tile128x64 = Tile<128, 64, 8, 8>;
using Tile128x32 = Tile<128, 32, 8, 4>;
using Tile64x32 = Tile<64, 32, 4, 4>;
using Tile32x64 = Tile<32, 64, 4, 4>;

static_assert(Tile128x128::THREADS == 256 && Tile128x64::THREADS == 128 && Tile128x32::THREADS == 128);
static_assert(Tile64x32::THREADS == 128 && Tile32x64::THREADS == 128);

// Whether rows of `width` numbers from `base` on, in parts of `part`, can be written four at a time.
__device__ __forceinline__ bool in_quads(const float *base, int width, int part) {
    return (width | part) % 4 == 0 && (unsigned long long)base % 16 == 0;
}
