// arch: compute_80
// Convolutions on tensor cores: the products of conv.cu and conv_backward.cu, with operands rounded to tf32 and sums in
// f32 (tensor.cuh).
//
//   y[o, q]     = b[q] + Σₖ Σᵢ r(w[k, i, q]) · r(x[o·s + k·d − p, g·cin + i])       r: the nearest tf32
//   dx[j, i]    = Σₖ Σ_q r(w[k, i, q]) · r(dy[(j + p − k·d) / s, q])
//   dw[k, i, q] = Σₒ r(x[o·s + k·d − p, i]) · r(dy[o, q])
//
// Bias, parts of sums and what is added to stay f32. Channels of a group come in multiples of four; other shapes, and
// groups of few channels, are left to the kernels of f32. Parts, classes of pixels and grids are those of conv.cu and
// conv_backward.cu. Needs compute capability 8.0.
//
// Floor: each pass 2·n·oh·ow·q·kh·kw·c / groups operations over the rate of tf32.

#include "conv_forward.cuh"
#include "conv_gradients.cuh"
#include "tensor.cuh"

FORWARD(conv_tf32_forward_128x128, Tensor128x128, 4, 2)
FORWARD(conv_tf32_forward_128x64, Tensor128x64, 4, 3)
FORWARD(conv_tf32_forward_128x32, Tensor128x32, 4, 4)
FORWARD(conv_tf32_forward_64x32, Tensor64x32, 4, 6)
INPUT_GRADIENT(conv_tf32_dx_128x128, Tensor128x128, 4, 2)
INPUT_GRADIENT(conv_tf32_dx_128x64, Tensor128x64, 4, 3)
INPUT_GRADIENT(conv_tf32_dx_128x32, Tensor128x32, 4, 4)
INPUT_GRADIENT(conv_tf32_dx_64x32, Tensor64x32, 4, 6)
WEIGHT_GRADIENT(conv_tf32_dw_128x128, Tensor128x128, 4, 2)
WEIGHT_GRADIENT(conv_tf32_dw_128x64, Tensor128x64, 4, 3)
WEIGHT_GRADIENT(conv_tf32_dw_64x32, Tensor64x32, 4, 6)
