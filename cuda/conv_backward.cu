// Gradients of a convolution.
//
//   dx[j, g·cin + i] = Σₖ Σ_q w[k, i, q] · dy[(j + p − k·d) / s, q]   over cells k that divide exactly, q of group g
//   dw[k, i, q] = Σₙ Σₒ x[o·s + k·d − p, g·cin + i] · dy[o, q]
//
// dx: matrix products as in the forward pass (gather.cuh), one for each class of pixels that share their cells
// (conv.cuh): up to n·⌈h/s⌉·⌈w/s⌉ rows, c / groups columns. dw: a product of kh·kw·c / groups rows and q / groups
// columns, with a sum over the n·oh·ow pixels of dy, cut into parts for want of tiles. In both, part p is written to
// `to + p · length` and `sum_parts` adds the parts up in order; with one part, `add` says whether the gradient is added
// to what is there.
//
// Floor: each as many operations as the forward pass.
//
// Grid: x: (dx: classes ×) row tiles × column tiles, columns first; z: groups × parts, groups first.

#include "conv_gradients.cuh"

// Channels of a group in multiples of four, at multiples of 16 bytes.
INPUT_GRADIENT(conv_dx_128x128, Tile128x128, 4, 2)
INPUT_GRADIENT(conv_dx_128x64, Tile128x64, 4, 4)
INPUT_GRADIENT(conv_dx_128x32, Tile128x32, 4, 4)
INPUT_GRADIENT(conv_dx_64x32, Tile64x32, 4, 6)
WEIGHT_GRADIENT(conv_dw_128x128, Tile128x128, 4, 2)
WEIGHT_GRADIENT(conv_dw_128x64, Tile128x64, 4, 4)
WEIGHT_GRADIENT(conv_dw_32x64, Tile32x64, 4, 8)
// Any channels.
INPUT_GRADIENT(conv_dx_any_128x32, Tile128x32Any, 1, 4)
WEIGHT_GRADIENT(conv_dw_any_32x64, Tile32x64Any, 1, 8)
