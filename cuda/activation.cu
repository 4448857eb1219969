// Element-wise activations: y = f(x), dx = f′·dy.
//
// With σ(x) = 1/(1 + e⁻ˣ) and the normal distribution Φ, φ:
//
//   relu           max(x, 0)                        1 where y > 0, else 0
//   leaky_relu     x, slope·x below 0               1 where y > 0, else slope
//   general_relu   min(leaky_relu(x) − sub, maxv)   1 where y > −sub, else slope; 0 where y ≥ maxv
//   mish           x·t, t = n/(n + 2), n = e·(e + 2), e = eˣ      (n + x·4·e·(e + 1)/(n + 2))/(n + 2), of x
//   silu           x·σ(x)                           σ(x)·(1 + x·(1 − σ(x))), of x
//   sigmoid        σ(x)                             y·(1 − y)
//   tanh           tanh(x)                          1 − y²
//   gelu           x·Φ(x)                           Φ(x) + x·φ(x), of x
//   softplus       ln(1 + eˣ); x above 20           1 − e⁻ʸ; 1 above 20
//
// A NaN stays a NaN. At a kink the derivative is the limit from below.
//
// Every activation NAME has two kernels of 256 threads, on min(⌈n/1024⌉, 65535) blocks (any number is right):
//
//   activation_NAME_forward(x, y, n, slope, sub, maxv)
//   activation_NAME_backward(kept, dy, dx, n, add, slope, sub, maxv)
//
// x, y, dy, dx: n values; y may be x, dx may be dy. kept: x for mish, silu and gelu, y for the others. add: whether to add to
// dx.
// slope, sub, maxv: of leaky_relu (slope) and general_relu (all), read by no other; maxv is NaN where there is none.
#include "common.cuh"

namespace {

struct Settings {
    float slope, sub, maxv;
};

__device__ __forceinline__ float at_most_20(float x) { return x > 20.0f ? 20.0f : x; }

// By the exponential that does not overflow.
__device__ __forceinline__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

struct relu {
    static __device__ __forceinline__ float f(float x, Settings) { return x <= 0.0f ? 0.0f : x; }
    static __device__ __forceinline__ float df(float y, Settings) { return y > 0.0f ? 1.0f : 0.0f; }
};

struct leaky_relu {
    static __device__ __forceinline__ float f(float x, Settings s) { return x <= 0.0f ? x * s.slope : x; }
    static __device__ __forceinline__ float df(float y, Settings s) { return y > 0.0f ? 1.0f : s.slope; }
};

struct general_relu {
    static __device__ __forceinline__ float f(float x, Settings s) {
        const float y = leaky_relu::f(x, s) - s.sub;
        return y > s.maxv ? s.maxv : y;
    }
    static __device__ __forceinline__ float df(float y, Settings s) {
        return y >= s.maxv ? 0.0f : y > -s.sub ? 1.0f : s.slope;
    }
};

struct mish {
    static __device__ __forceinline__ float f(float x, Settings) {
        const float e = expf(at_most_20(x)), n = e * (e + 2.0f);
        return x * (n / (n + 2.0f));
    }
    // Above 20 it is 1 to the last digit.
    static __device__ __forceinline__ float df(float x, Settings) {
        x = at_most_20(x);
        const float e = expf(x), n = e * (e + 2.0f), share = 1.0f / (n + 2.0f);
        return share * (n + x * (4.0f * (e * (e + 1.0f)) * share));
    }
};

struct silu {
    static __device__ __forceinline__ float f(float x, Settings) { return x * sigmoid(x); }
    static __device__ __forceinline__ float df(float x, Settings) {
        const float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
};

struct sigmoid_of {
    static __device__ __forceinline__ float f(float x, Settings) { return sigmoid(x); }
    static __device__ __forceinline__ float df(float y, Settings) { return y * (1.0f - y); }
};

struct tanh_of {
    static __device__ __forceinline__ float f(float x, Settings) { return tanhf(x); }
    static __device__ __forceinline__ float df(float y, Settings) { return 1.0f - y * y; }
};

struct gelu {
    // Φ by erfc, which keeps its digits where Φ is small.
    static __device__ __forceinline__ float distribution(float x) { return 0.5f * erfcf(-0.70710678f * x); }
    static __device__ __forceinline__ float f(float x, Settings) { return x * distribution(x); }
    static __device__ __forceinline__ float df(float x, Settings) {
        return distribution(x) + x * (0.39894228f * expf(-0.5f * x * x));
    }
};

struct softplus {
    static __device__ __forceinline__ float f(float x, Settings) {
        const float soft = log1pf(expf(-fabsf(x))) + (x > 0.0f ? x : 0.0f);
        return x > 20.0f ? x : soft;
    }
    static __device__ __forceinline__ float df(float y, Settings) { return y > 20.0f ? 1.0f : -expm1f(-y); }
};

}  // namespace

#define ACTIVATION(name, pair)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) activation_##name##_forward(                                  \
        const float *x, float *y, int n, float slope, float sub, float maxv) {                                          \
        const Settings s = {slope, sub, maxv};                                                                          \
        map(y, n, 0, [=](float x) { return pair::f(x, s); }, x);                                                        \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) activation_##name##_backward(                                 \
        const float *kept, const float *dy, float *dx, int n, int add, float slope, float sub, float maxv) {            \
        const Settings s = {slope, sub, maxv};                                                                          \
        map(dx, n, add, [=](float kept, float dy) { return pair::df(kept, s) * dy; }, kept, dy);                        \
    }

ACTIVATION(relu, relu)
ACTIVATION(leaky_relu, leaky_relu)
ACTIVATION(general_relu, general_relu)
ACTIVATION(mish, mish)
ACTIVATION(silu, silu)
ACTIVATION(sigmoid, sigmoid_of)
ACTIVATION(tanh, tanh_of)
ACTIVATION(gelu, gelu)
ACTIVATION(softplus, softplus)
