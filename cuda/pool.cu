// Pools: maximum and mean over sliding windows and over a fixed number of cells, and the blur that halves a map.
//
//   max            y[o] = max over the cells k of a window of x[o·s + k·d − p]; dx of the winner gets dy[o]. The first of
//                  equal cells wins; a NaN wins over every number. Winners are saved as the cell's number in the window,
//                  kh·KW + kw
//   avg            y[o] = (1/m)·Σ over the m cells of a window that lie on the map; each of their dx gets dy[o]/m
//   adaptive       output row o of oh covers rows ⌊o·h/oh⌋ to ⌈(o+1)·h/oh⌉ − 1, columns likewise; max as above (winners are
//                  saved as the pixel's number in the map, i·w + j), mean over all pixels of a cell
//   blur           y[o, p] = Σₖ Σₗ f[k]·f[l]·x[ρ(2o + k − 2), ρ(2p + l − 2)], f = [1 5 10 10 5 1]/32, ρ reflecting at the
//                  first and last pixel
//
// Backward gathers: each dx collects from the windows that cover it, in their order, so that the sum is the same in every
// run.
//
// x, dx: images × h × w × c; y, dy, winners: images × oh × ow × c. Grid "per vector": min(⌈V/256⌉, 65535) blocks of 256
// threads, or any other number, V being the number of values written, divided by 4 where c is a multiple of 4.
#include "common.cuh"

// A map, a sliding window, and how many windows there are.
struct Window {
    int h, w, oh, ow;
    // Window height and width, strides, padding, dilation.
    int kh, kw, sh, sw, ph, pw, dh, dw;
};

namespace {

// One direction of a window.
struct Axis {
    int size, outputs, kernel, stride, pad, dilation;

    // ⌊a/dilation⌋ for a ≥ 0.
    __device__ __forceinline__ int by_dilation(int a) const { return dilation == 1 ? a : a / dilation; }
    // The place of cell 0 of output o.
    __device__ __forceinline__ int start(int o) const { return o * stride - pad; }
    // The first and last cell of output o that lie on the map.
    __device__ __forceinline__ int first_cell(int o) const {
        return start(o) >= 0 ? 0 : by_dilation(dilation - 1 - start(o));
    }
    __device__ __forceinline__ int last_cell(int o) const { return min(kernel - 1, by_dilation(size - 1 - start(o))); }
    // The first and last output whose window spans place i.
    __device__ __forceinline__ int first_output(int i) const {
        const int from = i + pad - (kernel - 1) * dilation;
        return from <= 0 ? 0 : (from + stride - 1) / stride;
    }
    __device__ __forceinline__ int last_output(int i) const { return min(outputs - 1, (i + pad) / stride); }
    // The cell of output o that lies on place i, or −1 where i lies between two cells.
    __device__ __forceinline__ int cell(int o, int i) const {
        const int offset = i - start(o), cell = by_dilation(offset);
        return cell * dilation == offset ? cell : -1;
    }
};

__device__ __forceinline__ Axis vertical(const Window &w) { return {w.h, w.oh, w.kh, w.sh, w.ph, w.dh}; }
__device__ __forceinline__ Axis horizontal(const Window &w) { return {w.w, w.ow, w.kw, w.sw, w.pw, w.dw}; }

template <int V>
__device__ __forceinline__ void max_forward(const float *x, float *y, float *winners, int images, int c, const Window &window) {
    const Axis rows = vertical(window), columns = horizontal(window);
    each_value<V>(images, window.oh, window.ow, c, [&](int image, int o, int p, int channel, unsigned index) {
        const float *const from = x + (size_t)image * window.h * window.w * c + channel;
        const int first = columns.first_cell(p), last = columns.last_cell(p), last_row = rows.last_cell(o);
        Values<V> best = Values<V>::all(0.0f), winner = Values<V>::all(-1.0f);
        for (int kh = rows.first_cell(o); kh <= last_row; kh++) {
            const int i = rows.start(o) + kh * window.dh;
            for (int kw = first; kw <= last; kw++) {
                const int j = columns.start(p) + kw * window.dw;
                const auto value = Values<V>::load(from + (size_t)(i * window.w + j) * c);
                const float cell = kh * window.kw + kw;
                for (int k = 0; k < V; k++) {
                    const bool wins = (winner.at[k] < 0.0f) | (value.at[k] > best.at[k]) | isnan(value.at[k]);
                    best.at[k] = wins ? value.at[k] : best.at[k];
                    winner.at[k] = wins ? cell : winner.at[k];
                }
            }
        }
        best.store(y + index);
        if (winners) winner.store(winners + index);
    });
}

// dx[i, j] = Σ of dy over the windows that cover it, each times what take(o, p, cell) makes of it.
template <int V, class F>
__device__ __forceinline__ void gather(float *dx, int images, int c, int add, const Window &window, F take) {
    const Axis rows = vertical(window), columns = horizontal(window);
    each_value<V>(images, window.h, window.w, c, [&](int image, int i, int j, int channel, unsigned index) {
        Values<V> sum = Values<V>::all(0.0f);
        const int last_o = rows.last_output(i), first_p = columns.first_output(j), last_p = columns.last_output(j);
        for (int o = rows.first_output(i); o <= last_o; o++) {
            const int kh = rows.cell(o, i);
            for (int p = first_p; kh >= 0 && p <= last_p; p++) {
                const int kw = columns.cell(p, j);
                if (kw < 0) continue;
                take(sum, o, p, kh * window.kw + kw, ((size_t)(image * window.oh + o) * window.ow + p) * c + channel);
            }
        }
        sum.put(dx + index, add);
    });
}

template <int V>
__device__ __forceinline__ void max_backward(
    const float *dy, const float *winners, float *dx, int images, int c, int add, const Window &window) {
    gather<V>(dx, images, c, add, window, [&](Values<V> &sum, int, int, int cell, size_t at) {
        const auto value = Values<V>::load(dy + at), winner = Values<V>::load(winners + at);
        for (int k = 0; k < V; k++) sum.at[k] += winner.at[k] == (float)cell ? value.at[k] : 0.0f;
    });
}

__device__ __forceinline__ int cells_on_map(const Axis &axis, int o) { return axis.last_cell(o) - axis.first_cell(o) + 1; }

template <int V>
__device__ __forceinline__ void avg_forward(const float *x, float *y, int images, int c, const Window &window) {
    const Axis rows = vertical(window), columns = horizontal(window);
    each_value<V>(images, window.oh, window.ow, c, [&](int image, int o, int p, int channel, unsigned index) {
        const float *const from = x + (size_t)image * window.h * window.w * c + channel;
        const int first = columns.first_cell(p), last = columns.last_cell(p), last_row = rows.last_cell(o);
        Values<V> sum = Values<V>::all(0.0f);
        for (int kh = rows.first_cell(o); kh <= last_row; kh++) {
            const int i = rows.start(o) + kh * window.dh;
            for (int kw = first; kw <= last; kw++) {
                const int j = columns.start(p) + kw * window.dw;
                const auto value = Values<V>::load(from + (size_t)(i * window.w + j) * c);
                for (int k = 0; k < V; k++) sum.at[k] += value.at[k];
            }
        }
        const float share = 1.0f / (float)(cells_on_map(rows, o) * cells_on_map(columns, p));
        for (int k = 0; k < V; k++) sum.at[k] *= share;
        sum.store(y + index);
    });
}

template <int V>
__device__ __forceinline__ void avg_backward(const float *dy, float *dx, int images, int c, int add, const Window &window) {
    const Axis rows = vertical(window), columns = horizontal(window);
    gather<V>(dx, images, c, add, window, [&](Values<V> &sum, int o, int p, int, size_t at) {
        const float share = 1.0f / (float)(cells_on_map(rows, o) * cells_on_map(columns, p));
        const auto value = Values<V>::load(dy + at);
        for (int k = 0; k < V; k++) sum.at[k] += share * value.at[k];
    });
}

}  // namespace

// winners may be null: nobody reads them. Grid: per vector of y.
extern "C" __global__ void __launch_bounds__(THREADS)
    pool_max_forward(const float *x, float *y, float *winners, int images, int c, Window window) {
#define BODY(V) max_forward<V>(x, y, winners, images, c, window);
    BY_VECTORS(c, BODY);
#undef BODY
}

// Grid: per vector of dx. Four blocks are asked for so that no register is spilled for the sake of a fifth.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    pool_max_backward(const float *dy, const float *winners, float *dx, int images, int c, int add, Window window) {
#define BODY(V) max_backward<V>(dy, winners, dx, images, c, add, window);
    BY_VECTORS(c, BODY);
#undef BODY
}

// Grid: per vector of y.
extern "C" __global__ void __launch_bounds__(THREADS)
    pool_avg_forward(const float *x, float *y, int images, int c, Window window) {
#define BODY(V) avg_forward<V>(x, y, images, c, window);
    BY_VECTORS(c, BODY);
#undef BODY
}

// Grid: per vector of dx.
extern "C" __global__ void __launch_bounds__(THREADS)
    pool_avg_backward(const float *dy, float *dx, int images, int c, int add, Window window) {
#define BODY(V) avg_backward<V>(dy, dx, images, c, add, window);
    BY_VECTORS(c, BODY);
#undef BODY
}

namespace {

// ⌊a·b/d⌋, whose product may not fit 32 bits.
__device__ __forceinline__ int share(int a, int b, int d) {
    const unsigned long long product = (unsigned long long)a * b;
    return product >> 32 == 0 ? (unsigned)product / (unsigned)d : product / d;
}

// One direction of an adaptive pool.
struct Cells {
    int size, outputs;
    __device__ __forceinline__ int begin(int o) const { return share(o, size, outputs); }
    __device__ __forceinline__ int end(int o) const { return size - share(outputs - 1 - o, size, outputs); }
    // The first and last cell that covers place i.
    __device__ __forceinline__ int first(int i) const { return share(i, outputs, size); }
    __device__ __forceinline__ int last(int i) const { return outputs - 1 - share(size - 1 - i, outputs, size); }
};

// The image and the pixels of a block's cell.
struct Cell {
    int image, top, left, width, count;
    __device__ __forceinline__ Cell(const Cells &rows, const Cells &columns) {
        const int cells = rows.outputs * columns.outputs, cell = blockIdx.x % cells;
        const int o = cell / columns.outputs, p = cell - o * columns.outputs;
        image = blockIdx.x / cells;
        top = rows.begin(o), left = columns.begin(p), width = columns.end(p) - left;
        count = (rows.end(o) - top) * width;
    }
    // The number in the map of the cell's n-th pixel.
    __device__ __forceinline__ int pixel(int n, int map_width) const {
        return (top + n / width) * map_width + left + n % width;
    }
};

template <int V>
__device__ __forceinline__ void mean_cells(
    const float *x, float *y, int c, const Cells &rows, const Cells &columns, float *shared) {
    const Tile<V> tile(c);
    const Cell cell(rows, columns);
    const float *const from = x + (size_t)cell.image * rows.size * columns.size * c + tile.channel();
    float sums[V] = {};
    for (int n = tile.row; tile.works() && n < cell.count; n += tile.rows) {
        const auto value = Values<V>::load(from + (size_t)cell.pixel(n, columns.size) * c);
        for (int k = 0; k < V; k++) sums[k] += value.at[k];
    }
    sum_rows(tile, sums, shared);
    if (tile.row == 0) {
        Values<V> mean;
        for (int k = 0; k < V; k++) mean.at[k] = sums[k] / (float)cell.count;
        mean.store(y + (size_t)blockIdx.x * c + tile.channel());
    }
}

// Whether (value, pixel) comes before (best, winner): the larger one; of equal ones the first; a NaN, of several the last.
__device__ __forceinline__ bool precedes(float value, int pixel, float best, int winner) {
    if (isnan(value) || isnan(best)) return isnan(value) && (!isnan(best) || pixel > winner);
    return value > best || (value == best && pixel < winner);
}

template <int V>
__device__ __forceinline__ void max_cells(
    const float *x, float *y, float *winners, int c, const Cells &rows, const Cells &columns, float *shared) {
    const Tile<V> tile(c);
    const Cell cell(rows, columns);
    const float *const from = x + (size_t)cell.image * rows.size * columns.size * c + tile.channel();
    float best[V];
    int winner[V];
    // A row without a pixel takes its neighbour's.
    for (int n = min(tile.row, cell.count - 1), turn = 0; tile.works() && n < cell.count; n += tile.rows, turn++) {
        const int pixel = cell.pixel(n, columns.size);
        const auto value = Values<V>::load(from + (size_t)pixel * c);
        for (int k = 0; k < V; k++) {
            if (turn == 0 || precedes(value.at[k], pixel, best[k], winner[k])) best[k] = value.at[k], winner[k] = pixel;
        }
    }
    tile.tree(
        [&] {
            for (int k = 0; k < V; k++) {
                shared[k * THREADS + threadIdx.x] = best[k];
                shared[(V + k) * THREADS + threadIdx.x] = __int_as_float(winner[k]);
            }
        },
        [&](int other) {
            for (int k = 0; k < V; k++) {
                const float value = shared[k * THREADS + other];
                const int pixel = __float_as_int(shared[(V + k) * THREADS + other]);
                if (precedes(value, pixel, best[k], winner[k])) best[k] = value, winner[k] = pixel;
            }
        });
    if (tile.row == 0) {
        Values<V> value, place;
        for (int k = 0; k < V; k++) value.at[k] = best[k], place.at[k] = winner[k];
        value.store(y + (size_t)blockIdx.x * c + tile.channel());
        if (winners) place.store(winners + (size_t)blockIdx.x * c + tile.channel());
    }
}

template <int V, class F>
__device__ __forceinline__ void gather_cells(
    float *dx, int images, int c, int add, const Cells &rows, const Cells &columns, F take) {
    each_value<V>(images, rows.size, columns.size, c, [&](int image, int i, int j, int channel, unsigned index) {
        Values<V> sum = Values<V>::all(0.0f);
        const int last_o = rows.last(i), first_p = columns.first(j), last_p = columns.last(j);
        for (int o = rows.first(i); o <= last_o; o++) {
            for (int p = first_p; p <= last_p; p++) {
                const size_t at = ((size_t)(image * rows.outputs + o) * columns.outputs + p) * c + channel;
                take(sum, o, p, i * columns.size + j, at);
            }
        }
        sum.put(dx + index, add);
    });
}

template <int V>
__device__ __forceinline__ void mean_cells_backward(
    const float *dy, float *dx, int images, int c, int add, const Cells &rows, const Cells &columns) {
    gather_cells<V>(dx, images, c, add, rows, columns, [&](Values<V> &sum, int o, int p, int, size_t at) {
        const float share = 1.0f / (float)((rows.end(o) - rows.begin(o)) * (columns.end(p) - columns.begin(p)));
        const auto value = Values<V>::load(dy + at);
        for (int k = 0; k < V; k++) sum.at[k] += share * value.at[k];
    });
}

template <int V>
__device__ __forceinline__ void max_cells_backward(
    const float *dy, const float *winners, float *dx, int images, int c, int add, const Cells &rows, const Cells &columns) {
    gather_cells<V>(dx, images, c, add, rows, columns, [&](Values<V> &sum, int, int, int pixel, size_t at) {
        const auto value = Values<V>::load(dy + at), winner = Values<V>::load(winners + at);
        for (int k = 0; k < V; k++) sum.at[k] += winner.at[k] == (float)pixel ? value.at[k] : 0.0f;
    });
}

}  // namespace

// Grid: (images·oh·ow, ⌈columns/64⌉), columns = c/4 where c is a multiple of 4, else c.
extern "C" __global__ void __launch_bounds__(THREADS)
    pool_adaptive_mean_forward(const float *x, float *y, int h, int w, int c, int oh, int ow) {
    __shared__ float shared[4 * THREADS];
#define BODY(V) mean_cells<V>(x, y, c, {h, oh}, {w, ow}, shared);
    BY_VECTORS(c, BODY);
#undef BODY
}

// winners may be null. Grid: as pool_adaptive_mean_forward.
extern "C" __global__ void __launch_bounds__(THREADS)
    pool_adaptive_max_forward(const float *x, float *y, float *winners, int h, int w, int c, int oh, int ow) {
    __shared__ float shared[8 * THREADS];
#define BODY(V) max_cells<V>(x, y, winners, c, {h, oh}, {w, ow}, shared);
    BY_VECTORS(c, BODY);
#undef BODY
}

// Grid: per vector of dx. Four blocks: as in pool_max_backward.
extern "C" __global__ void __launch_bounds__(THREADS, 4) pool_adaptive_mean_backward(
    const float *dy, float *dx, int images, int h, int w, int c, int oh, int ow, int add) {
#define BODY(V) mean_cells_backward<V>(dy, dx, images, c, add, {h, oh}, {w, ow});
    BY_VECTORS(c, BODY);
#undef BODY
}

// Grid: per vector of dx.
extern "C" __global__ void __launch_bounds__(THREADS) pool_adaptive_max_backward(
    const float *dy, const float *winners, float *dx, int images, int h, int w, int c, int oh, int ow, int add) {
#define BODY(V) max_cells_backward<V>(dy, winners, dx, images, c, add, {h, oh}, {w, ow});
    BY_VECTORS(c, BODY);
#undef BODY
}

namespace {

// f[k] for 0 ≤ k < 6, else 0.
__device__ __forceinline__ float tap(int k) {
    const int from_end = min(k, 5 - k);
    return from_end < 0 ? 0.0f : from_end == 0 ? 1.0f / 32 : from_end == 1 ? 5.0f / 32 : 10.0f / 32;
}

// The place that a tap reads, which lies at `from` or, beyond an end of `size`, at its reflection.
__device__ __forceinline__ int reflect(int from, int size) {
    return from < 0 ? -from : from < size ? from : 2 * (size - 1) - from;
}

// What place i gives to the three outputs from i/2 − 1 on, over all their taps; 0 where there is no such output.
__device__ __forceinline__ void weights(int i, int size, float (&of)[3]) {
    const int outputs = size / 2, beyond = 2 * (size - 1) - i;
#pragma unroll
    for (int n = 0; n < 3; n++) {
        const int o = i / 2 - 1 + n, first = 2 * o - 2;
        float weight = tap(i - first);
        if (i == 1 || i == 2) weight += tap(-i - first);
        if (i < size - 1 && i >= size - 3) weight += tap(beyond - first);
        of[n] = o >= 0 && o < outputs ? weight : 0.0f;
    }
}

template <int V>
__device__ __forceinline__ void blur_forward(const float *x, float *y, int images, int h, int w, int c) {
    each_value<V>(images, h / 2, w / 2, c, [&](int image, int o, int p, int channel, unsigned index) {
        const float *const from = x + (size_t)image * h * w * c + channel;
        Values<V> sum = Values<V>::all(0.0f);
        for (int k = 0; k < 6; k++) {
            const float *const row = from + (size_t)reflect(2 * o - 2 + k, h) * w * c;
            Values<V> of_row = Values<V>::all(0.0f);
#pragma unroll
            for (int l = 0; l < 6; l++) {
                const auto value = Values<V>::load(row + (size_t)reflect(2 * p - 2 + l, w) * c);
                for (int v = 0; v < V; v++) of_row.at[v] += tap(l) * value.at[v];
            }
            for (int v = 0; v < V; v++) sum.at[v] += tap(k) * of_row.at[v];
        }
        sum.store(y + index);
    });
}

template <int V>
__device__ __forceinline__ void blur_backward(const float *dy, float *dx, int images, int h, int w, int c, int add) {
    const int rows = h / 2, columns = w / 2;
    each_value<V>(images, h, w, c, [&](int image, int i, int j, int channel, unsigned index) {
        Values<V> sum = Values<V>::all(0.0f);
        float down[3], across[3];
        weights(i, h, down);
        weights(j, w, across);
        const float *const from = dy + (size_t)image * rows * columns * c + channel;
#pragma unroll
        for (int a = 0; a < 3; a++) {
#pragma unroll
            for (int b = 0; b < 3; b++) {
                const float share = down[a] * across[b];
                if (share == 0.0f) continue;
                const int o = i / 2 - 1 + a, p = j / 2 - 1 + b;
                const auto value = Values<V>::load(from + (size_t)(o * columns + p) * c);
                for (int v = 0; v < V; v++) sum.at[v] += share * value.at[v];
            }
        }
        sum.put(dx + index, add);
    });
}

}  // namespace

// y: images × ⌊h/2⌋ × ⌊w/2⌋ × c; h and w are at least 3. Grid: per vector of y.
extern "C" __global__ void __launch_bounds__(THREADS)
    pool_blur_forward(const float *x, float *y, int images, int h, int w, int c) {
#define BODY(V) blur_forward<V>(x, y, images, h, w, c);
    BY_VECTORS(c, BODY);
#undef BODY
}

// Grid: per vector of dx.
extern "C" __global__ void __launch_bounds__(THREADS)
    pool_blur_backward(const float *dy, float *dx, int images, int h, int w, int c, int add) {
#define BODY(V) blur_backward<V>(dy, dx, images, h, w, c, add);
    BY_VECTORS(c, BODY);
#undef BODY
}
