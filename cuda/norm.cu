// Normalisation by batch statistics, per channel (Ioffe, Szegedy 2015), over `pixels` = images·h·w values of each of c
// channels.
//
// With mean μ, squared deviations S = Σ(x − μ)², v = S/D, D = pixels, or pixels − 1 (at least 1) where statistics are those
// of the last batch:
//
//   x̂ = (x − μ)/√(v + ε), y = γ·x̂ + β
//   dβ = Σ dy, dγ = Σ dy·x̂
//   dx = γ/√(v + ε)·(dy − dβ/pixels − x̂·dγ/D); in evaluation, where μ and v are constants, γ/√(v + ε)·dy
//
// Statistics are a mean and an S per block of `chunk` pixels, merged in fixed order (Chan et al. 1983), never Σx² − (Σx)²/N.
//
// A training pass: norm_moments, norm_finish, norm_apply. An evaluation: norm_constants, norm_apply. Backward:
// norm_backward_sums, norm_backward_finish, norm_backward_apply; the last one may be left out.
//
// Grid "of tiles": (⌈pixels/chunk⌉, ⌈columns/64⌉) blocks of 256 threads, columns = c/4 where c is a multiple of 4, else c.
// The chunk is the caller's, the same for all kernels of a pass, and a function of the shape alone; good is
//
//   blocks = min(⌈pixels/64⌉, max(1, 1024/⌈columns/64⌉)), chunk = ⌈pixels/blocks⌉
//
// partial: 2·c numbers for each of the ⌈pixels/chunk⌉ blocks. mean, inverse_std: c numbers each.
#include "common.cuh"

namespace {

// Loads under way at a time, per thread.
template <int V> constexpr int GROUP = V == 4 ? 4 : 8;

// Count, means and squared deviations of a thread's values in its V channels.
template <int V> struct Moments {
    float count = 0.0f, mean[V] = {}, squares[V] = {};

    // Takes in the moments of `more` other values, in one channel after the other.
    template <class M, class S> __device__ __forceinline__ void merge(float more, M other_mean, S other_squares) {
        if (more == 0.0f) return;
        const float total = count + more, share = more / total;
        for (int k = 0; k < V; k++) {
            const float delta = other_mean(k) - mean[k];
            mean[k] += delta * share;
            squares[k] += other_squares(k) + delta * delta * count * share;
        }
        count = total;
    }
};

template <int V>
__device__ __forceinline__ void moments(const float *x, float *partial, int pixels, int c, int chunk, float *shared) {
    const Tile<V> tile(c);
    const Range range(pixels, chunk);
    Moments<V> own;
    if (tile.works()) {
        for (unsigned p = range.begin + tile.row; p < range.end; p += GROUP<V> * tile.rows) {
            Values<V> x_of[GROUP<V>];
            float count = 0.0f;
#pragma unroll
            for (int g = 0; g < GROUP<V>; g++) {
                const unsigned at = p + g * tile.rows;
                const bool there = at < range.end;
                x_of[g] = there ? Values<V>::load(x + (size_t)at * c + tile.channel()) : Values<V>::all(0.0f);
                count += there ? 1.0f : 0.0f;
            }
            // A group is small enough to be looked at twice in registers.
            float mean[V] = {}, squares[V] = {};
            const float share = 1.0f / count;
            for (int k = 0; k < V; k++) {
#pragma unroll
                for (int g = 0; g < GROUP<V>; g++) mean[k] += x_of[g].at[k];
                mean[k] *= share;
#pragma unroll
                for (int g = 0; g < GROUP<V>; g++) {
                    const float delta = g < count ? x_of[g].at[k] - mean[k] : 0.0f;
                    squares[k] += delta * delta;
                }
            }
            own.merge(count, [&](int k) { return mean[k]; }, [&](int k) { return squares[k]; });
        }
    }
    tile.tree(
        [&] {
            shared[threadIdx.x] = own.count;
            for (int k = 0; k < V; k++) {
                shared[(1 + k) * THREADS + threadIdx.x] = own.mean[k];
                shared[(1 + V + k) * THREADS + threadIdx.x] = own.squares[k];
            }
        },
        [&](int other) {
            own.merge(
                shared[other], [&](int k) { return shared[(1 + k) * THREADS + other]; },
                [&](int k) { return shared[(1 + V + k) * THREADS + other]; });
        });
    if (tile.row == 0) {
        float *const to = partial + (size_t)blockIdx.x * 2 * c + tile.channel();
        Values<V> mean, squares;
        for (int k = 0; k < V; k++) mean.at[k] = own.mean[k], squares.at[k] = own.squares[k];
        mean.store(to);
        squares.store(to + c);
    }
}

__device__ __forceinline__ double divisor(int pixels, int last_batch) {
    return last_batch ? max(pixels - 1, 1) : pixels;
}

}  // namespace

// x: pixels × c. Grid: of tiles.
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_moments(const float *x, float *partial, int pixels, int c, int chunk) {
    __shared__ float shared[9 * THREADS];
#define MOMENTS(V) moments<V>(x, partial, pixels, c, chunk, shared);
    BY_VECTORS(c, MOMENTS);
#undef MOMENTS
}

// Merges the blocks' moments and writes mean and 1/√(v + ε), and the states: running averages r ← r + momentum·(batch − r) of
// the mean and of S/(pixels − 1), or, where last_batch, the mean and S/D themselves. Block: (32, 8). Grid: ⌈c/32⌉.
extern "C" __global__ void __launch_bounds__(FINISH_COLUMNS *FINISH_ROWS) norm_finish(
    const float *partial, float *mean, float *inverse_std, float *state_mean, float *state_var, int pixels, int c, int chunk,
    float momentum, double eps, int last_batch) {
    const int channel = blockIdx.x * FINISH_COLUMNS + threadIdx.x, blocks = (pixels - 1) / chunk + 1;
    const bool there = channel < c;
    const auto count = [=](int block) { return (double)min(chunk, pixels - block * chunk); };
    double sum = 0.0;
    for (int block = threadIdx.y; there && block < blocks; block += FINISH_ROWS) {
        sum += count(block) * partial[(size_t)block * 2 * c + channel];
    }
    const double average = sum_over_rows(sum) / pixels;
    double squares = 0.0;
    for (int block = threadIdx.y; there && block < blocks; block += FINISH_ROWS) {
        const float *const from = partial + (size_t)block * 2 * c + channel;
        const double delta = from[0] - average;
        squares += from[c] + count(block) * delta * delta;
    }
    squares = sum_over_rows(squares);
    if (!there || threadIdx.y != 0) return;
    const double variance = squares / divisor(pixels, last_batch);
    mean[channel] = average;
    inverse_std[channel] = 1.0 / sqrt(variance + eps);
    if (last_batch) {
        state_mean[channel] = average;
        state_var[channel] = variance;
    } else {
        const float unbiased = squares / max(pixels - 1, 1);
        state_mean[channel] += momentum * ((float)average - state_mean[channel]);
        state_var[channel] += momentum * (unbiased - state_var[channel]);
    }
}

// Mean and 1/√(v + ε) of the states, for an evaluation. Block: 256. Grid: ⌈c/256⌉.
extern "C" __global__ void __launch_bounds__(THREADS) norm_constants(
    const float *state_mean, const float *state_var, float *mean, float *inverse_std, int c, double eps) {
    const int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= c) return;
    mean[channel] = state_mean[channel];
    inverse_std[channel] = 1.0 / sqrt(state_var[channel] + eps);
}

namespace {

template <int V>
__device__ __forceinline__ void apply(
    const float *x, float *y, const float *mean, const float *inverse_std, const float *gamma, const float *beta, int pixels,
    int c, int chunk) {
    const Tile<V> tile(c);
    if (!tile.works()) return;
    const Range range(pixels, chunk);
    const auto of = [&](const float *values) { return Values<V>::load(values + tile.channel()); };
    const Values<V> centre = of(mean), shift = of(beta);
    Values<V> slope = of(inverse_std);
    const Values<V> gain = of(gamma);
    for (int k = 0; k < V; k++) slope.at[k] *= gain.at[k];
    for (unsigned p = range.begin + tile.row; p < range.end; p += GROUP<V> * tile.rows) {
        Values<V> values[GROUP<V>];
#pragma unroll
        for (int g = 0; g < GROUP<V>; g++) {
            const unsigned at = p + g * tile.rows;
            if (at < range.end) values[g] = Values<V>::load(x + (size_t)at * c + tile.channel());
        }
#pragma unroll
        for (int g = 0; g < GROUP<V>; g++) {
            const unsigned at = p + g * tile.rows;
            if (at >= range.end) break;
            for (int k = 0; k < V; k++) {
                values[g].at[k] = (values[g].at[k] - centre.at[k]) * slope.at[k] + shift.at[k];
            }
            values[g].store(y + (size_t)at * c + tile.channel());
        }
    }
}

}  // namespace

// y = γ·(x − mean)·inverse_std + β; y may be x. Grid: of tiles.
extern "C" __global__ void __launch_bounds__(THREADS) norm_apply(
    const float *x, float *y, const float *mean, const float *inverse_std, const float *gamma, const float *beta, int pixels,
    int c, int chunk) {
#define APPLY(V) apply<V>(x, y, mean, inverse_std, gamma, beta, pixels, c, chunk);
    BY_VECTORS(c, APPLY);
#undef APPLY
}

namespace {

template <int V>
__device__ __forceinline__ void backward_sums(
    const float *x, const float *dy, const float *mean, const float *inverse_std, float *partial, int pixels, int c, int chunk,
    float *shared) {
    const Tile<V> tile(c);
    const Range range(pixels, chunk);
    // dγ, then dβ
    float sums[2 * V] = {};
    if (tile.works()) {
        const auto centre = Values<V>::load(mean + tile.channel()), scale = Values<V>::load(inverse_std + tile.channel());
        for (unsigned p = range.begin + tile.row; p < range.end; p += GROUP<V> * tile.rows) {
            Values<V> x_of[GROUP<V>], dy_of[GROUP<V>];
#pragma unroll
            for (int g = 0; g < GROUP<V>; g++) {
                const unsigned at = p + g * tile.rows;
                const size_t i = (size_t)at * c + tile.channel();
                x_of[g] = at < range.end ? Values<V>::load(x + i) : centre;
                dy_of[g] = at < range.end ? Values<V>::load(dy + i) : Values<V>::all(0.0f);
            }
#pragma unroll
            for (int g = 0; g < GROUP<V>; g++) {
                for (int k = 0; k < V; k++) {
                    sums[k] += dy_of[g].at[k] * ((x_of[g].at[k] - centre.at[k]) * scale.at[k]);
                    sums[V + k] += dy_of[g].at[k];
                }
            }
        }
    }
    sum_rows(tile, sums, shared);
    if (tile.row == 0) {
        Values<V> dgamma, dbeta;
        for (int k = 0; k < V; k++) dgamma.at[k] = sums[k], dbeta.at[k] = sums[V + k];
        float *const to = partial + (size_t)blockIdx.x * 2 * c + tile.channel();
        dgamma.store(to);
        dbeta.store(to + c);
    }
}

}  // namespace

// Σ dy·x̂ and Σ dy of every block. Grid: of tiles.
extern "C" __global__ void __launch_bounds__(THREADS) norm_backward_sums(
    const float *x, const float *dy, const float *mean, const float *inverse_std, float *partial, int pixels, int c,
    int chunk) {
    __shared__ float shared[8 * THREADS];
#define SUMS(V) backward_sums<V>(x, dy, mean, inverse_std, partial, pixels, c, chunk, shared);
    BY_VECTORS(c, SUMS);
#undef SUMS
}

// Adds the blocks up: dγ, dβ (each may be null: nobody reads it), written or added; and what dx takes, 3·c coefficients: dx =
// a·dy + (k·(x − mean) + b), a before k before b. training: whether the forward pass was one. Block: (32, 8). Grid: ⌈c/32⌉.
extern "C" __global__ void __launch_bounds__(FINISH_COLUMNS *FINISH_ROWS) norm_backward_finish(
    const float *partial, const float *gamma, const float *inverse_std, float *dgamma, int add_dgamma, float *dbeta,
    int add_dbeta, float *coefficients, int pixels, int c, int chunk, int training, int last_batch) {
    const int channel = blockIdx.x * FINISH_COLUMNS + threadIdx.x, blocks = (pixels - 1) / chunk + 1;
    const bool there = channel < c;
    double sum_gamma = 0.0, sum_beta = 0.0;
    for (int block = threadIdx.y; there && block < blocks; block += FINISH_ROWS) {
        const float *const from = partial + (size_t)block * 2 * c + channel;
        sum_gamma += from[0];
        sum_beta += from[c];
    }
    sum_gamma = sum_over_rows(sum_gamma);
    sum_beta = sum_over_rows(sum_beta);
    if (!there || threadIdx.y != 0) return;
    if (dgamma) dgamma[channel] = add_dgamma ? dgamma[channel] + (float)sum_gamma : sum_gamma;
    if (dbeta) dbeta[channel] = add_dbeta ? dbeta[channel] + (float)sum_beta : sum_beta;
    const double scale = inverse_std[channel], gain = gamma[channel] * scale;
    coefficients[channel] = gain;
    // Statistics that are constant pass nothing on.
    coefficients[c + channel] = training ? -gain * scale * sum_gamma / divisor(pixels, last_batch) : 0.0;
    coefficients[2 * c + channel] = training ? -gain * sum_beta / pixels : 0.0;
}

namespace {

template <int V>
__device__ __forceinline__ void backward_apply(
    const float *x, const float *dy, float *dx, const float *mean, const float *coefficients, int pixels, int c, int chunk,
    int add) {
    const Tile<V> tile(c);
    if (!tile.works()) return;
    const Range range(pixels, chunk);
    const auto of = [&](const float *values) { return Values<V>::load(values + tile.channel()); };
    const Values<V> centre = of(mean), a = of(coefficients), pull = of(coefficients + c), b = of(coefficients + 2 * c);
    for (unsigned p = range.begin + tile.row; p < range.end; p += GROUP<V> * tile.rows) {
        Values<V> x_of[GROUP<V>], dy_of[GROUP<V>];
#pragma unroll
        for (int g = 0; g < GROUP<V>; g++) {
            const unsigned at = p + g * tile.rows;
            const size_t i = (size_t)at * c + tile.channel();
            if (at < range.end) x_of[g] = Values<V>::load(x + i), dy_of[g] = Values<V>::load(dy + i);
        }
#pragma unroll
        for (int g = 0; g < GROUP<V>; g++) {
            const unsigned at = p + g * tile.rows;
            if (at >= range.end) break;
            Values<V> value;
            for (int k = 0; k < V; k++) {
                value.at[k] = a.at[k] * dy_of[g].at[k] + (pull.at[k] * (x_of[g].at[k] - centre.at[k]) + b.at[k]);
            }
            value.put(dx + (size_t)at * c + tile.channel(), add);
        }
    }
}

}  // namespace

// dx, written or added, may be dy. Grid: of tiles.
extern "C" __global__ void __launch_bounds__(THREADS) norm_backward_apply(
    const float *x, const float *dy, float *dx, const float *mean, const float *coefficients, int pixels, int c, int chunk,
    int add) {
#define APPLY(V) backward_apply<V>(x, dy, dx, mean, coefficients, pixels, c, chunk, add);
    BY_VECTORS(c, APPLY);
#undef APPLY
}
