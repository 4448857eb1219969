// The own parts of a grouped convolution that mixes its groups and bends with the place (src/ops/conv_twist).
//
// Output group g of `groups` reads input group s(g): g itself (order 0), the one before it (1), the one before it in cycles
// of four (2). The convolution has `kinds` kernels for each of `width` output channels, 1 without a twist, else 3: W, Kx, Ky.
// It reads its input where it lies: the block of input group s(g) in a pixel of its maps, and in a row of its weights, holds
// the kinds of output group g, one behind the other, size = width/groups channels each. With maps a, b, c:
//
//   T(z) = a + X·b + Y·c at row i of h and column j of w, X = 2j/w − 1, Y = 2i/h − 1; backward d, X·d, Y·d
//   Sobel: Kx = Ax·Dx + Ay·Dy, Ky = Ay·Dx − Ax·Dy, Dx = [-1 0 1; -2 0 2; -1 0 1], Dy = [1 2 1; 0 0 0; -1 -2 -1]
//          dAx = Σ over taps Gx·Dx − Gy·Dy, dAy = Σ Gx·Dy + Gy·Dx
//   free:  Kx = P(Wx), Ky = P(Wy), P(K) = (K − rot180 K)/2; learned shifts cx, cy of X, Y fold into W + cx·Kx + cy·Ky
//          dKx = Gx + cx·G, dcx = Σ G·Kx, dWx = P(dKx) where tied, else dKx; the same for y
//
// Where T is applied k times each application is multiplied with share = 1/k, else share is 1.
// y gathers the terms, so that z₁ and those after it are x + y; the e of a backward pass gathers in the convolution's input
// gradient.
//
// maps, dmaps: pixels × kinds·width; x, y, z, d: pixels × width; pixels = images·h·w. Kernels: [3][3][cin][width], cin the input
// channels of a group; Ax, Ay: [width][cin]; all: [3][3][cin][kinds·width].
//
// Blocks have 256 threads. Grid "per value": min(⌈V/256⌉, 65535), V = pixels·width, or a quarter where size is a multiple of
// 4; "per weight": min(⌈9·cin·width/256⌉, 65535).
#include "common.cuh"

// The shape of a layer.
struct Groups {
    int width, groups, order, kinds, cin;
};

namespace {

__device__ __forceinline__ int size_of(const Groups &g) { return g.width / g.groups; }

// Where the first kernel of output channel o begins in a pixel of the maps; the others follow at steps of size.
__device__ __forceinline__ int column(const Groups &g, int o) {
    const int size = size_of(g), group = o / size, cycle = g.order == 1 ? g.groups : 4;
    const int source = g.order == 0 ? group : group % cycle == 0 ? group + cycle - 1 : group - 1;
    return source * g.kinds * size + o % size;
}

__device__ __forceinline__ float sobel_x(int tap) { return (tap % 3 - 1) * (tap / 3 == 1 ? 2 : 1); }
__device__ __forceinline__ float sobel_y(int tap) { return (1 - tap / 3) * (tap % 3 == 1 ? 2 : 1); }

__device__ __forceinline__ float coordinate(int i, int size) { return 2.0f * i / size - 1.0f; }

// each(index, tap, input, output) for all weights of a kernel.
template <class F> __device__ __forceinline__ void each_weight(const Groups &g, F each) {
    const unsigned block = (unsigned)g.cin * g.width, threads = gridDim.x * THREADS;
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < 9 * block; i += threads) {
        const unsigned tap = i / block, rest = i - tap * block, input = rest / g.width;
        each(i, tap, input, rest - input * g.width);
    }
}

// Of the gradient of all weights, that of (tap, input, output) in kernel `kind`.
__device__ __forceinline__ float gradient(const float *dall, const Groups &g, int tap, int input, int o, int kind) {
    return dall[((size_t)tap * g.cin + input) * g.kinds * g.width + column(g, o) + kind * size_of(g)];
}

__device__ __forceinline__ void put(float *to, int add, float value) { *to = add ? *to + value : value; }

template <int V>
__device__ __forceinline__ void combine(
    const float *maps, float *y, const float *x, float *z, int images, int h, int w, float share, int add, const Groups &g) {
    const int size = size_of(g);
    each_value<V>(images, h, w, g.width, [&](int, int i, int j, int channel, unsigned index) {
        const float *const from = maps + (size_t)(index - channel) * g.kinds + column(g, channel);
        auto value = Values<V>::load(from);
        for (int k = 0; k < V; k++) value.at[k] *= share;
        if (g.kinds == 3) {
            const auto b = Values<V>::load(from + size), c = Values<V>::load(from + 2 * size);
            const float across = share * coordinate(j, w), down = share * coordinate(i, h);
            for (int k = 0; k < V; k++) value.at[k] += across * b.at[k] + down * c.at[k];
        }
        const auto plus = [&](const float *from) {
            const auto old = Values<V>::load(from);
            for (int k = 0; k < V; k++) value.at[k] += old.at[k];
        };
        if (add) plus(y + index);
        value.store(y + index);
        if (z) {
            plus(x + index);
            value.store(z + index);
        }
    });
}

template <int V>
__device__ __forceinline__ void spread(
    const float *d, float *dmaps, int images, int h, int w, float share, const Groups &g) {
    const int size = size_of(g);
    each_value<V>(images, h, w, g.width, [&](int, int i, int j, int channel, unsigned index) {
        float *const to = dmaps + (size_t)(index - channel) * g.kinds + column(g, channel);
        const auto value = Values<V>::load(d + index);
        const float factors[3] = {share, share * coordinate(j, w), share * coordinate(i, h)};
        for (int kind = 0; kind < 3; kind++) {
            if (kind >= g.kinds) break;
            Values<V> scaled;
            for (int k = 0; k < V; k++) scaled.at[k] = factors[kind] * value.at[k];
            scaled.store(to + kind * size);
        }
    });
}

// (K − rot180 K)/2 at (tap, rest of the index).
__device__ __forceinline__ float projected(const float *kernel, unsigned block, int tap, unsigned rest) {
    return 0.5f * (kernel[tap * block + rest] - kernel[(8 - tap) * block + rest]);
}

}  // namespace

// All kernels without a twist, in their order. Grid: per weight.
extern "C" __global__ void __launch_bounds__(THREADS) conv_twist_plain_weights(const float *w, float *all, Groups g) {
    each_weight(g, [&](unsigned i, int, int, int o) { all[i - o + column(g, o)] = w[i]; });
}

// Those of Sobel's twist. Grid: per weight.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_twist_sobel_weights(const float *w, const float *ax, const float *ay, float *all, Groups g) {
    each_weight(g, [&](unsigned i, int tap, int input, int o) {
        const float x = ax[(size_t)o * g.cin + input], y = ay[(size_t)o * g.cin + input];
        float *const to = all + (size_t)(i - o) * 3 + column(g, o);
        to[0] = w[i];
        to[size_of(g)] = x * sobel_x(tap) + y * sobel_y(tap);
        to[2 * size_of(g)] = y * sobel_x(tap) - x * sobel_y(tap);
    });
}

// Those of the free twist. Grid: per weight.
extern "C" __global__ void __launch_bounds__(THREADS) conv_twist_free_weights(
    const float *w, const float *wx, const float *wy, const float *cx, const float *cy, float *all, Groups g) {
    const unsigned block = (unsigned)g.cin * g.width;
    each_weight(g, [&](unsigned i, int tap, int, int o) {
        const float x = projected(wx, block, tap, i - tap * block), y = projected(wy, block, tap, i - tap * block);
        float *const to = all + (size_t)(i - o) * 3 + column(g, o);
        to[0] = w[i] + (cx[o] * x + cy[o] * y);
        to[size_of(g)] = x;
        to[2 * size_of(g)] = y;
    });
}

// y = share·T, or that added; where T is applied again, z = x + y, else z is null. Grid: per value.
extern "C" __global__ void __launch_bounds__(THREADS) conv_twist_combine(
    const float *maps, float *y, const float *x, float *z, int images, int h, int w, float share, int add, Groups g) {
#define BODY(V) combine<V>(maps, y, x, z, images, h, w, share, add, g);
    BY_VECTORS(size_of(g), BODY);
#undef BODY
}

// dmaps = share·(d, X·d, Y·d). Grid: per value.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_twist_spread(const float *d, float *dmaps, int images, int h, int w, float share, Groups g) {
#define BODY(V) spread<V>(d, dmaps, images, h, w, share, g);
    BY_VECTORS(size_of(g), BODY);
#undef BODY
}

// dx = e − dy, or that added: n values, where T is applied several times. Grid: min(⌈n/1024⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_twist_difference(const float *e, const float *dy, float *dx, int n, int add) {
    map(dx, n, add, [](float e, float dy) { return e - dy; }, e, dy);
}

// The gradient of W, written or added, from dall, that of all weights. Grid: per weight.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_twist_plain_gradient(const float *dall, float *dw, int add, Groups g) {
    each_weight(g, [&](unsigned i, int tap, int input, int o) { put(dw + i, add, gradient(dall, g, tap, input, o, 0)); });
}

// The gradients of Ax and Ay, each null where nobody reads it. Grid: min(⌈cin·width/256⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_twist_sobel_gradient(const float *dall, float *dax, int add_dax, float *day, int add_day, Groups g) {
    const int count = g.cin * g.width;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS) {
        const int input = i / g.width, o = i % g.width;
        float x = 0.0f, y = 0.0f;
        for (int tap = 0; tap < 9; tap++) {
            const float gx = gradient(dall, g, tap, input, o, 1), gy = gradient(dall, g, tap, input, o, 2);
            x += gx * sobel_x(tap) - gy * sobel_y(tap);
            y += gx * sobel_y(tap) + gy * sobel_x(tap);
        }
        if (dax) put(dax + (size_t)o * g.cin + input, add_dax, x);
        if (day) put(day + (size_t)o * g.cin + input, add_day, y);
    }
}

// The gradient of Wx (kind 1, shift cx) or Wy (kind 2, shift cy). Grid: per weight.
extern "C" __global__ void __launch_bounds__(THREADS) conv_twist_free_gradient(
    const float *dall, const float *shift, float *dkernel, int kind, int tied, int add, Groups g) {
    each_weight(g, [&](unsigned i, int tap, int input, int o) {
        const auto raw = [&](int tap) {
            return gradient(dall, g, tap, input, o, kind) + shift[o] * gradient(dall, g, tap, input, o, 0);
        };
        put(dkernel + i, add, tied ? 0.5f * (raw(tap) - raw(8 - tap)) : raw(tap));
    });
}

// The gradient of cx, kernel being Wx, or of cy, kernel being Wy. Block: (32, 8). Grid: ⌈width/32⌉.
extern "C" __global__ void __launch_bounds__(FINISH_COLUMNS *FINISH_ROWS)
    conv_twist_shift_gradient(const float *dall, const float *kernel, float *dshift, int add, Groups g) {
    const int o = blockIdx.x * FINISH_COLUMNS + threadIdx.x;
    const unsigned block = (unsigned)g.cin * g.width;
    double sum = 0.0;
    for (int i = threadIdx.y; o < g.width && i < 9 * g.cin; i += FINISH_ROWS) {
        const int tap = i / g.cin, input = i % g.cin;
        sum += (double)gradient(dall, g, tap, input, o, 0) * projected(kernel, block, tap, input * g.width + o);
    }
    sum = sum_over_rows(sum);
    if (o < g.width && threadIdx.y == 0) put(dshift + o, add, sum);
}
