// Forward convolution:
//
//   y[o, q] = b[q] + Σₖ Σᵢ w[k, i, q] · x[o·s + k·d − p, g·cin + i]        g: the group of output channel q
//
// as matrix products (gather.cuh) of n·oh·ow rows, q / groups columns, and sums over kh·kw·c / groups. A linear layer
// is the case of 1×1 kernels on 1×1 maps. Where there are too few tiles to fill a GPU, sums are cut into parts of
// k_part terms, a multiple of 16: part p of the sum is written to y + p·n·oh·ow·q, without bias, and `sum_parts` adds
// them up in order.
//
// Floor: 2·n·oh·ow·q·kh·kw·c / groups operations over the rate of f32.
//
// Grid: x: row tiles × column tiles, columns first, so that neighbouring blocks share pixels; z: groups × parts, groups
// first.

#include "conv_forward.cuh"

// Channels of a group in multiples of four, at multiples of 16 bytes.
FORWARD(conv_forward_128x128, Tile128x128, 4, 2)
FORWARD(conv_forward_128x64, Tile128x64, 4, 4)
FORWARD(conv_forward_128x32, Tile128x32, 4, 4)
FORWARD(conv_forward_64x32, Tile64x32, 4, 6)
// Any channels.
FORWARD(conv_forward_any_128x64, Tile128x64, 1, 3)
FORWARD(conv_forward_any_128x32, Tile128x32Any, 1, 4)
