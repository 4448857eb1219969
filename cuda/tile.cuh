// A block's tile of a matrix product: C[BM×BN] += A[BM×BK] · B[BK×BN], from shared memory, TM×TN numbers of C per
// thread.
//
// Floor: a thread reads TM + TN numbers for TM·TN multiply-adds, in loads of 16 bytes. A warp's lanes lie as 8 rows × 4
// columns of groups of four numbers. Of every eight neighbouring lanes (which one pass over the banks serves) four have
// different rows and two different columns, next to each other: lanes that read one word share it, and no two words
// meet in a bank. Lanes i and i ^ 1 share their rows, i and i ^ 2 their columns, so that two such passes can become
// one.
//
// A matrix that has to be turned on its way into shared memory is read by LANES lanes that go along k first, V numbers
// each, and written by the same lanes across rows of shared memory. Each of these lanes needs 32 / LANES banks of its
// own. For 8 of k, 4 numbers of padding behind each row put them there: rows V apart begin 4·V = 32 / LANES banks
// apart. For 16 of k that would part groups of four; there column m of row k is kept at m ^ of(k).

#pragma once

template <int V, int LANES> struct Turned {
    static constexpr bool PADDED = V * LANES == 8;
    static constexpr int PADDING = PADDED ? 4 : 0;
    static __device__ __forceinline__ constexpr int of(int k) { return PADDED ? 0 : k / V % LANES * (32 / LANES); }
};
struct Straight {
    static constexpr int PADDING = 0;
    static __device__ __forceinline__ constexpr int of(int) { return 0; }
};

template <int BM_, int BN_, int BK_, int TM_, int TN_> struct Tile {
    // How matrices lie in shared memory, and what becomes of a number on its way there.
    template <int V, int LANES> using Turned = ::Turned<V, LANES>;
    using Straight = ::Straight;
    static __device__ __forceinline__ float operand(float x) { return x; }

    static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_;
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

    template <class TurnA, class TurnB>
    __device__ __forceinline__ void multiply(const float (&a)[BK][BM + TurnA::PADDING],
                                             const float (&b)[BK][BN + TurnB::PADDING]) {
#pragma unroll
        for (int k = 0; k < BK; k++) {
            float u[TM], v[TN];
#pragma unroll
            for (int i = 0; i < TM; i += 4) *(float4 *)&u[i] = *(const float4 *)&a[k][row_of(i) ^ TurnA::of(k)];
#pragma unroll
            for (int j = 0; j < TN; j += 4) *(float4 *)&v[j] = *(const float4 *)&b[k][column_of(j) ^ TurnB::of(k)];
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

// 8×8 numbers a thread for large products; fewer where there are few columns, or few rows and columns. Then more of k
// at a time, so that finding the next pixels takes no larger part of the time.
using Tile128x128 = Tile<128, 128, 8, 8, 8>;
using Tile128x64 = Tile<128, 64, 8, 8, 8>;
using Tile128x32 = Tile<128, 32, 16, 8, 4>;
using Tile64x32 = Tile<64, 32, 16, 4, 4>;
using Tile32x64 = Tile<32, 64, 16, 4, 4>;
// One number at a time takes a register each, for which 16 of k are too many.
using Tile128x32Any = Tile<128, 32, 8, 8, 4>;
using Tile32x64Any = Tile<32, 64, 8, 4, 4>;

static_assert(Tile128x128::THREADS == 256 && Tile128x64::THREADS == 128 && Tile128x32::THREADS == 128);
static_assert(Tile64x32::THREADS == 128 && Tile32x64::THREADS == 128);

// Puts N neighbouring numbers, one or four, into a matrix of a tile T.
template <class T, int N> __device__ __forceinline__ void put(float *to, const float *from) {
    if constexpr (N == 4) {
        *(float4 *)to = {T::operand(from[0]), T::operand(from[1]), T::operand(from[2]), T::operand(from[3])};
    } else {
        *to = T::operand(*from);
    }
}

// Whether rows of `width` numbers from `base` on, in parts of `part`, can be written four at a time.
__device__ __forceinline__ bool in_quads(const float *base, int width, int part) {
    return (width | part) % 4 == 0 && (unsigned long long)base % 16 == 0;
}
