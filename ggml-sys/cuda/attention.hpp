// Attention by cuDNN's fused kernels, which reach several times the rate of ggml's on recent cards.
// cuDNN is not needed to build, and its library is loaded when it is found at run time.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>
#include <map>
#include <memory>
#include <tuple>

namespace video {

// softmax(scale · q kᵀ) v over [heads][rows][size] values of F16. Strides are in values; those within a
// head's row are 1.
struct AttentionShape {
    int64_t heads, rows, keys, size;
    int64_t q_row, q_head;
    int64_t k_row, k_head;
    int64_t v_row, v_head;
    int64_t out_row, out_head;

    auto key() const {
        return std::tie(heads, rows, keys, size, q_row, q_head, k_row, k_head, v_row, v_head, out_row, out_head);
    }

    bool operator<(const AttentionShape & other) const { return key() < other.key(); }
};

struct AttentionPlan;
class Cudnn;

class Attention {
  public:
    Attention();
    ~Attention();

    // Whether cuDNN is there and has a kernel for this shape.
    bool prepare(const AttentionShape & shape);

    // For a shape that has been prepared.
    void run(const AttentionShape & shape, const void * q, const void * k, const void * v, void * out, float scale,
             cudaStream_t stream);

  private:
    std::unique_ptr<Cudnn>                                  cudnn;
    std::map<AttentionShape, std::unique_ptr<AttentionPlan>> plans;
    void *                                                  workspace       = nullptr;
    size_t                                                  workspace_bytes = 0;
};

} // namespace video
