// Softmax and cross-entropy on dense targets, one loss per image.
//
// With log pⱼ = xⱼ − log Σₖ exp xₖ (the maximum subtracted first) and targets t:
//
//   y = −Σⱼ tⱼ·log pⱼ
//   dxⱼ = (pⱼ·Σₖ tₖ − tⱼ)·dy
//   dtⱼ = −log pⱼ·dy
//
// x, t, log_p, targets, dx, dt: images × classes; y, dy: images. Blocks of 128 threads, a warp for each image.
// Grid: ⌈images/4⌉.
#include "common.cuh"

namespace {

constexpr int LOSS_THREADS = 128, LANES = 32;
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ int image_of_warp() { return (blockIdx.x * LOSS_THREADS + threadIdx.x) / LANES; }

__device__ __forceinline__ float warp_sum(float value) {
    for (int step = LANES / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

}  // namespace

// log_p and targets (a copy of t) are for the backward pass: both null where none follows.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS) loss_cross_entropy_forward(
    const float *x, const float *t, float *y, float *log_p, float *targets, int images, int classes) {
    const int image = image_of_warp(), lane = threadIdx.x % LANES;
    if (image >= images) return;
    const size_t start = (size_t)image * classes;
    float top = -INFINITY;
    for (int j = lane; j < classes; j += LANES) top = fmaxf(top, x[start + j]);
    for (int step = LANES / 2; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(ALL, top, step));
    float sum = 0.0f;
    for (int j = lane; j < classes; j += LANES) sum += expf(x[start + j] - top);
    // Less the maximum, so that a score as large as it keeps its digits.
    const float log_sum = logf(warp_sum(sum));
    float loss = 0.0f;
    for (int j = lane; j < classes; j += LANES) {
        const float value = (x[start + j] - top) - log_sum, target = t[start + j];
        loss -= target * value;
        if (log_p) log_p[start + j] = value, targets[start + j] = target;
    }
    loss = warp_sum(loss);
    if (lane == 0) y[image] = loss;
}

// dx and dt are each null where nobody needs it, written or added. targets: as saved.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS) loss_cross_entropy_backward(
    const float *log_p, const float *targets, const float *dy, float *dx, int add_dx, float *dt, int add_dt, int images,
    int classes) {
    const int image = image_of_warp(), lane = threadIdx.x % LANES;
    if (image >= images) return;
    const size_t start = (size_t)image * classes;
    float total = 0.0f;
    for (int j = lane; j < classes; j += LANES) total += targets[start + j];
    total = warp_sum(total);
    const float factor = dy[image];
    for (int j = lane; j < classes; j += LANES) {
        const size_t i = start + j;
        if (dx) {
            const float value = (expf(log_p[i]) * total - targets[i]) * factor;
            dx[i] = add_dx ? dx[i] + value : value;
        }
        if (dt) {
            const float value = -log_p[i] * factor;
            dt[i] = add_dt ? dt[i] + value : value;
        }
    }
}
