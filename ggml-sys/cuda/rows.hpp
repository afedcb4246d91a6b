// Kernels over rows of a matrix: what lies between a transformer's matrix products and its attention.
// A row is normalized, rotated or added in one pass over memory, where a graph's single operations
// would make three to six.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>

namespace video {

// Rows of F32 or F16 values, `pitch` bytes apart.
struct Rows {
    void * data;
    size_t pitch;
    bool   half;
};

// Rotates pairs of neighbouring channels of each head: a section of `dims` channels from `start` on
// by the row's own position.
struct Rope {
    struct Section {
        int             start;
        int             dims;
        const int32_t * positions;
        float           log2_theta;
    };
    Section sections[3];
    int     count = 0;
    int     head  = 0; // channels of a head
};

enum class Norm { Layer, Rms };

// A row in registers: more columns than this are not for these kernels.
constexpr int64_t MOST_COLUMNS = 8192;

// out = silu(rope(norm(x) * scale + shift)); `shift` may be null. `x` and `out` may be the same rows.
void normalize(Norm kind, Rows x, Rows out, const float * scale, const float * shift, const Rope & rope, bool silu,
               int64_t rows, int64_t columns, float eps, cudaStream_t stream);

// out = x + y * gate, all F32; `gate` may be null. `out` may be `x` or `y`.
void add_gated(Rows x, Rows y, const float * gate, Rows out, int64_t rows, int64_t columns, cudaStream_t stream);

// Three dimensions of values, with the strides of the outer two in values.
struct Cube {
    void *  data;
    int64_t stride1;
    int64_t stride2;
    bool    half;
};

// out = x, for [ne2][ne1][ne0] values with ne0 a multiple of 8.
void copy(Cube x, Cube out, const int64_t ne[3], cudaStream_t stream);

} // namespace video
