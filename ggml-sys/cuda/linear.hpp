// Products of many rows with a weight: the weight is unpacked to F16 and multiplied by cuBLAS, which for
// hundreds of rows is several times faster than multiplying quantized blocks.
#pragma once

#include "rows.hpp"

#include <cublasLt.h>

#include <map>
#include <tuple>

struct ggml_tensor;

namespace video {

// Memory of one purpose that grows to the largest request.
class Scratch {
  public:
    ~Scratch();
    void * of(size_t bytes);

  private:
    void * data  = nullptr;
    size_t bytes = 0;
};

class Linear {
  public:
    Linear();
    ~Linear();

    // Whether weights of this type and shape are multiplied here.
    static bool takes(const ggml_tensor * weight);

    // out = gelu(x weightᵀ + bias); `bias` may be null. Sums are F32, operands F16.
    void run(const ggml_tensor * weight, Rows x, Rows out, int64_t rows, const float * bias, bool gelu,
             cudaStream_t stream);

  private:
    // Columns of both operands, rows, pitches, and what is done with the sums.
    using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, bool, bool, bool>;

    struct Plan {
        cublasLtMatmulDesc_t   operation;
        cublasLtMatrixLayout_t weight, x, out;
        cublasLtMatmulAlgo_t   algorithm;
    };

    Plan & plan(int64_t inputs, int64_t outputs, int64_t rows, Rows x, Rows out, bool bias, bool gelu);

    cublasLtHandle_t    handle = nullptr;
    std::map<Key, Plan> plans;
    Scratch             unpacked, operand, half_bias, workspace;
};

} // namespace video
