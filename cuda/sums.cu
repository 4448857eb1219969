// Sums in a fixed order, so that a run gives the same bits every time: no atomics.
//
//   column_sums: out[c] = Σᵣ x[r, c] over the rows of one part; the parts lie behind each other in `out`
//   sum_parts:   out[i] = Σₚ parts[p, i] (+ bias[i mod columns])
//
// `add`: the sums are added to what is in `out`, which otherwise may hold anything.
//
// Floor: reading each number once.

// Block: a power of two of columns along x, rows along y, 256 threads in all. Grid: x: columns, y: parts of rows_part
// rows.
extern "C" __global__ void __launch_bounds__(256)
    column_sums(const float *__restrict__ x, float *__restrict__ out, int rows, int columns, int rows_part, int add) {
    __shared__ float shared[256];
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int end = min(((int)blockIdx.y + 1) * rows_part, rows);
    float sum = 0.0f;
    if (column < columns) {
        // Four chains of additions, for four loads on their way at a time.
        float chains[4] = {};
        int r = blockIdx.y * rows_part + threadIdx.y;
        for (; r + 3 * (int)blockDim.y < end; r += 4 * blockDim.y) {
#pragma unroll
            for (int i = 0; i < 4; i++) chains[i] += x[(r + i * blockDim.y) * columns + column];
        }
        for (; r < end; r += blockDim.y) chains[0] += x[r * columns + column];
        sum = (chains[0] + chains[1]) + (chains[2] + chains[3]);
    }
    shared[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
            float *mine = shared + threadIdx.y * blockDim.x + threadIdx.x;
            *mine += mine[half * blockDim.x];
        }
    }
    if (threadIdx.y == 0 && column < columns) {
        float *at = out + blockIdx.y * columns + column;
        float total = shared[threadIdx.x];
        *at = add ? *at + total : total;
    }
}

// Grid: x: numbers. `bias` may be null.
extern "C" __global__ void __launch_bounds__(256)
    sum_parts(const float *__restrict__ parts, const float *__restrict__ bias, float *__restrict__ out, int length,
              int count, int columns, int add) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= length) return;
    float sum = 0.0f;
#pragma unroll 4
    for (int p = 0; p < count; p++) sum += parts[p * length + i];
    if (bias) sum += bias[i % columns];
    out[i] = add ? out[i] + sum : sum;
}
