// Images of a batch, from the bytes that the dataset holds: moved, mirrored and normalised as the loader does it.
//
//   y[image][row][column][c] = table[c][x[image][back(row + top)][back(column′ + left)][c]]
//
// column′ is column, or width − 1 − column where the image is mirrored. back reflects a position outside of the image, the
// edge repeated (−1 → 0) or, by edge_once, not repeated (−1 → 1); top and left move it by less than height and width.
//
// table has the number of each byte in each channel, 3 × 256 as the host computed them, so that the images are the host's to
// the bit. x, y: images × height × width × 3. A placement for each image.
#include "common.cuh"

struct Placement {
    int top, left, flip, edge_once;
};

__device__ __forceinline__ int back(int position, int length, int edge_once) {
    if (position < 0) position = -position - (edge_once ? 0 : 1);
    return position < length ? position : 2 * length - (edge_once ? 2 : 1) - position;
}

extern "C" __global__ void __launch_bounds__(THREADS) input_pixels(
    const unsigned char *x, const Placement *placements, const float *table, float *y, int images, int height, int width) {
    const int line = 3 * width, image_length = height * line;
    const unsigned n = (unsigned)images * image_length;
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        const int image = i / image_length, in_image = i % image_length;
        const int row = in_image / line, in_line = in_image % line, column = in_line / 3, c = in_line % 3;
        const Placement at = placements[image];
        const int from_row = back(row + at.top, height, at.edge_once);
        const int from_column = back((at.flip ? width - 1 - column : column) + at.left, width, at.edge_once);
        y[i] = table[c * 256 + x[image * image_length + from_row * line + from_column * 3 + c]];
    }
}
