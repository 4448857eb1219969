// What the families of kernels share: the element-wise skeleton, and tiles of channels for everything per channel.
//
// Sizes are ints: no tensor has 2^31 elements. Pointers are to 64-byte multiples, so that four neighbouring values at an
// index that is a multiple of 4 load as one float4. None is __restrict__: ops work in place.
#pragma once

// Threads of a block of every kernel that states nothing else.
constexpr int THREADS = 256;
// The most columns of a tile; see Tile.
constexpr int WIDEST = 64;

__device__ __forceinline__ float4 operator+(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

template <class F, class... X> __device__ __forceinline__ float4 of_four(F f, X... x) {
    return make_float4(f(x.x...), f(x.y...), f(x.z...), f(x.w...));
}

// y[i] = f(x[i]…), or that added, for i < n. A thread takes four values at a time, the last ones n % 4 threads one each.
// Grid: any number of blocks; min(⌈n/1024⌉, 65535) gives each thread one turn until there are very many.
template <class F, class... X> __device__ __forceinline__ void map(float *y, int n, int add, F f, const X *...x) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    float4 *const y4 = reinterpret_cast<float4 *>(y);
    for (int i = thread; i < n / 4; i += threads) {
        const float4 value = of_four(f, reinterpret_cast<const float4 *>(x)[i]...);
        y4[i] = add ? y4[i] + value : value;
    }
    if (thread < n % 4) {
        const int i = n - 1 - thread;
        const float value = f(x[i]...);
        y[i] = add ? y[i] + value : value;
    }
}

// V neighbouring channels of a pixel.
template <int V> struct Values {
    float at[V];

    __device__ __forceinline__ static Values load(const float *x) {
        Values v;
        if constexpr (V == 4) {
            const float4 four = *reinterpret_cast<const float4 *>(x);
            v.at[0] = four.x, v.at[1] = four.y, v.at[2] = four.z, v.at[3] = four.w;
        } else {
            v.at[0] = *x;
        }
        return v;
    }

    __device__ __forceinline__ static Values all(float value) {
        Values v;
        for (int k = 0; k < V; k++) v.at[k] = value;
        return v;
    }

    __device__ __forceinline__ void store(float *y) const {
        if constexpr (V == 4) {
            *reinterpret_cast<float4 *>(y) = make_float4(at[0], at[1], at[2], at[3]);
        } else {
            *y = at[0];
        }
    }

    // Stores, or adds to what is there.
    __device__ __forceinline__ void put(float *y, int add) const {
        Values sum = *this;
        if (add) {
            const Values old = load(y);
            for (int k = 0; k < V; k++) sum.at[k] = old.at[k] + at[k];
        }
        sum.store(y);
    }
};

// How a block's threads lie on `pixels × c` values: each keeps to one column of V channels, so that what belongs to a channel
// stays in registers, and walks from pixel to pixel; neighbouring threads have neighbouring columns, and with few columns
// neighbouring pixels behind them, so that a warp reads on without gaps.
//
// A map of c channels has c/V columns, in gridDim.y = ⌈columns/WIDEST⌉ tiles of about the same width, blockIdx.y being the
// tile; V is 4 where c is a multiple of 4, else 1.
template <int V> struct Tile {
    int columns, first, width, rows, row, column;

    __device__ __forceinline__ explicit Tile(int c) {
        columns = c / V;
        const int tiles = gridDim.y;
        const int share = tiles == 1 ? columns : ((columns + tiles - 1) / tiles + 7) / 8 * 8;
        first = blockIdx.y * share;
        width = min(share, columns - first);
        rows = THREADS / width;
        row = threadIdx.x / width;
        column = first + threadIdx.x % width;
    }

    // Whether the thread has a row: the last ones have none where the width does not divide THREADS.
    __device__ __forceinline__ bool works() const { return row < rows; }

    // The index of the thread's first channel.
    __device__ __forceinline__ int channel() const { return column * V; }

    // Calls merge(the thread that has the other half) for rows of a tree, until row 0 has everything. `publish` writes
    // what others read to shared memory.
    template <class P, class M> __device__ __forceinline__ void tree(P publish, M merge) const {
        int half = 1;
        while (half < rows) half *= 2;
        if (works()) publish();
        for (half /= 2; half >= 1; half /= 2) {
            __syncthreads();
            if (row < half && row + half < rows) {
                merge(threadIdx.x + half * width);
                publish();
            }
        }
    }
};

// Σ over the rows of a tile of `count` numbers per thread; row 0 gets the sums. `shared` has count·THREADS floats.
template <int COUNT, class T> __device__ __forceinline__ void sum_rows(const T &tile, float (&values)[COUNT], float *shared) {
    tile.tree(
        [&] {
            for (int k = 0; k < COUNT; k++) shared[k * THREADS + threadIdx.x] = values[k];
        },
        [&](int other) {
            for (int k = 0; k < COUNT; k++) values[k] += shared[k * THREADS + other];
        });
}

// The pixels of a block, of which `chunk` neighbouring ones are its own.
struct Range {
    unsigned begin, end;
    __device__ __forceinline__ Range(int pixels, int chunk) {
        begin = blockIdx.x * (unsigned)chunk;
        end = min(begin + chunk, (unsigned)pixels);
    }
};

// each(image, row, column, channel, index) for all values of images × rows × columns × c, V channels at a time.
template <int V, class F> __device__ __forceinline__ void each_value(int images, int rows, int columns, int c, F each) {
    const unsigned width = c / V, total = (unsigned)images * rows * columns * width, threads = gridDim.x * THREADS;
    for (unsigned v = blockIdx.x * THREADS + threadIdx.x; v < total; v += threads) {
        const unsigned pixel = v / width, line = pixel / columns, image = line / rows;
        each(image, line - image * rows, pixel - line * columns, (v - pixel * width) * V, v * V);
    }
}

// Columns and rows of a block of the kernels that merge partial results.
constexpr int FINISH_COLUMNS = 32, FINISH_ROWS = 8;

// Σ over the rows of a finishing block, in every row.
__device__ __forceinline__ double sum_over_rows(double value) {
    __shared__ double shared[FINISH_ROWS][FINISH_COLUMNS];
    __syncthreads();
    shared[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    double sum = 0.0;
    for (int row = 0; row < FINISH_ROWS; row++) sum += shared[row][threadIdx.x];
    return sum;
}

// Σ over a block of THREADS threads, in every one.
__device__ __forceinline__ double sum_block(double value) {
    constexpr int WARPS = THREADS / 32;
    __shared__ double shared[WARPS];
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    double sum = 0.0;
    for (int warp = 0; warp < WARPS; warp++) sum += shared[warp];
    return sum;
}

// Calls the body with V = 4 where c is a multiple of 4, else with V = 1.
#define BY_VECTORS(c, body)      \
    do {                         \
        if ((c) % 4 == 0) {      \
            body(4)              \
        } else {                 \
            body(1)              \
        }                        \
    } while (0)
