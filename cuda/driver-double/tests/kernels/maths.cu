// Functions of CUDA C++ whose code the compiler brings along: slow paths, tables, calls.
#include <cmath>

// What cuda_fp16.h and cuda_bf16.h would say: their headers need a fifth wheel.
__device__ unsigned short half_of(float v) {
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
__device__ float float_of(unsigned short h) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
}
__device__ unsigned short half_add(unsigned short a, unsigned short b) {
    unsigned short d;
    asm("add.f16 %0, %1, %2;" : "=h"(d) : "h"(a), "h"(b));
    return d;
}

template <class F> __device__ void each(const float *x, float *y, int n, F f) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = f(x[i]);
}

#define UNARY(name, expression) \
    extern "C" __global__ void name(const float *x, float *y, int n) { \
        each(x, y, n, [](float v) { return (float)(expression); }); \
    }

UNARY(f_exp, expf(v))
UNARY(f_log, logf(v))
UNARY(f_tanh, tanhf(v))
UNARY(f_erf, erff(v))
UNARY(f_pow, powf(fabsf(v), 1.7f))
UNARY(f_sin, sinf(v))
UNARY(f_cos, cosf(v))
UNARY(f_sqrt, sqrtf(fabsf(v)))
UNARY(f_rsqrt, rsqrtf(fabsf(v)))
UNARY(f_recip, 1.0f / v)
UNARY(f_log1p, log1pf(fabsf(v)))
UNARY(f_expm1, expm1f(v))
UNARY(f_cbrt, cbrtf(v))
UNARY(f_atan, atanf(v))
UNARY(f_fmod, fmodf(v, 0.7f))
UNARY(f_rint, rintf(v) + floorf(v) * 3.0f + ceilf(v) * 5.0f + truncf(v) * 7.0f + roundf(v) * 11.0f)
UNARY(f_gelu, 0.5f * v * (1.0f + erff(v * 0.70710678f)))
UNARY(f_fast, __expf(v) + __logf(fabsf(v) + 1.0f) + __sinf(v) + __fdividef(v, 3.0f) + __frcp_rn(v))
UNARY(f_round, __fadd_rz(v, 1e-8f) + __fmul_ru(v, 1.1f) + __fmaf_rd(v, v, 0.3f) + __fdiv_ru(v, 3.0f) + __fsqrt_rd(fabsf(v)))
UNARY(f_half, float_of(half_add(half_of(v), half_of(0.5f))))
UNARY(f_d_exp, exp((double)v))
UNARY(f_d_log, log(fabs((double)v)))
UNARY(f_d_pow, pow(fabs((double)v), 1.3))
UNARY(f_d_sin, sin((double)v * 1e6))
UNARY(f_d_sqrt, sqrt(fabs((double)v)))
UNARY(f_d_div, 1.0 / (double)v)
UNARY(f_d_tanh, tanh((double)v))

// Integer division and remainder of every width and sign, bit tricks, 64-bit products.
extern "C" __global__ void integers(const int *a, const int *b, long long *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int x = a[i], y = b[i];
    unsigned ux = x, uy = y;
    long long lx = (long long)x * 1234567891011ll, ly = y;
    unsigned long long ulx = lx, uly = uy;
    long long *o = out + (size_t)i * 20;
    o[0] = x / y;
    o[1] = x % y;
    o[2] = ux / uy;
    o[3] = ux % uy;
    o[4] = lx / ly;
    o[5] = lx % ly;
    o[6] = ulx / uly;
    o[7] = ulx % uly;
    o[8] = x / 7 + x % 13;
    o[9] = __mulhi(x, y);
    o[10] = __umulhi(ux, uy);
    o[11] = (long long)__umul64hi(ulx, uly);
    o[12] = __popc(ux) + __clz(x) * 100 + __ffs(x) * 10000;
    o[13] = __brev(ux);
    o[14] = __funnelshift_l(ux, uy, y & 31);
    o[15] = __byte_perm(ux, uy, 0x5140);
    o[16] = min(x, y) + max(ux, uy) + abs(x);
    o[17] = (short)x * (short)y + (signed char)x;
    o[18] = __clzll(lx) + __popcll(lx) * 1000;
    o[19] = __dp4a(x, y, 5) + (x << (y & 31)) + (x >> (y & 15)) + (int)(lx >> (y & 63));
}

// A parameter passed by value, indexed by a variable, and a table in constant memory.
struct Shape {
    int n, h, w, c;
    float scale[5];
    long long stride;
    unsigned char flags[3];
};
__constant__ float table[4] = {1.5f, -2.0f, 0.25f, 8.0f};
__device__ int calls = 5;
extern "C" __global__ void by_value(Shape s, const float *x, float *y, short k) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= s.n * s.h * s.w * s.c) return;
    int c = i % s.c, w = i / s.c % s.w, h = i / s.c / s.w % s.h;
    float local[6];
    for (int j = 0; j < 6; j++) local[j] = x[i] * j + h;
    y[i] = local[(w + k) % 6] * s.scale[(c + h) % 5] + table[i % 4] + s.flags[i % 3] + (float)s.stride + calls;
}

// A switch: the compiler may make a table of branches of it.
extern "C" __global__ void pick(const int *which, float *y) {
    int i = threadIdx.x;
    float v = i;
    switch (which[i]) {
    case 0: v = sqrtf(v); break;
    case 1: v = v * v; break;
    case 2: v += 3.0f; break;
    case 3: v = expf(-v); break;
    case 4: v = -v; break;
    case 5: v = v * 0.5f - 1.0f; break;
    case 6: v = floorf(v / 3.0f); break;
    case 7: for (int k = 0; k < i; k++) v = v * 0.9f + k; break;
    default: v = 1e9f;
    }
    y[i] = v;
}

// A loop whose length differs from lane to lane, with a call that is not inlined inside.
__device__ __noinline__ int collatz_step(int v) { return v % 2 ? 3 * v + 1 : v / 2; }
extern "C" __global__ void collatz(const int *x, int *steps) {
    int v = x[threadIdx.x], count = 0;
    while (v != 1) {
        v = collatz_step(v);
        count++;
        if (count > 1000) break;
    }
    steps[threadIdx.x] = count;
}
