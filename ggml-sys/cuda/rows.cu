#include "rows.hpp"

#include "ggml-cuda/common.cuh"

#include <algorithm>

namespace video {

namespace {

constexpr int64_t MOST_Z = 65535;

constexpr float TWO_PI_HIGH = 6.28125f;
constexpr float TWO_PI_LOW  = 1.9353071795864769e-3f;

// Angles reach hundreds of radians, where the fast sine is of no use: bring them to one turn first.
__device__ float2 rotation(float angle) {
    const float turns = rintf(angle * 0.15915494309189535f);
    const float a     = fmaf(-turns, TWO_PI_LOW, fmaf(-turns, TWO_PI_HIGH, angle));
    return make_float2(__cosf(a), __sinf(a));
}

// Of the threads of a row: all of a block, or one warp of it.
__device__ float row_sum(float value, float * warps) {
    value = warp_reduce_sum<WARP_SIZE>(value);
    if (blockDim.x == WARP_SIZE) {
        return value;
    }
    __syncthreads(); // `warps` may still be read from the last time
    if (threadIdx.x % WARP_SIZE == 0) {
        warps[threadIdx.x / WARP_SIZE] = value;
    }
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < blockDim.x / WARP_SIZE; ++i) {
        sum += warps[i];
    }
    return sum;
}

__device__ void store(void * row, bool is_half, int column, float4 v) {
    if (is_half) {
        half2 low  = __float22half2_rn(make_float2(v.x, v.y));
        half2 high = __float22half2_rn(make_float2(v.z, v.w));
        uint2 both;
        both.x = *(const uint32_t *) &low;
        both.y = *(const uint32_t *) &high;
        *(uint2 *) ((half *) row + column) = both;
    } else {
        *(float4 *) ((float *) row + column) = v;
    }
}

// One block a row, or one warp if rows are short; each thread keeps N times four neighbouring values.
template <int N, Norm KIND>
__global__ void normalize_kernel(Rows x, Rows out, const float * scale, const float * shift, Rope rope, bool silu,
                                 int64_t rows, int columns, float eps) {
    __shared__ float  warps[32];
    __shared__ float2 turns[128];
    const int64_t row = blockIdx.x * (int64_t) blockDim.y + threadIdx.y;
    if (row >= rows) {
        return;
    }
    const float * in  = (const float *) ((const char *) x.data + row * x.pitch);

    for (int pair = threadIdx.x; pair < rope.head / 2; pair += blockDim.x) {
        float2 turn = make_float2(1, 0);
        for (int s = 0; s < rope.count; ++s) {
            const Rope::Section & section = rope.sections[s];
            const int             inside  = 2 * pair - section.start;
            if (inside >= 0 && inside < section.dims) {
                turn = rotation(section.positions[row] * exp2f(-section.log2_theta * inside / section.dims));
            }
        }
        turns[pair] = turn;
    }

    float4 v[N];
    float  sum = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int column = 4 * (i * blockDim.x + threadIdx.x);
        v[i]             = column < columns ? *(const float4 *) (in + column) : make_float4(0, 0, 0, 0);
        sum += KIND == Norm::Layer ? v[i].x + v[i].y + v[i].z + v[i].w :
                                     v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
    }
    float mean  = 0;
    float power = row_sum(sum, warps) / columns;
    if (KIND == Norm::Layer) {
        mean = power;
        sum  = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (4 * (i * blockDim.x + threadIdx.x) < columns) {
                v[i] = make_float4(v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean);
                sum += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
            }
        }
        power = row_sum(sum, warps) / columns;
    }
    const float factor = rsqrtf(power + eps);

    void * to = (char *) out.data + row * out.pitch;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int column = 4 * (i * blockDim.x + threadIdx.x);
        if (column >= columns) {
            continue;
        }
        const float4 s = *(const float4 *) (scale + column);
        float4       y = make_float4(v[i].x * factor * s.x, v[i].y * factor * s.y, v[i].z * factor * s.z,
                                     v[i].w * factor * s.w);
        if (shift) {
            const float4 b = *(const float4 *) (shift + column);
            y              = make_float4(y.x + b.x, y.y + b.y, y.z + b.z, y.w + b.w);
        }
        if (rope.count) {
            const float2 * turn = turns + column % rope.head / 2;
            y = make_float4(y.x * turn[0].x - y.y * turn[0].y, y.x * turn[0].y + y.y * turn[0].x,
                            y.z * turn[1].x - y.w * turn[1].y, y.z * turn[1].y + y.w * turn[1].x);
        }
        if (silu) {
            y = make_float4(y.x / (1 + __expf(-y.x)), y.y / (1 + __expf(-y.y)), y.z / (1 + __expf(-y.z)),
                            y.w / (1 + __expf(-y.w)));
        }
        store(to, out.half, column, y);
    }
}

__global__ void add_gated_kernel(Rows x, Rows y, const float * gate, Rows out, int64_t rows, int columns) {
    const int     column = 4 * (blockIdx.y * blockDim.x + threadIdx.x);
    const int64_t row    = blockIdx.x * (int64_t) blockDim.y + threadIdx.y;
    if (column >= columns || row >= rows) {
        return;
    }
    const float4 a = *(const float4 *) ((const char *) x.data + row * x.pitch + column * sizeof(float));
    float4       b = *(const float4 *) ((const char *) y.data + row * y.pitch + column * sizeof(float));
    if (gate) {
        const float4 g = *(const float4 *) (gate + column);
        b              = make_float4(b.x * g.x, b.y * g.y, b.z * g.z, b.w * g.w);
    }
    store((char *) out.data + row * out.pitch, false, column, make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w));
}

// Eight values a thread; blocks are as wide as fits rows of `eights` threads.
__global__ void copy_kernel(Cube x, Cube out, int eights, int64_t ne1) {
    const int     i0 = 8 * (blockIdx.y * blockDim.x + threadIdx.x);
    const int64_t i1 = blockIdx.x * (int64_t) blockDim.y + threadIdx.y;
    const int64_t i2 = blockIdx.z;
    if (i0 >= 8 * eights || i1 >= ne1) {
        return;
    }
    const int64_t from = i0 + i1 * x.stride1 + i2 * x.stride2;
    const int64_t to   = i0 + i1 * out.stride1 + i2 * out.stride2;
    if (x.half && out.half) {
        *(uint4 *) ((half *) out.data + to) = *(const uint4 *) ((const half *) x.data + from);
        return;
    }
    float v[8];
    if (x.half) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            v[j] = __half2float(((const half *) x.data)[from + j]);
        }
    } else {
        *(float4 *) v       = *(const float4 *) ((const float *) x.data + from);
        *(float4 *) (v + 4) = *(const float4 *) ((const float *) x.data + from + 4);
    }
    if (out.half) {
        half2 h[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            h[j] = __float22half2_rn(make_float2(v[2 * j], v[2 * j + 1]));
        }
        *(uint4 *) ((half *) out.data + to) = *(const uint4 *) h;
    } else {
        *(float4 *) ((float *) out.data + to)     = *(const float4 *) v;
        *(float4 *) ((float *) out.data + to + 4) = *(const float4 *) (v + 4);
    }
}

template <Norm KIND, int N = 1>
void launch_normalize(Rows x, Rows out, const float * scale, const float * shift, const Rope & rope, bool silu,
                      int64_t rows, int columns, float eps, dim3 block, cudaStream_t stream) {
    if constexpr (N <= 8) {
        if (4 * N * block.x < columns) {
            launch_normalize<KIND, N + 1>(x, out, scale, shift, rope, silu, rows, columns, eps, block, stream);
            return;
        }
        const int64_t blocks = (rows + block.y - 1) / block.y;
        normalize_kernel<N, KIND><<<blocks, block, 0, stream>>>(x, out, scale, shift, rope, silu, rows, columns, eps);
    } else {
        GGML_ABORT("%d columns", columns);
    }
}

} // namespace

void normalize(Norm kind, Rows x, Rows out, const float * scale, const float * shift, const Rope & rope, bool silu,
               int64_t rows, int64_t columns, float eps, cudaStream_t stream) {
    // Rotations are shared by all threads of a block, which is one row then.
    const bool short_rows = columns <= 32 * WARP_SIZE && rope.count == 0;
    const dim3 block      = short_rows ? dim3(WARP_SIZE, 8) : dim3(columns < 2048 ? 128 : 256);
    if (kind == Norm::Layer) {
        launch_normalize<Norm::Layer>(x, out, scale, shift, rope, silu, rows, columns, eps, block, stream);
    } else {
        launch_normalize<Norm::Rms>(x, out, scale, shift, rope, silu, rows, columns, eps, block, stream);
    }
    CUDA_CHECK(cudaGetLastError());
}

void add_gated(Rows x, Rows y, const float * gate, Rows out, int64_t rows, int64_t columns, cudaStream_t stream) {
    const dim3 block(128, 2);
    const dim3 grid((rows + block.y - 1) / block.y, (columns / 4 + block.x - 1) / block.x);
    add_gated_kernel<<<grid, block, 0, stream>>>(x, y, gate, out, rows, columns);
    CUDA_CHECK(cudaGetLastError());
}

void copy(Cube x, Cube out, const int64_t ne[3], cudaStream_t stream) {
    const int64_t eights = ne[0] / 8;
    const int     width  = std::min<int64_t>(eights, 128);
    const dim3    block(width, 256 / width);
    const int64_t across = (eights + width - 1) / width;
    // The grid's third dimension is short.
    for (int64_t i2 = 0; i2 < ne[2]; i2 += MOST_Z) {
        const int64_t depth = std::min(ne[2] - i2, MOST_Z);
        const auto    from  = [&](Cube c) {
            c.data = (char *) c.data + i2 * c.stride2 * (c.half ? sizeof(half) : sizeof(float));
            return c;
        };
        const dim3 grid((ne[1] + block.y - 1) / block.y, across, depth);
        copy_kernel<<<grid, block, 0, stream>>>(from(x), from(out), eights, ne[1]);
    }
    CUDA_CHECK(cudaGetLastError());
}

} // namespace video
