// Shared-memory tiles: transposes with and without padding, a matrix product, vector loads.

template <int PAD> __device__ void transpose(const float *x, float *y, int rows, int cols) {
    __shared__ float tile[32][32 + PAD];
    int c = blockIdx.x * 32 + threadIdx.x, r0 = blockIdx.y * 32;
    for (int r = threadIdx.y; r < 32; r += blockDim.y)
        if (r0 + r < rows && c < cols) tile[r][threadIdx.x] = x[(size_t)(r0 + r) * cols + c];
    __syncthreads();
    int r = r0 + threadIdx.x, c0 = blockIdx.x * 32;
    for (int k = threadIdx.y; k < 32; k += blockDim.y)
        if (r < rows && c0 + k < cols) y[(size_t)(c0 + k) * rows + r] = tile[threadIdx.x][k];
}
extern "C" __global__ void transpose_padded(const float *x, float *y, int rows, int cols) { transpose<1>(x, y, rows, cols); }
extern "C" __global__ void transpose_plain(const float *x, float *y, int rows, int cols) { transpose<0>(x, y, rows, cols); }

// c[m][n] = a[m][k] b[k][n]: 64 x 64 tiles, 4 x 4 per thread, 256 threads.
extern "C" __global__ void __launch_bounds__(256) matmul(const float *__restrict__ a, const float *__restrict__ b,
                                                         float *__restrict__ c, int m, int n, int k) {
    __shared__ float sa[16][64];
    __shared__ float sb[16][64];
    int t = threadIdx.x, row0 = blockIdx.y * 64, col0 = blockIdx.x * 64;
    int tr = t / 16 * 4, tc = t % 16 * 4;
    float acc[4][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        for (int i = t; i < 16 * 64; i += 256) {
            int r = i / 16, kk = i % 16;
            sa[kk][r] = row0 + r < m && k0 + kk < k ? a[(size_t)(row0 + r) * k + k0 + kk] : 0.0f;
            int kb = i / 64, cb = i % 64;
            sb[kb][cb] = k0 + kb < k && col0 + cb < n ? b[(size_t)(k0 + kb) * n + col0 + cb] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < 16; kk++) {
            float4 x = *(float4 *)&sa[kk][tr], y = *(float4 *)&sb[kk][tc];
            float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) acc[i][j] += xs[i] * ys[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            if (row0 + tr + i < m && col0 + tc + j < n) c[(size_t)(row0 + tr + i) * n + col0 + tc + j] = acc[i][j];
}

// Loads and stores of 4, 8 and 16 bytes at once, bytes and halves.
extern "C" __global__ void vectors(const uchar4 *bytes, const short2 *shorts, const float4 *floats, const double2 *doubles, float4 *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    uchar4 b = bytes[i];
    short2 s = shorts[i];
    float4 f = floats[i];
    double2 d = doubles[i];
    out[i] = make_float4(b.x + f.x, b.y * s.x + f.y, b.z - s.y + f.z, (float)(b.w + d.x * d.y) + f.w);
}
