// Optimizers: one pass over the contiguous buffers of values, gradients and moments, which have one layout.
//
// What is updated is cut into pieces, runs of elements of one parameter, and a block takes one piece: what no piece covers,
// parameters that are frozen or unused, stays as it is. A piece's offset is a multiple of 4. Groups of parameters differ in
// the coefficients that a step's table has for them. With g the gradient plus coupled·p (coupled: λ where the decay is, else
// 0):
//
//   sgd         a ← μ·a + g; p ← p − lr·(d + decoupled·p), d being a, or g + μ·a where Nesterov; without momentum d = g
//   adam        m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g²; p ← p − (step·m/d + decay·p), d = √v·debias + eps; RAdam's
//               first steps go without d, SAdam's d is softplus(beta·d)/beta
//   rmsprop     v ← β·v + (1 − β)·g², d = √v + eps; p ← p − lr·(g/d + decoupled·p); with momentum in the place of g/d
//               a/d, a ← μ·a + g, or a ← μ·a + g/d
//   lamb        Adam's moments, p ← p − shrink·p, s = debias₁·m/d; p ← p − lr·min(‖p‖/‖s‖, 10)·s, norms per parameter
//   muon        of matrices: m ← μ·m + (1 − μ)·g, direction d = m, or g + μ·(m − g) where Nesterov, in the place of v; x = d/‖d‖,
//               some times x ← a·x + (b·G + c·G²)·x with G = x·xᵀ, by the kernels of linear layers; p ← p − (lr·size·x + lr·λ·p)
//   lookahead   slow ← slow + α·(fast − slow), fast ← slow
//   ema         average ← average + (1 − d)·(value − average)
//   clip        g ← g·min(1, max_norm/(‖g‖ + 1e-6)), ‖g‖ over all pieces
//
// Operations are those of src/optim in their order, and none is fused with another: results are the same bits as on the CPU,
// but for SAdam's softplus and Muon's products. Sums of squares are taken in f64 in an order that the pieces alone decide.
//
// Blocks have 256 threads. Grid "of pieces": as many blocks as pieces. Pieces of 4096 elements keep a GPU busy.
#include "common.cuh"

// A run of elements and its group.
struct Piece {
    int offset, len, group;
};

// A parameter: its pieces and its group.
struct Place {
    int first, count, group;
};

// One group's numbers in a step of SGD and RMSProp: the learning rate, and λ where it is added to the gradient and where it
// is added to the update.
struct Rate {
    float lr, coupled, decoupled;
};

// One group's numbers in a step of Adam: the factor of m/d, λ where it is added to the gradient, lr·λ where it is added to
// the step. Of LAMB: coupled, and decay for shrink.
struct Step {
    float step, coupled, decay;
};

// β₁, 1 − β₁, β₂, 1 − β₂, 1/√(1 − β₂ᵗ), and ε or, where it is added before the bias is taken out, ε times that.
struct Averages {
    float keep1, take1, keep2, take2, debias, eps;
};

namespace {

// The compiler fuses none of these.
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }

template <int V> __device__ __forceinline__ void put_back(const Values<V> &values, float *to) { values.store(to); }
template <int V> __device__ __forceinline__ void put_back(const Values<V> &, const float *) {}

// update(element of each buffer) for V elements from i on; what lies behind a pointer to const is only read.
template <int V, class F, class... P> __device__ __forceinline__ void update_at(F update, int i, P *...buffers) {
    const auto all = [&](auto... values) {
        for (int k = 0; k < V; k++) update(values.at[k]...);
        (put_back(values, buffers + i), ...);
    };
    all(Values<V>::load(buffers + i)...);
}

// The same for a block's piece.
template <class F, class... P>
__device__ __forceinline__ void update_piece(const Piece &piece, F update, P *...buffers) {
    const int end = piece.offset + piece.len, vectors_end = end - piece.len % 4;
    for (int i = piece.offset + 4 * threadIdx.x; i < vectors_end; i += 4 * THREADS) update_at<4>(update, i, buffers...);
    if (vectors_end + threadIdx.x < end) update_at<1>(update, vectors_end + threadIdx.x, buffers...);
}

__device__ __forceinline__ double square(float x) { return (double)x * x; }

__device__ __forceinline__ void average(const Averages &a, float &m, float &v, float g) {
    m = add(mul(a.keep1, m), mul(a.take1, g));
    v = add(mul(a.keep2, v), mul(mul(a.take2, g), g));
}

__device__ __forceinline__ float denominator(const Averages &a, float v) {
    return add(mul(__fsqrt_rn(v), a.debias), a.eps);
}

}  // namespace

// SGD without momentum; both kinds of decay are the same. Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS)
    optim_sgd(float *p, const float *g, const Piece *pieces, const Rate *rates) {
    const Piece piece = pieces[blockIdx.x];
    const Rate r = rates[piece.group];
    const float wd = add(r.coupled, r.decoupled);
    update_piece(piece, [=](float &p, float g) { p = sub(p, mul(r.lr, add(g, mul(wd, p)))); }, p, g);
}

// a: the moment. Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_sgd_momentum(
    float *p, float *a, const float *g, const Piece *pieces, const Rate *rates, float mu, int nesterov) {
    const Piece piece = pieces[blockIdx.x];
    const Rate r = rates[piece.group];
    const auto update = [=](float &p, float &a, float g) {
        g = add(g, mul(r.coupled, p));
        a = add(mul(mu, a), g);
        const float direction = nesterov ? add(g, mul(mu, a)) : a;
        p = sub(p, mul(r.lr, add(direction, mul(r.decoupled, p))));
    };
    update_piece(piece, update, p, a, g);
}

// m, v: the moments. kind: 0 m/d, 1 m, 2 m/(softplus(beta·d)/beta). Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_adam(
    float *p, float *m, float *v, const float *g, const Piece *pieces, const Step *steps, Averages averages, int kind,
    float beta) {
    const Piece piece = pieces[blockIdx.x];
    const Step s = steps[piece.group];
    const auto update = [=](float &p, float &m, float &v, float g) {
        average(averages, m, v, add(g, mul(s.coupled, p)));
        float direction = m;
        if (kind != 1) {
            float d = denominator(averages, v);
            if (kind == 2) {
                const float z = mul(beta, d);
                // Above 20 they are the same.
                d = z > 20.0f ? d : add(d, __fdiv_rn(log1pf(expf(-z)), beta));
            }
            direction = __fdiv_rn(m, d);
        }
        p = sub(p, add(mul(s.step, direction), mul(s.decay, p)));
    };
    update_piece(piece, update, p, m, v, g);
}

// v: the moment. keep: β; take: 1 − β. Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_rmsprop(
    float *p, float *v, const float *g, const Piece *pieces, const Rate *rates, float keep, float take, float eps) {
    const Piece piece = pieces[blockIdx.x];
    const Rate r = rates[piece.group];
    const auto update = [=](float &p, float &v, float g) {
        g = add(g, mul(r.coupled, p));
        v = add(mul(keep, v), mul(mul(take, g), g));
        const float d = add(__fsqrt_rn(v), eps);
        p = sub(p, mul(r.lr, add(__fdiv_rn(g, d), mul(r.decoupled, p))));
    };
    update_piece(piece, update, p, v, g);
}

// v, a: the moments. divide_first: a ← μ·a + g/d, not (μ·a + g)/d. Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_rmsprop_momentum(
    float *p, float *v, float *a, const float *g, const Piece *pieces, const Rate *rates, float keep, float take, float eps,
    float mu, int divide_first) {
    const Piece piece = pieces[blockIdx.x];
    const Rate r = rates[piece.group];
    const auto update = [=](float &p, float &v, float &a, float g) {
        g = add(g, mul(r.coupled, p));
        v = add(mul(keep, v), mul(mul(take, g), g));
        const float d = add(__fsqrt_rn(v), eps);
        a = add(mul(mu, a), divide_first ? __fdiv_rn(g, d) : g);
        p = sub(p, mul(r.lr, add(divide_first ? a : __fdiv_rn(a, d), mul(r.decoupled, p))));
    };
    update_piece(piece, update, p, v, a, g);
}

// LAMB's first pass: moments, decay, and squares: Σ p² and Σ s² of each piece. debias1: 1/(1 − β₁ᵗ). Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_lamb_moments(
    float *p, float *m, float *v, const float *g, const Piece *pieces, const Step *steps, Averages averages, float debias1,
    double *squares) {
    const Piece piece = pieces[blockIdx.x];
    const Step s = steps[piece.group];
    double of_p = 0.0, of_s = 0.0;
    const auto update = [&](float &p, float &m, float &v, float g) {
        average(averages, m, v, add(g, mul(s.coupled, p)));
        p = sub(p, mul(s.decay, p));
        of_p += square(p);
        of_s += square(__fdiv_rn(mul(debias1, m), denominator(averages, v)));
    };
    update_piece(piece, update, p, m, v, g);
    of_p = sum_block(of_p);
    of_s = sum_block(of_s);
    if (threadIdx.x == 0) squares[2 * blockIdx.x] = of_p, squares[2 * blockIdx.x + 1] = of_s;
}

// LAMB's rate of each piece: lr·min(‖p‖/‖s‖, 10), 1 in the place of the quotient where a norm is 0. lr: of each group. A warp
// for each place. Grid: ⌈count/8⌉.
extern "C" __global__ void __launch_bounds__(THREADS) optim_lamb_rates(
    const double *squares, const Place *places, int count, const double *lr, float *rates) {
    const int which = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (which >= count) return;
    const Place place = places[which];
    double p = 0.0, s = 0.0;
    for (int piece = place.first + lane; piece < place.first + place.count; piece += 32) {
        p += squares[2 * piece];
        s += squares[2 * piece + 1];
    }
    for (int step = 16; step > 0; step /= 2) {
        p += __shfl_xor_sync(0xffffffffu, p, step);
        s += __shfl_xor_sync(0xffffffffu, s, step);
    }
    const double trust = p == 0.0 || s == 0.0 ? 1.0 : fmin(sqrt(p / s), 10.0);
    for (int piece = place.first + lane; piece < place.first + place.count; piece += 32) {
        rates[piece] = lr[place.group] * trust;
    }
}

// LAMB's last pass. Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_lamb_step(
    float *p, const float *m, const float *v, const Piece *pieces, const float *rates, Averages averages, float debias1) {
    const float rate = rates[blockIdx.x];
    const auto update = [=](float &p, float m, float v) {
        p = sub(p, mul(rate, __fdiv_rn(mul(debias1, m), denominator(averages, v))));
    };
    update_piece(pieces[blockIdx.x], update, p, m, v);
}

// Muon's first pass over its matrices: the moment, the direction, and the squares of each piece of that. keep: μ; take: 1 − μ.
// Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_muon_moments(
    float *m, float *direction, const float *g, const Piece *pieces, float keep, float take, int nesterov, double *squares) {
    double sum = 0.0;
    const auto update = [&](float &m, float &direction, float g) {
        m = add(mul(keep, m), mul(take, g));
        direction = nesterov ? add(g, mul(keep, sub(m, g))) : m;
        sum += square(direction);
    };
    update_piece(pieces[blockIdx.x], update, m, direction, g);
    sum = sum_block(sum);
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

// What each matrix's direction is multiplied with: 1/‖d‖, the norm counting as 1e-7 at least. A warp for each place. Grid:
// ⌈count/8⌉.
extern "C" __global__ void __launch_bounds__(THREADS)
    optim_muon_factors(const double *squares, const Place *places, int count, float *factors) {
    const int which = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (which >= count) return;
    const Place place = places[which];
    double sum = 0.0;
    for (int piece = place.first + lane; piece < place.first + place.count; piece += 32) sum += squares[piece];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) factors[which] = 1.0 / fmax(sqrt(sum), 1e-7);
}

// x = factors[which]·d of one matrix of n numbers. Grid: min(⌈n/1024⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS)
    optim_muon_start(const float *direction, const float *factors, int which, float *x, int n) {
    const float factor = factors[which];
    map(x, n, 0, [=](float direction) { return mul(factor, direction); }, direction);
}

// y ← of_x·x + of_y·y. Grid: min(⌈n/1024⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS)
    optim_muon_blend(const float *x, float *y, int n, float of_x, float of_y) {
    map(y, n, 0, [=](float x, float y) { return add(mul(of_x, x), mul(of_y, y)); }, x, y);
}

// p ← p − (factor·x + shrink·p) of one matrix of n numbers, and the direction becomes x. Grid: min(⌈n/1024⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS)
    optim_muon_step(float *p, float *direction, const float *x, int n, float factor, float shrink) {
    map(p, n, 0, [=](float p, float x) { return sub(p, add(mul(factor, x), mul(shrink, p))); }, p, x);
    map(direction, n, 0, [=](float x) { return x; }, x);
}

// Grid: of pieces; states, too, are pieces.
extern "C" __global__ void __launch_bounds__(THREADS)
    optim_lookahead(float *fast, float *slow, const Piece *pieces, float alpha) {
    const auto update = [=](float &fast, float &slow) {
        slow = add(slow, mul(alpha, sub(fast, slow)));
        fast = slow;
    };
    update_piece(pieces[blockIdx.x], update, fast, slow);
}

// take: 1 − d. Grid: min(⌈n/1024⌉, 65535).
extern "C" __global__ void __launch_bounds__(THREADS) optim_ema(float *averages, const float *values, int n, float take) {
    map(
        averages, n, 0, [=](float average, float value) { return add(average, mul(take, sub(value, average))); }, averages,
        values);
}

// squares: Σ g² of each piece. Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_squares(const float *g, const Piece *pieces, double *squares) {
    double sum = 0.0;
    update_piece(pieces[blockIdx.x], [&](float g) { sum += square(g); }, g);
    sum = sum_block(sum);
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

// norm: ‖g‖ from the squares of `count` pieces; factor: what g is to be multiplied with, 1 where the norm is not finite.
// Grid: 1.
extern "C" __global__ void __launch_bounds__(THREADS)
    optim_clip_factor(const double *squares, int count, double max_norm, double *norm, float *factor) {
    double sum = 0.0;
    for (int piece = threadIdx.x; piece < count; piece += THREADS) sum += squares[piece];
    const double length = sqrt(sum_block(sum)), share = max_norm / (length + 1e-6);
    if (threadIdx.x == 0) {
        *norm = length;
        *factor = isfinite(length) && share < 1.0 ? share : 1.0;
    }
}

// g ← factor·g; nothing is touched where the factor is 1. Grid: of pieces.
extern "C" __global__ void __launch_bounds__(THREADS) optim_clip(float *g, const Piece *pieces, const float *factor) {
    const float by = *factor;
    if (by == 1.0f) return;
    update_piece(pieces[blockIdx.x], [=](float &g) { g = mul(g, by); }, g);
}
