// The own parts of a convolution whose kernel turns with the place (src/ops/twist).
//
// Three 3×3 kernels W, Wx, Wy of `width` channels lie side by side in one convolution with 3·width outputs, Wx projected to
// P(Wx) = (Wx − rot180 Wx)/2 and Wy that turned by 90° counter-clockwise. Its maps a, b, c lie one behind the other in each
// pixel.
// At row i of h and column j of w, channel q with centre (cx, cy) and radius R:
//
//   X = 2j/w − cx, Y = 2i/h − cy, both less `begin` (0 published, 1 centred)
//   r = (X² + Y²)/R², m = min(1, max(0, (1.3 − r)/0.6)), m′ = −1/0.6 where 0.7 < r < 1.3, else 0
//   y = a + m·t, t = X·b + Y·c
//   da = dy, db = dy·m·X, dc = dy·m·Y
//   dcx = −Σ dy·(m·b + t·m′·2X/R²), dcy = −Σ dy·(m·c + t·m′·2Y/R²), dR = −Σ dy·t·m′·2r/R
//   with G and H the gradients of the projected Wx and of Wy, H′ being H turned back: dWx = P(G + H′) where tied, else G
//   dWy = 0
//
// Forward: twist_weights, the convolution, twist_combine. Backward: twist_spread, twist_places, the convolution's backward
// passes with the weights of twist_weights, twist_kernels.
//
// maps, dmaps: pixels × 3 × width; y, dy: pixels × width; pixels = images·h·w. radii, cx, cy: width numbers each. Kernels:
// [3][3][cin][width]; all: [3][3][cin][3·width].
//
// Grid "of tiles": (⌈pixels/chunk⌉, ⌈columns/64⌉) blocks of 256 threads, columns = width/4 where width is a multiple of 4,
// else width; the chunk as in norm.cu. Grid "per weight": min(⌈9·cin·width/256⌉, 65535) blocks of 256 threads.
#include "common.cuh"

namespace {

constexpr float OUTER = 1.3f, SLOPE = 1.0f / 0.6f;

// Where tap (a, b) of Wy finds its value in the projected Wx, and the tap of Wy that takes its value from there.
__device__ __forceinline__ int turned(int tap) { return 3 * (tap % 3) + 2 - tap / 3; }
__device__ __forceinline__ int turned_back(int tap) { return 3 * (2 - tap % 3) + tap / 3; }

// each(index, tap, the place in the tap: input·width + channel) for all weights of a kernel.
template <class F> __device__ __forceinline__ void each_weight(int cin, int width, F each) {
    const unsigned block = (unsigned)cin * width, threads = gridDim.x * THREADS;
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < 9 * block; i += threads) each(i, i / block, i % block);
}

// What a thread needs to know of its channels.
template <int V> struct Places {
    Values<V> x, y, inverse;

    __device__ __forceinline__ Places(const float *radii, const float *cx, const float *cy, int channel) {
        x = Values<V>::load(cx + channel), y = Values<V>::load(cy + channel);
        const auto radius = Values<V>::load(radii + channel);
        for (int k = 0; k < V; k++) inverse.at[k] = 1.0f / (radius.at[k] * radius.at[k]);
    }
};

// What the place has to do with one value.
struct Place {
    float x, y, r, mask, slope;

    template <int V> __device__ __forceinline__ Place(const Places<V> &places, int k, float column, float row) {
        x = column - places.x.at[k], y = row - places.y.at[k];
        r = (x * x + y * y) * places.inverse.at[k];
        const float ramp = (OUTER - r) * SLOPE;
        mask = fminf(fmaxf(ramp, 0.0f), 1.0f);
        slope = ramp > 0.0f && ramp < 1.0f ? -SLOPE : 0.0f;
    }
};

// Coordinate of pixel i of `size`, before the centre is subtracted.
__device__ __forceinline__ float coordinate(int i, int size, float begin) { return 2.0f * i / size - begin; }

template <int V>
__device__ __forceinline__ void combine(
    const float *maps, const float *radii, const float *cx, const float *cy, float *y, int pixels, int h, int w, int width,
    float begin, int chunk) {
    const Tile<V> tile(width);
    if (!tile.works()) return;
    const Range range(pixels, chunk);
    const Places<V> places(radii, cx, cy, tile.channel());
    for (unsigned p = range.begin + tile.row; p < range.end; p += tile.rows) {
        const float column = coordinate(p % w, w, begin), row = coordinate(p / w % h, h, begin);
        const float *const from = maps + (size_t)p * 3 * width + tile.channel();
        auto value = Values<V>::load(from);
        const auto b = Values<V>::load(from + width), c = Values<V>::load(from + 2 * width);
        for (int k = 0; k < V; k++) {
            const Place place(places, k, column, row);
            value.at[k] += place.mask * (place.x * b.at[k] + place.y * c.at[k]);
        }
        value.store(y + (size_t)p * width + tile.channel());
    }
}

template <int V>
__device__ __forceinline__ void spread(
    const float *maps, const float *dy, const float *radii, const float *cx, const float *cy, float *dmaps, float *partial,
    int pixels, int h, int w, int width, float begin, int chunk, float *shared) {
    const Tile<V> tile(width);
    const Range range(pixels, chunk);
    // of R, cx and cy
    float sums[3 * V] = {};
    if (tile.works()) {
        const Places<V> places(radii, cx, cy, tile.channel());
        for (unsigned p = range.begin + tile.row; p < range.end; p += tile.rows) {
            const float column = coordinate(p % w, w, begin), row = coordinate(p / w % h, h, begin);
            const size_t at = (size_t)p * 3 * width + tile.channel();
            const auto b = Values<V>::load(maps + at + width), c = Values<V>::load(maps + at + 2 * width);
            const auto da = Values<V>::load(dy + (size_t)p * width + tile.channel());
            Values<V> db, dc;
            for (int k = 0; k < V; k++) {
                const Place place(places, k, column, row);
                const float pull = da.at[k] * (place.x * b.at[k] + place.y * c.at[k]) * place.slope;
                const float share = da.at[k] * place.mask, twice = 2.0f * pull * places.inverse.at[k];
                db.at[k] = share * place.x;
                dc.at[k] = share * place.y;
                sums[k] += pull * place.r;
                sums[V + k] += share * b.at[k] + twice * place.x;
                sums[2 * V + k] += share * c.at[k] + twice * place.y;
            }
            float *to = dmaps + at;
            da.store(to);
            db.store(to += width);
            dc.store(to += width);
        }
    }
    sum_rows(tile, sums, shared);
    if (tile.row == 0) {
        for (int which = 0; which < 3; which++) {
            Values<V> sum;
            for (int k = 0; k < V; k++) sum.at[k] = sums[which * V + k];
            sum.store(partial + ((size_t)blockIdx.x * 3 + which) * width + tile.channel());
        }
    }
}

}  // namespace

// w, wx: W and Wx. Grid: per weight.
extern "C" __global__ void __launch_bounds__(THREADS)
    twist_weights(const float *w, const float *wx, float *all, int cin, int width) {
    each_weight(cin, width, [=](unsigned i, int tap, unsigned rest) {
        const unsigned block = (unsigned)cin * width, q = rest % width;
        const auto projected = [=](int tap) { return 0.5f * (wx[tap * block + rest] - wx[(8 - tap) * block + rest]); };
        float *const to = all + (size_t)3 * (i - q) + q;
        to[0] = w[i];
        to[width] = projected(tap);
        to[2 * width] = projected(turned(tap));
    });
}

// Grid: of tiles.
extern "C" __global__ void __launch_bounds__(THREADS) twist_combine(
    const float *maps, const float *radii, const float *cx, const float *cy, float *y, int pixels, int h, int w, int width,
    float begin, int chunk) {
#define BODY(V) combine<V>(maps, radii, cx, cy, y, pixels, h, w, width, begin, chunk);
    BY_VECTORS(width, BODY);
#undef BODY
}

// The maps' gradients, and partial sums of those of R, cx, cy: 3·width numbers for each of the ⌈pixels/chunk⌉ blocks.
// Grid: of tiles.
extern "C" __global__ void __launch_bounds__(THREADS) twist_spread(
    const float *maps, const float *dy, const float *radii, const float *cx, const float *cy, float *dmaps, float *partial,
    int pixels, int h, int w, int width, float begin, int chunk) {
    __shared__ float shared[12 * THREADS];
#define BODY(V) spread<V>(maps, dy, radii, cx, cy, dmaps, partial, pixels, h, w, width, begin, chunk, shared);
    BY_VECTORS(width, BODY);
#undef BODY
}

// The gradients of R, cx and cy, each null where nobody reads it, written or added. Block: (32, 8). Grid: ⌈width/32⌉.
extern "C" __global__ void __launch_bounds__(FINISH_COLUMNS *FINISH_ROWS) twist_places(
    const float *partial, const float *radii, float *dradii, int add_dradii, float *dcx, int add_dcx, float *dcy, int add_dcy,
    int blocks, int width) {
    const int q = blockIdx.x * FINISH_COLUMNS + threadIdx.x;
    double sums[3] = {};
    for (int block = threadIdx.y; q < width && block < blocks; block += FINISH_ROWS) {
        for (int which = 0; which < 3; which++) sums[which] += partial[((size_t)block * 3 + which) * width + q];
    }
    for (int which = 0; which < 3; which++) sums[which] = sum_over_rows(sums[which]);
    if (q >= width || threadIdx.y != 0) return;
    const auto put = [=](float *to, int add, float value) {
        if (to) to[q] = add ? to[q] + value : value;
    };
    put(dradii, add_dradii, -2.0 * sums[0] / radii[q]);
    put(dcx, add_dcx, -sums[1]);
    put(dcy, add_dcy, -sums[2]);
}

// The gradients of W, Wx and Wy from that of what twist_weights wrote, each null where nobody reads it, written or added.
// Grid: per weight.
extern "C" __global__ void __launch_bounds__(THREADS) twist_kernels(
    const float *dall, float *dw, int add_dw, float *dwx, int add_dwx, float *dwy, int add_dwy, int cin, int width, int tied) {
    each_weight(cin, width, [=](unsigned i, int tap, unsigned rest) {
        const unsigned block = (unsigned)cin * width, q = rest % width;
        const auto of = [=](int tap, int map) { return dall[(size_t)3 * (tap * block + rest - q) + map * width + q]; };
        const auto both = [=](int tap) { return of(tap, 1) + of(turned_back(tap), 2); };
        if (dw) dw[i] = add_dw ? dw[i] + of(tap, 0) : of(tap, 0);
        if (dwx) {
            const float value = tied ? 0.5f * (both(tap) - both(8 - tap)) : of(tap, 1);
            dwx[i] = add_dwx ? dwx[i] + value : value;
        }
        if (dwy && !add_dwy) dwy[i] = 0.0f;
    });
}
