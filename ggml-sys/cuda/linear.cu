#include "linear.hpp"

#include "ggml-cuda/common.cuh"
#include "ggml-cuda/convert.cuh"

namespace video {

namespace {

constexpr size_t WORKSPACE = 64 << 20;

} // namespace

Scratch::~Scratch() {
    if (data) {
        CUDA_CHECK(cudaFree(data));
    }
}

void * Scratch::of(size_t wanted) {
    if (bytes < wanted) {
        if (data) {
            CUDA_CHECK(cudaFree(data));
        }
        CUDA_CHECK(cudaMalloc(&data, wanted));
        bytes = wanted;
    }
    return data;
}

Linear::Linear() {
    CUBLAS_CHECK(cublasLtCreate(&handle));
}

Linear::~Linear() {
    for (auto & [key, plan] : plans) {
        cublasLtMatrixLayoutDestroy(plan.weight);
        cublasLtMatrixLayoutDestroy(plan.x);
        cublasLtMatrixLayoutDestroy(plan.out);
        cublasLtMatmulDescDestroy(plan.operation);
    }
    cublasLtDestroy(handle);
}

bool Linear::takes(const ggml_tensor * weight) {
    const bool type = weight->type == GGML_TYPE_F16 ||
                      (ggml_is_quantized(weight->type) && ggml_get_to_fp16_cuda(weight->type) != nullptr);
    const bool matrix = weight->ne[2] == 1 && weight->ne[3] == 1 && ggml_is_contiguous(weight);
    return type && matrix && weight->ne[0] % 8 == 0;
}

Linear::Plan & Linear::plan(int64_t inputs, int64_t outputs, int64_t rows, Rows x, Rows out, bool bias, bool gelu) {
    const int64_t x_pitch   = x.pitch / sizeof(half);
    const int64_t out_pitch = out.pitch / (out.half ? sizeof(half) : sizeof(float));
    const Key     key(inputs, outputs, rows, x_pitch, out_pitch, out.half, bias, gelu);
    const auto    found = plans.find(key);
    if (found != plans.end()) {
        return found->second;
    }
    // cuBLAS counts columns first: its matrices are our rows, transposed.
    Plan                     plan;
    const cudaDataType_t     out_type  = out.half ? CUDA_R_16F : CUDA_R_32F;
    const cublasOperation_t  transpose = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue  = bias ? (gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS) :
                                                (gelu ? CUBLASLT_EPILOGUE_GELU : CUBLASLT_EPILOGUE_DEFAULT);
    CUBLAS_CHECK(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)));
    CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)));
    CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan.weight, CUDA_R_16F, inputs, outputs, inputs));
    CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan.x, CUDA_R_16F, inputs, rows, x_pitch));
    CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&plan.out, out_type, outputs, rows, out_pitch));

    cublasLtMatmulPreference_t preference;
    CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof(WORKSPACE)));
    cublasLtMatmulHeuristicResult_t result;
    int                             count = 0;
    CUBLAS_CHECK(cublasLtMatmulAlgoGetHeuristic(handle, plan.operation, plan.weight, plan.x, plan.out, plan.out, preference, 1, &result, &count));
    CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    GGML_ASSERT(count == 1 && "cuBLAS multiplies F16 matrices with rows of a multiple of 16 bytes");
    plan.algorithm = result.algo;
    return plans.emplace(key, plan).first->second;
}

void Linear::run(const ggml_tensor * weight, Rows x, Rows out, int64_t rows, const float * bias, bool gelu,
                 cudaStream_t stream) {
    const int64_t inputs = weight->ne[0], outputs = weight->ne[1];
    if (!x.half) {
        void *        values = operand.of(rows * inputs * sizeof(half));
        const int64_t ne[3]  = { inputs, rows, 1 };
        copy({ x.data, (int64_t) (x.pitch / sizeof(float)), 0, false }, { values, inputs, 0, true }, ne, stream);
        x = { values, inputs * sizeof(half), true };
    }
    const void * matrix = weight->data;
    if (weight->type != GGML_TYPE_F16) {
        half * values = (half *) unpacked.of(inputs * outputs * sizeof(half));
        ggml_get_to_fp16_cuda(weight->type)(weight->data, values, inputs * outputs, stream);
        matrix = values;
    }
    // The bias has the type of the result.
    const void * added = bias;
    if (bias && out.half) {
        void *        values = half_bias.of(outputs * sizeof(half));
        const int64_t ne[3]  = { outputs, 1, 1 };
        copy({ (void *) bias, 0, 0, false }, { values, 0, 0, true }, ne, stream);
        added = values;
    }
    Plan & plan = this->plan(inputs, outputs, rows, x, out, bias != nullptr, gelu);
    if (bias) {
        CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &added, sizeof(added)));
    }
    const float one = 1, zero = 0;
    CUBLAS_CHECK(cublasLtMatmul(handle, plan.operation, &one, matrix, plan.weight, x.data, plan.x, &zero, out.data,
                                plan.out, out.data, plan.out, &plan.algorithm, workspace.of(WORKSPACE), WORKSPACE, stream));
}

} // namespace video
