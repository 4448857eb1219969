// Sums, copies, products with constants and factors, random zeros, and moves of channels.
//
//   add              y = x₀ + x₁ + …;  every dxᵢ = dy (copy)
//   copy             y = x: flatten, and the gradients of add
//   scale            y = factor·x;  dx = factor·dy
//   channel_scale    y[p, c] = x[p, c]·s[c] in each image;  dx = dy·s,  ds[c] = Σₚ dy[p, c]·x[p, c]
//   dropout          y = x·mask/(1 − p), the mask of element i of image n being 0 where number i of the image's key is below
//                    the threshold p·2^64;  dx the same of dy
//   drop_path        the same with one number, the first, for all of an image
//   concat, slice    channels [first, first + width) of a map of `channels` channels from, and to, a map of `width`
//   channel_shuffle  with m = c/groups: y[p, j·groups + i] = x[p, i·m + j];  dx the same with m groups
//
// y may be x (in add: x₀) in add, copy, scale, channel_scale, dropout and drop_path. `add` is whether to add to y.
// Blocks have 256 threads. Grid "per four": min(⌈n/1024⌉, 65535) blocks; "per one": min(⌈n/256⌉, 65535); any other number is
// right too.
#include "common.cuh"
#include "random.cuh"

struct Inputs {
    const float *x[8];
};

template <class T> __device__ __forceinline__ T sum_of(const Inputs &inputs, int count, int i) {
    T sum = reinterpret_cast<const T *>(inputs.x[0])[i];
#pragma unroll
    for (int k = 1; k < 8; k++) {
        if (k < count) sum = sum + reinterpret_cast<const T *>(inputs.x[k])[i];
    }
    return sum;
}

// inputs: count (2 to 8) pointers to n values each, the rest anything. Grid: per four.
extern "C" __global__ void __launch_bounds__(THREADS) elementwise_add(Inputs inputs, int count, float *y, int n) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (int i = thread; i < n / 4; i += threads) {
        reinterpret_cast<float4 *>(y)[i] = sum_of<float4>(inputs, count, i);
    }
    if (thread < n % 4) y[n - 1 - thread] = sum_of<float>(inputs, count, n - 1 - thread);
}

// Grid: per four.
extern "C" __global__ void __launch_bounds__(THREADS) elementwise_copy(const float *x, float *y, int n, int add) {
    map(y, n, add, [](float x) { return x; }, x);
}

// Grid: per four.
extern "C" __global__ void __launch_bounds__(THREADS)
    elementwise_scale(const float *x, float *y, int n, float factor, int add) {
    map(y, n, add, [=](float x) { return factor * x; }, x);
}

// each(index, channel) for the values of an image, V at a time.
template <int V, class F> __device__ __forceinline__ void each_by_channel(int per_image, int c, F each) {
    const unsigned threads = gridDim.x * blockDim.x * V;
    for (unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) * V; i < per_image; i += threads) each(i, i % c);
}

// x, y: images × per_image values, per_image = h·w·c. s: images × c factors. Forward, and dx from dy.
// Grid: (min(⌈per_image/1024⌉, 65535), min(images, 65535)).
extern "C" __global__ void __launch_bounds__(THREADS) elementwise_channel_scale(
    const float *x, const float *s, float *y, int images, int per_image, int c, int add) {
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        const size_t start = (size_t)image * per_image;
        const float *const factors = s + (size_t)image * c;
#define SCALE(V)                                                                                  \
    each_by_channel<V>(per_image, c, [&](unsigned i, unsigned channel) {                          \
        auto value = Values<V>::load(x + start + i), factor = Values<V>::load(factors + channel); \
        for (int k = 0; k < V; k++) value.at[k] *= factor.at[k];                                  \
        value.put(y + start + i, add);                                                            \
    });
        BY_VECTORS(c, SCALE);
#undef SCALE
    }
}

// Σ over an image's pixels of x·dy in the channels of a tile.
template <int V> __device__ __forceinline__ void channel_products(
    const float *x, const float *dy, float *ds, int pixels, int c, int add, float *shared) {
    // Loads under way at a time.
    constexpr int GROUP = V == 4 ? 4 : 8;
    const Tile<V> tile(c);
    const size_t start = (size_t)blockIdx.x * pixels * c;
    float sums[V] = {};
    if (tile.works()) {
        for (unsigned p = tile.row; p < pixels; p += GROUP * tile.rows) {
            Values<V> a[GROUP], b[GROUP];
#pragma unroll
            for (int g = 0; g < GROUP; g++) {
                const unsigned at = p + g * tile.rows;
                const size_t i = start + (size_t)at * c + tile.channel();
                a[g] = at < pixels ? Values<V>::load(x + i) : Values<V>::all(0.0f);
                b[g] = at < pixels ? Values<V>::load(dy + i) : Values<V>::all(0.0f);
            }
#pragma unroll
            for (int g = 0; g < GROUP; g++) {
                for (int k = 0; k < V; k++) sums[k] += a[g].at[k] * b[g].at[k];
            }
        }
    }
    sum_rows(tile, sums, shared);
    if (tile.row == 0) {
        Values<V> sum;
        for (int k = 0; k < V; k++) sum.at[k] = sums[k];
        sum.put(ds + (size_t)blockIdx.x * c + tile.channel(), add);
    }
}

// ds: images × c. Before dx overwrites dy. Grid: (images, ⌈columns/64⌉), columns = c/4 where c is a multiple of 4, else c.
extern "C" __global__ void __launch_bounds__(THREADS)
    elementwise_channel_products(const float *x, const float *dy, float *ds, int pixels, int c, int add) {
    __shared__ float shared[4 * THREADS];
#define PRODUCTS(V) channel_products<V>(x, dy, ds, pixels, c, add, shared);
    BY_VECTORS(c, PRODUCTS);
#undef PRODUCTS
}

// y[i] = x[i]·factor(image, index in the image), or that added, four at a time.
template <class F> __device__ __forceinline__ void map_by_image(
    const float *x, float *y, int n, int per_image, int add, F factors) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (int i = thread; i < n / 4; i += threads) {
        const int image = 4 * i / per_image;
        float factor[4];
        factors(factor, image, 4 * i - image * per_image);
        auto value = Values<4>::load(x + 4 * i);
        for (int k = 0; k < 4; k++) value.at[k] *= factor[k];
        value.put(y + 4 * i, add);
    }
    if (thread < n % 4) {
        const int i = n - 1 - thread, image = i / per_image;
        float factor[4];
        factors(factor, image, i - image * per_image);
        y[i] = add ? y[i] + x[i] * factor[0] : x[i] * factor[0];
    }
}

// key: the node's in this step. threshold: p·2^64. factor: 1/(1 − p). Grid: per four.
extern "C" __global__ void __launch_bounds__(THREADS) elementwise_dropout(
    const float *x, float *y, int n, int per_image, u64 key, u64 threshold, float factor, int add) {
    map_by_image(x, y, n, per_image, add, [=](float(&factors)[4], int image, int i) {
        u64 image_key = key_with(key, image);
        for (int k = 0; k < 4; k++) {
            factors[k] = key_at(image_key, i) < threshold ? 0.0f : factor;
            if (++i == per_image) image_key = key_with(key, ++image), i = 0;
        }
    });
}

// As elementwise_dropout.
extern "C" __global__ void __launch_bounds__(THREADS) elementwise_drop_path(
    const float *x, float *y, int n, int per_image, u64 key, u64 threshold, float factor, int add) {
    map_by_image(x, y, n, per_image, add, [=](float(&factors)[4], int image, int i) {
        const auto of = [=](int image) { return key_at(key_with(key, image), 0) < threshold ? 0.0f : factor; };
        float now = of(image);
        for (int k = 0; k < 4; k++) {
            factors[k] = now;
            if (++i == per_image) now = of(++image), i = 0;
        }
    });
}

// each(where in the narrow map, where in the wide one) for all values, by V.
template <int V, class F> __device__ __forceinline__ void each_of_part(
    int pixels, int width, int first, int channels, F each) {
    const unsigned total = (unsigned)pixels * width, threads = gridDim.x * blockDim.x * V;
    for (unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) * V; i < total; i += threads) {
        const unsigned pixel = i / width;
        each(i, pixel * channels + first + (i - pixel * width));
    }
}

// Whether a part's channels lie in fours on both sides.
__device__ __forceinline__ bool in_fours(int width, int first, int channels) { return (width | first | channels) % 4 == 0; }

// x: pixels × width; y: pixels × channels, of which [first, first + width) are written. Grid: per one of pixels·width.
extern "C" __global__ void __launch_bounds__(THREADS)
    elementwise_concat(const float *x, float *y, int pixels, int width, int first, int channels) {
    if (in_fours(width, first, channels)) {
        each_of_part<4>(pixels, width, first, channels, [=](unsigned part, unsigned whole) {
            Values<4>::load(x + part).store(y + whole);
        });
    } else {
        each_of_part<1>(pixels, width, first, channels, [=](unsigned part, unsigned whole) { y[whole] = x[part]; });
    }
}

// x: pixels × channels; y: pixels × width. Grid: per one of pixels·width.
extern "C" __global__ void __launch_bounds__(THREADS)
    elementwise_slice(const float *x, float *y, int pixels, int width, int first, int channels, int add) {
    if (in_fours(width, first, channels)) {
        each_of_part<4>(pixels, width, first, channels, [=](unsigned part, unsigned whole) {
            Values<4>::load(x + whole).put(y + part, add);
        });
    } else {
        each_of_part<1>(pixels, width, first, channels, [=](unsigned part, unsigned whole) {
            Values<1>::load(x + whole).put(y + part, add);
        });
    }
}

// x, y: n values in pixels of c channels. Backward: of dy, with c/groups groups. Grid: per one.
extern "C" __global__ void __launch_bounds__(THREADS)
    elementwise_channel_shuffle(const float *x, float *y, int n, int c, int groups, int add) {
    const unsigned threads = gridDim.x * blockDim.x, m = c / groups;
    for (unsigned to = blockIdx.x * blockDim.x + threadIdx.x; to < n; to += threads) {
        const unsigned channel = to % c;
        const float value = x[to - channel + channel % groups * m + channel / groups];
        y[to] = add ? y[to] + value : value;
    }
}
