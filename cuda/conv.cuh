// What the kernels of convolutions share: shapes, and the windows that a launch goes through.
//
// With windows o, cells k, stride s, padding p, dilation d, along each axis:
//
//   y[o, q]  = b[q] + Σₖ Σᵢ w[k, i, q] · x[o·s + k·d − p, i]
//   dx[j, i] = Σₖ Σ_q w[k, i, q] · dy[(j + p − k·d) / s, q]        over the cells k for which the division is exact
//   dw[k, i, q] = Σₒ x[o·s + k·d − p, i] · dy[o, q]
//
// Both y and dx gather: every output is a sum over cells that step through the other map. For dx, the pixels j with one
// residue r = j mod s share their cells: k·d ≡ r + p (mod s), each d' = lcm(d, s) / d-th cell from the first one on.
// One more such cell lies lcm(d, s) / s pixels of dy further back. So dx is computed class by class of residues, and in
// each class it is a convolution of stride 1 over fewer cells: no product with a zero that a stride leaves between the
// pixels of dy.

#pragma once

// Maps are NHWC: x is [n, h, w, c], y is [n, oh, ow, q], weights are [kh, kw, c / groups, q]. s: strides, p: padding, d:
// dilation, down and across.
struct ConvShape {
    int n, h, w, c, oh, ow, q, kh, kw, sh, sw, ph, pw, dh, dw, groups;
};

// One axis of a sweep of windows over a map.
struct Axis {
    int windows;               // how many
    int begin, step;           // window i's cell t lies on the map's begin + i * step + t * reach
    int cells, reach;
    int size;                  // the map's side
    int kernel, kernel_step;   // cell t is the kernel's kernel + t * kernel_step
    int out, out_step;         // window i is the output's out + i * out_step
    int out_size;
};

__device__ __forceinline__ Axis forward_axis(int size, int out, int kernel, int stride, int pad, int dilation) {
    return {out, -pad, stride, kernel, dilation, size, 0, 1, 0, 1, out};
}

// The axis of dx for the pixels of one residue, over the map dy.
__device__ __forceinline__ Axis gradient_axis(int residue, int size, int out, int kernel, int stride, int pad,
                                              int dilation) {
    int first = 0, every = 1;
    while (first < kernel && (residue + pad - first * dilation) % stride != 0) first++;
    while (every * dilation % stride != 0) every++;
    Axis a;
    a.windows = (size - residue + stride - 1) / stride;
    a.begin = (residue + pad - first * dilation) / stride;
    a.step = 1;
    a.cells = first < kernel ? (kernel - first + every - 1) / every : 0;
    a.reach = -(every * dilation / stride);
    a.size = out;
    a.kernel = first;
    a.kernel_step = every;
    a.out = residue;
    a.out_step = stride;
    a.out_size = size;
    return a;
}

// A launch's windows, and the map that they gather from.
struct Sweep {
    Axis v, h;
    int channels;   // of the map
    int rows;       // windows on all images
};

__device__ __forceinline__ Sweep forward_sweep(const ConvShape &s) {
    Axis v = forward_axis(s.h, s.oh, s.kh, s.sh, s.ph, s.dh), h = forward_axis(s.w, s.ow, s.kw, s.sw, s.pw, s.dw);
    return {v, h, s.c, s.n * s.oh * s.ow};
}

// Strides beyond the map leave classes empty.
__device__ __forceinline__ int classes(const ConvShape &s) { return min(s.sh, s.h) * min(s.sw, s.w); }

__device__ __forceinline__ Sweep gradient_sweep(const ConvShape &s, int which) {
    int across = min(s.sw, s.w);
    Axis v = gradient_axis(which / across, s.h, s.oh, s.kh, s.sh, s.ph, s.dh);
    Axis h = gradient_axis(which % across, s.w, s.ow, s.kw, s.sw, s.pw, s.dw);
    return {v, h, s.q, s.n * v.windows * h.windows};
}

// A window: where its cell (0, 0) lies, inside the map or not, and the output's pixel that it is. Offsets wrap around
// where cells lie outside.
struct __align__(16) Place {
    unsigned at;   // offset of its first channel
    int y, x;
    int out;

    __device__ __forceinline__ void set(const Sweep &s, int image, int down, int across) {
        y = s.v.begin + down * s.v.step;
        x = s.h.begin + across * s.h.step;
        at = (unsigned)((image * s.v.size + y) * s.h.size + x) * s.channels;
        out = (image * s.v.out_size + s.v.out + down * s.v.out_step) * s.h.out_size + s.h.out + across * s.h.out_step;
    }

    // No cell of this one is inside of any map.
    __device__ __forceinline__ void nowhere() { at = 0, y = x = -(1 << 30), out = -1; }

    __device__ __forceinline__ bool inside(const Sweep &s, int dy, int dx) const {
        return (unsigned)(y + dy) < (unsigned)s.v.size && (unsigned)(x + dx) < (unsigned)s.h.size;
    }
};

// Window m of a sweep, and the ones behind it.
struct Walk {
    int image, down, across, m;

    __device__ __forceinline__ Walk(const Sweep &s, int m) : m(m) {
        across = m % s.h.windows;
        int rest = m / s.h.windows;
        down = rest % s.v.windows, image = rest / s.v.windows;
    }

    __device__ __forceinline__ Place place(const Sweep &s) const {
        Place p;
        if (m < s.rows) p.set(s, image, down, across);
        else p.nowhere();
        return p;
    }

    __device__ __forceinline__ void advance(const Sweep &s) {
        m++;
        if (++across < s.h.windows) return;
        across = 0;
        if (++down < s.v.windows) return;
        down = 0, image++;
    }
};

// Divides numbers below 2^31 by a number that is known when a kernel begins, with one multiplication: the quotient is
// (⌊n·m / 2³²⌋ + n) / 2^l with l = ⌈log₂ d⌉ and m = ⌊2³² (2^l − d) / d⌋ + 1.
struct Divisor {
    unsigned by, magic, shift;

    Divisor() = default;
    __device__ __forceinline__ explicit Divisor(int d) : by(d) {
        shift = d > 1 ? 32 - __clz(d - 1) : 0;
        magic = (unsigned)((((1ull << shift) - by) << 32) / by) + 1;
    }

    __device__ __forceinline__ void divide(unsigned n, int &quotient, int &rest) const {
        unsigned q = (__umulhi(n, magic) + n) >> shift;
        quotient = q;
        rest = n - q * by;
    }
};

template <int N> struct Lanes;
template <> struct Lanes<1> {
    static __device__ __forceinline__ void load(float *to, const float *from) { to[0] = __ldg(from); }
};
template <> struct Lanes<4> {
    static __device__ __forceinline__ void load(float *to, const float *from) {
        float4 v = __ldg(reinterpret_cast<const float4 *>(from));
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
};

// N neighbouring numbers, or zeros.
template <int N> __device__ __forceinline__ void load_or_zero(float *to, const float *from, bool there) {
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = 0.0f;
    if (there) Lanes<N>::load(to, from);
}
