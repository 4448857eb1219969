// Self-attention without softmax whose weight has a spectral norm (src/ops/self_attention).
//
// An image is A [N, C], N = h·w pixels. With W [C, C], or (W + Wᵀ)/2 where `sym`, V = W/σ, σ = uᵀ·W·v, and a scalar γ:
//
//   Y = A + γ·A·Vᵀ·G, G = Aᵀ·A. In training first v ← Wᵀ·u, u ← W·v, both divided by their norms (by 1e-12 at least)
//   dW = dV/σ − ⟨dV, V⟩/σ·u·vᵀ, symmetrised where sym
//
// The products, by attention_gemm over a batch of matrices, one for each image (saved: G and M, or H and P, one kind behind
// the other or in turn, as the strides say), with D the upstream gradient:
//
//   N ≥ C:  G = AᵀA, M = VᵀG, Y = A + γ·A·M
//           K = AᵀD, dγ = ⟨K, M⟩, dV = γ·Σ G·Kᵀ, S = γ·V·K, T = S + Sᵀ; dA = D + A·T, dA += γ·D·Mᵀ
//   N < C:  H = A·Vᵀ, P = H·Aᵀ, Y = A + γ·P·A
//           Q = D·Aᵀ, dγ = ⟨Q, P⟩, E = γ·Q·A, dV = Σ EᵀA; dA = D + γ·Pᵀ·D, dA += γ·Qᵀ·H, dA += E·V
//
// Sums over images: attention_gemm sums `per` neighbouring matrices into one output, attention_sum adds the outputs up. Inner
// products: attention_dot and attention_dot_finish.
//
// weight: V, C² numbers. saved: u, v and σ, 2·C + 1 numbers. Blocks have 256 threads unless something else is said.
#include "common.cuh"

// out = base + alpha·op(a)·op(b), row-major: op(a) is rows × inner, op(b) inner × columns. Each output sums `per` products of
// the `count` that there are (the last one what is left). Strides are from matrix to matrix, 0 for one that all share; base
// has the stride of out.
struct Gemm {
    int rows, inner, columns, count, per, stride_a, stride_b, stride_out;
    // Whether a is stored as inner × rows, b as columns × inner.
    int a_turned, b_turned;
};

namespace {

constexpr int SPECTRAL_THREADS = 1024, LANES = 32, WARPS = SPECTRAL_THREADS / LANES;
constexpr unsigned ALL = 0xffffffffu;

template <class T> __device__ __forceinline__ T warp_sum(T value) {
    for (int step = LANES / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

}  // namespace

// What has shared memory lies outside of the namespace, whose name in the PTX would differ from one checkout to another.

// Σ over the block of SPECTRAL_THREADS, in every thread.
__device__ __forceinline__ double sum_all(double value) {
    __shared__ double shared[WARPS];
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % LANES == 0) shared[threadIdx.x / LANES] = value;
    __syncthreads();
    return warp_sum(shared[threadIdx.x % LANES]);
}

// y = share·wᵀ·x: lanes along columns, warps along rows.
__device__ __forceinline__ void columns_times(const float *w, const float *x, float *y, int c, float share) {
    __shared__ float shared[WARPS][LANES];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    for (int first = 0; first < c; first += LANES) {
        const int i = first + lane;
        float sum = 0.0f;
        for (int o = warp; i < c && o < c; o += WARPS) sum += w[(size_t)o * c + i] * x[o];
        shared[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && i < c) {
            double total = 0.0;
            for (int k = 0; k < WARPS; k++) total += shared[k][lane];
            y[i] = share * total;
        }
        __syncthreads();
    }
}

namespace {

// Row o of w times x, by a warp, in every lane.
__device__ __forceinline__ double row_product(const float *w, const float *x, int c, int o) {
    float sum = 0.0f;
    for (int i = threadIdx.x % LANES; i < c; i += LANES) sum += w[(size_t)o * c + i] * x[i];
    return warp_sum((double)sum);
}

// y = w·x, or that times `share` and added.
__device__ __forceinline__ void rows_times(const float *w, const float *x, float *y, int c, float share, bool add) {
    for (int o = threadIdx.x / LANES; o < c; o += WARPS) {
        const double sum = row_product(w, x, c, o);
        if (threadIdx.x % LANES == 0) y[o] = add ? y[o] + share * sum : share * sum;
    }
    __syncthreads();
}

__device__ __forceinline__ void normalise(float *x, int c) {
    double squares = 0.0;
    for (int i = threadIdx.x; i < c; i += SPECTRAL_THREADS) squares += (double)x[i] * x[i];
    const double norm = fmax(sqrt(sum_all(squares)), 1e-12);
    for (int i = threadIdx.x; i < c; i += SPECTRAL_THREADS) x[i] = x[i] / norm;
    __syncthreads();
}

// uᵀ·w·v.
__device__ __forceinline__ double bilinear(const float *w, const float *u, const float *v, int c) {
    double sum = 0.0;
    for (int o = threadIdx.x / LANES; o < c; o += WARPS) {
        const double product = row_product(w, v, c, o);
        if (threadIdx.x % LANES == 0) sum += u[o] * product;
    }
    return sum_all(sum);
}

// Element (o, i) of W, symmetric where the option says so.
__device__ __forceinline__ float element(const float *w, int c, int sym, int o, int i) {
    const float here = w[(size_t)o * c + i];
    return sym ? 0.5f * (here + w[(size_t)i * c + o]) : here;
}

}  // namespace

// saved = u, v, σ; where `iterate`, after one power iteration that changes the states u and v. Block: 1024. Grid: 1.
extern "C" __global__ void __launch_bounds__(SPECTRAL_THREADS)
    attention_spectral(const float *w, float *u, float *v, float *saved, int c, int sym, int iterate) {
    if (iterate) {
        // A symmetric matrix is its own transpose: half of each product.
        columns_times(w, u, v, c, sym ? 0.5f : 1.0f);
        if (sym) rows_times(w, u, v, c, 0.5f, true);
        normalise(v, c);
        if (sym) columns_times(w, v, u, c, 0.5f);
        rows_times(w, v, u, c, sym ? 0.5f : 1.0f, sym);
        normalise(u, c);
    }
    double sigma = bilinear(w, u, v, c);
    if (sym) sigma = 0.5 * (sigma + bilinear(w, v, u, c));
    for (int i = threadIdx.x; i < c; i += SPECTRAL_THREADS) saved[i] = u[i], saved[c + i] = v[i];
    if (threadIdx.x == 0) saved[2 * c] = sigma;
}

// V. Grid: min(⌈c²/256⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_weight(const float *w, const float *saved, float *weight, int c, int sym) {
    const float sigma = saved[2 * c];
    for (unsigned k = blockIdx.x * THREADS + threadIdx.x; k < (unsigned)c * c; k += gridDim.x * THREADS) {
        weight[k] = element(w, c, sym, k / c, k % c) / sigma;
    }
}

namespace {

constexpr int SIDE = 64, DEPTH = 16, EACH = 4;

template <int V> struct Width {
    static constexpr int value = V;
};

// A SIDE × DEPTH tile of an operand, as [depth][side]. `turned`: whether memory has the depth outside.
struct Operand {
    const float *values;
    int side, depth, turned;

    __device__ __forceinline__ void load(float (&tile)[DEPTH][SIDE + EACH], int first_side, int first_depth) const {
        for (int n = threadIdx.x; n < SIDE * DEPTH; n += THREADS) {
            const int s = turned ? n % SIDE : n / DEPTH, d = turned ? n / SIDE : n % DEPTH;
            const int i = first_side + s, k = first_depth + d;
            const size_t at = turned ? (size_t)k * side + i : (size_t)i * depth + k;
            tile[d][s] = i < side && k < depth ? values[at] : 0.0f;
        }
    }
};

}  // namespace

// alpha: one number in memory, or null for 1; base: null for 0, or what out is added to, which may be out itself.
// Grid: (⌈columns/64⌉, ⌈rows/64⌉, min(⌈count/per⌉, 65535)). Three blocks are asked for so that no register is spilled for the
// sake of a fourth.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    attention_gemm(const float *a, const float *b, const float *base, float *out, const float *alpha, Gemm g) {
    __shared__ __align__(16) float tile_a[DEPTH][SIDE + EACH], tile_b[DEPTH][SIDE + EACH];
    const int x = threadIdx.x % (SIDE / EACH) * EACH, y = threadIdx.x / (SIDE / EACH) * EACH;
    const int first_row = blockIdx.y * SIDE, first_column = blockIdx.x * SIDE, outputs = (g.count - 1) / g.per + 1;
    const float factor = alpha ? *alpha : 1.0f;
    for (int output = blockIdx.z; output < outputs; output += gridDim.z) {
        float sums[EACH][EACH] = {};
        const int end = min((output + 1) * g.per, g.count);
        for (int matrix = output * g.per; matrix < end; matrix++) {
            const Operand of_a = {a + (size_t)matrix * g.stride_a, g.rows, g.inner, g.a_turned};
            const Operand of_b = {b + (size_t)matrix * g.stride_b, g.columns, g.inner, !g.b_turned};
            for (int k = 0; k < g.inner; k += DEPTH) {
                __syncthreads();
                of_a.load(tile_a, first_row, k);
                of_b.load(tile_b, first_column, k);
                __syncthreads();
#pragma unroll
                for (int d = 0; d < DEPTH; d++) {
                    const auto left = Values<EACH>::load(&tile_a[d][y]), right = Values<EACH>::load(&tile_b[d][x]);
                    for (int i = 0; i < EACH; i++) {
                        for (int j = 0; j < EACH; j++) sums[i][j] += left.at[i] * right.at[j];
                    }
                }
            }
        }
        const auto store = [&](auto width) {
            constexpr int V = decltype(width)::value;
            for (int i = 0; i < EACH; i++) {
                const size_t line = (size_t)output * g.stride_out + (size_t)(first_row + y + i) * g.columns;
                for (int j = 0; j < EACH; j += V) {
                    const int column = first_column + x + j;
                    if (first_row + y + i >= g.rows || column >= g.columns) continue;
                    auto value = base ? Values<V>::load(base + line + column) : Values<V>::all(0.0f);
                    for (int k = 0; k < V; k++) value.at[k] += factor * sums[i][j + k];
                    value.store(out + line + column);
                }
            }
        };
        const bool in_fours = ((g.columns | g.stride_out) % EACH | ((size_t)out | (size_t)base) % (4 * EACH)) == 0;
        if (in_fours) {
            store(Width<EACH>());
        } else {
            store(Width<1>());
        }
    }
}

// t = s + sᵀ for `count` matrices c × c; t is not s. Block: (32, 8). Grid: (⌈c/32⌉, ⌈c/32⌉, min(count, 65535)).
extern "C" __global__ void __launch_bounds__(THREADS) attention_symmetrise(const float *s, float *t, int c, int count) {
    __shared__ float other[32][33];
    const int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
    const int other_column = blockIdx.y * 32 + threadIdx.x, other_row = blockIdx.x * 32 + threadIdx.y;
    for (int matrix = blockIdx.z; matrix < count; matrix += gridDim.z) {
        const size_t start = (size_t)matrix * c * c;
        __syncthreads();
        for (int k = 0; k < 32; k += 8) {
            if (other_row + k < c && other_column < c) {
                other[threadIdx.y + k][threadIdx.x] = s[start + (size_t)(other_row + k) * c + other_column];
            }
        }
        __syncthreads();
        for (int k = 0; k < 32; k += 8) {
            if (row + k < c && column < c) {
                const size_t at = start + (size_t)(row + k) * c + column;
                t[at] = s[at] + other[threadIdx.x][threadIdx.y + k];
            }
        }
    }
}

// Σ a·b of the blocks, each of which takes `chunk` neighbouring values of `count` runs of n at strides of a and b. Grid: as
// many blocks as partial has numbers, ⌈count·n/chunk⌉.
extern "C" __global__ void __launch_bounds__(THREADS) attention_dot(
    const float *a, const float *b, double *partial, int n, int count, int stride_a, int stride_b, int chunk) {
    const unsigned begin = blockIdx.x * (unsigned)chunk, end = min(begin + chunk, (unsigned)n * count);
    double sum = 0.0;
    for (unsigned i = begin + threadIdx.x; i < end; i += 4 * THREADS) {
        float products = 0.0f;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const unsigned at = i + k * THREADS, run = at / n, in_run = at - run * n;
            if (at < end) products += a[(size_t)run * stride_a + in_run] * b[(size_t)run * stride_b + in_run];
        }
        sum += products;
    }
    sum = sum_block(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Adds partial sums up: into `sum` and into a gradient, written or added; each null where nobody reads it. Grid: 1.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_dot_finish(const double *partial, int count, double *sum, float *gradient, int add) {
    double total = 0.0;
    for (int i = threadIdx.x; i < count; i += THREADS) total += partial[i];
    total = sum_block(total);
    if (threadIdx.x != 0) return;
    if (sum) *sum = total;
    if (gradient) *gradient = add ? *gradient + (float)total : total;
}

// out = Σ over `count` runs of n numbers. Grid: min(⌈n/256⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS) attention_sum(const float *parts, float *out, int n, int count) {
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        float sum = 0.0f;
        for (int part = 0; part < count; part++) sum += parts[(size_t)part * n + i];
        out[i] = sum;
    }
}

// dW from dV, written or added; inner: ⟨dV, V⟩. Grid: min(⌈c²/256⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS) attention_weight_gradient(
    const float *dv, const float *saved, const double *inner, float *dw, int c, int sym, int add) {
    const float *const u = saved, *const v = saved + c;
    const float inverse = 1.0f / saved[2 * c], pull = (float)*inner * inverse;
    const auto of = [=](int o, int i) { return dv[(size_t)o * c + i] * inverse - pull * (u[o] * v[i]); };
    for (unsigned k = blockIdx.x * THREADS + threadIdx.x; k < (unsigned)c * c; k += gridDim.x * THREADS) {
        const int o = k / c, i = k % c;
        const float value = sym ? 0.5f * (of(o, i) + of(i, o)) : of(o, i);
        dw[k] = add ? dw[k] + value : value;
    }
}
