// arch: compute_80
// Tensor cores by inline assembly (compute_80): bf16, f16, tf32, ldmatrix, an asynchronous pipeline.
#include <cstdint>

__device__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// One warp: d[16][8] = a[16][16] b[16][8], b given as [n][k].
extern "C" __global__ void mma_bf16(const uint16_t *a, const uint16_t *bt, float *d) {
    __shared__ __align__(16) uint16_t sa[16][24], sb[8][24];
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) sa[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += 32) sb[i / 16][i % 16] = bt[i];
    __syncthreads();
    uint32_t fa[4], fb[2];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3])
                 : "r"(shared_address(&sa[lane % 16][lane / 16 * 8])));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(fb[0]), "=r"(fb[1])
                 : "r"(shared_address(&sb[lane % 8][lane / 8 % 2 * 8])));
    float c[4] = {};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    int row = lane / 4, col = lane % 4 * 2;
    d[row * 8 + col] = c[0];
    d[row * 8 + col + 1] = c[1];
    d[(row + 8) * 8 + col] = c[2];
    d[(row + 8) * 8 + col + 1] = c[3];
}

// c[m][n] = a[m][k] b[n][k] in tf32, 16 x 8 tiles, a two-stage cp.async pipeline over k. m, n, k are multiples of 16, 8, 8.
extern "C" __global__ void mma_tf32_pipeline(const float *a, const float *b, float *c, int n, int k) {
    __shared__ __align__(16) float sa[2][16][12], sb[2][8][12];
    int lane = threadIdx.x, row0 = blockIdx.y * 16, col0 = blockIdx.x * 8;
    auto fetch = [&](int stage, int k0) {
        int r = lane / 2, q = lane % 2 * 4;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(&sa[stage][r][q])), "l"(a + (size_t)(row0 + r) * k + k0 + q));
        if (lane < 16)
            asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(shared_address(&sb[stage][r][q])), "l"(b + (size_t)(col0 + r) * k + k0 + q));
        asm volatile("cp.async.commit_group;");
    };
    float d[4] = {};
    fetch(0, 0);
    for (int k0 = 0, stage = 0; k0 < k; k0 += 8, stage ^= 1) {
        if (k0 + 8 < k) {
            fetch(stage ^ 1, k0 + 8);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        __syncthreads();
        int g = lane / 4, t = lane % 4;
        float raw[6] = {sa[stage][g][t], sa[stage][g + 8][t], sa[stage][g][t + 4], sa[stage][g + 8][t + 4], sb[stage][g][t], sb[stage][g][t + 4]};
        uint32_t f[6];
        for (int i = 0; i < 6; i++) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(f[i]) : "f"(raw[i]));
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(f[4]), "r"(f[5]));
        __syncthreads();
    }
    int row = row0 + lane / 4, col = col0 + lane % 4 * 2;
    c[row * n + col] = d[0];
    c[row * n + col + 1] = d[1];
    c[(row + 8) * n + col] = d[2];
    c[(row + 8) * n + col + 1] = d[3];
}

// Conversions of pairs, and arithmetic on them.
extern "C" __global__ void bf16_pairs(const float2 *x, uint32_t *y, float2 *back) {
    int i = threadIdx.x;
    uint32_t v, r, two_half = 0x3f004000u, one_minus = 0xbf803f80u;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(x[i].y), "f"(x[i].x));
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(v), "r"(two_half), "r"(one_minus));
    y[i] = r;
    back[i] = make_float2(__uint_as_float(r << 16), __uint_as_float(r & 0xffff0000u));
}

// One warp: f16 in, f32 or f16 sums: m16n8k8 (sm_75) and m16n8k16. a is [16][16], b [n][k], c and d [16][8].
extern "C" __global__ void mma_f16(const uint32_t *a, const uint32_t *bt, float *d8, float *d16, uint32_t *h8) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t fa[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]};
    uint32_t fb[2] = {bt[g * 8 + t], bt[g * 8 + t + 4]};
    float c[4] = {1, 2, 3, 4}, e[4] = {1, 2, 3, 4};
    uint32_t h[2] = {0x40003c00u, 0x44004200u};
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(fa[0]), "r"(fa[1]), "r"(fb[0]));
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(e[0]), "+f"(e[1]), "+f"(e[2]), "+f"(e[3])
                 : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3}, {%4}, {%0,%1};"
                 : "+r"(h[0]), "+r"(h[1]) : "r"(fa[0]), "r"(fa[1]), "r"(fb[0]));
    for (int i = 0; i < 4; i++) {
        int at = (g + i / 2 * 8) * 8 + t * 2 + i % 2;
        d8[at] = c[i];
        d16[at] = e[i];
    }
    h8[g * 4 + t] = h[0];
    h8[(g + 8) * 4 + t] = h[1];
}
