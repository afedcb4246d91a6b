#include "attention.hpp"

#include "ggml-cuda/common.cuh"

#include <dlfcn.h>

#include <vector>

namespace video {

// The part of cuDNN's backend interface that is used here, so that its headers aren't needed: names and
// numbers are those of cudnn_graph.h, version 9.
namespace {

using Status     = int;
using Descriptor = void *;
using Handle     = void *;

constexpr Status SUCCESS = 0;
// The first version with attention as one operation.
constexpr size_t OLDEST  = 91301;

enum DescriptorType {
    ENGINEHEUR     = 4,
    ENGINECFG      = 3,
    EXECUTION_PLAN = 5,
    OPERATIONGRAPH = 15,
    VARIANT_PACK   = 16,
    TENSOR         = 17,
    SDPA_FORWARD   = 41,
};

enum AttributeType {
    TYPE_HANDLE     = 0,
    TYPE_DATA_TYPE  = 1,
    TYPE_BOOLEAN    = 2,
    TYPE_INT64      = 3,
    TYPE_VOID_PTR   = 6,
    TYPE_HEUR_MODE  = 8,
    TYPE_DESCRIPTOR = 15,
};

enum Attribute {
    ENGINEHEUR_MODE               = 200,
    ENGINEHEUR_OPERATION_GRAPH    = 201,
    ENGINEHEUR_RESULTS            = 202,
    EXECUTION_PLAN_HANDLE         = 400,
    EXECUTION_PLAN_ENGINE_CONFIG  = 401,
    EXECUTION_PLAN_WORKSPACE_SIZE = 402,
    OPERATIONGRAPH_HANDLE         = 800,
    OPERATIONGRAPH_OPS            = 801,
    TENSOR_BYTE_ALIGNMENT         = 900,
    TENSOR_DATA_TYPE              = 901,
    TENSOR_DIMENSIONS             = 902,
    TENSOR_STRIDES                = 903,
    TENSOR_UNIQUE_ID              = 906,
    TENSOR_IS_BY_VALUE            = 908,
    VARIANT_PACK_UNIQUE_IDS       = 1000,
    VARIANT_PACK_DATA_POINTERS    = 1001,
    VARIANT_PACK_WORKSPACE        = 1003,
    SDPA_Q                        = 2800,
    SDPA_K                        = 2801,
    SDPA_V                        = 2802,
    SDPA_OUT                      = 2803,
    SDPA_SCALE                    = 2805,
};

constexpr int DATA_FLOAT  = 0;
constexpr int DATA_HALF   = 2;
constexpr int HEUR_MODE_A = 3;

// Names of the tensors in a plan.
constexpr int64_t IDS[] = { 1, 2, 3, 4, 5 };
enum { Q, K, V, OUT, SCALE };

} // namespace

class Cudnn {
  public:
    // Null where the library is missing or too old.
    static std::unique_ptr<Cudnn> load() {
        void * library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            GGML_LOG_INFO("attention: no cuDNN (%s), ggml's own kernels are used\n", dlerror());
            return nullptr;
        }
        auto cudnn = std::unique_ptr<Cudnn>(new Cudnn);
        bool found = true;
        const auto find = [&](auto & function, const char * name) {
            function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
            found    = found && function;
        };
        size_t (*version)() = nullptr;
        find(version, "cudnnGetVersion");
        find(cudnn->create_handle, "cudnnCreate");
        find(cudnn->destroy_handle, "cudnnDestroy");
        find(cudnn->set_stream, "cudnnSetStream");
        find(cudnn->create, "cudnnBackendCreateDescriptor");
        find(cudnn->destroy, "cudnnBackendDestroyDescriptor");
        find(cudnn->set, "cudnnBackendSetAttribute");
        find(cudnn->get, "cudnnBackendGetAttribute");
        find(cudnn->finalize, "cudnnBackendFinalize");
        find(cudnn->execute, "cudnnBackendExecute");
        if (!found || version() < OLDEST || cudnn->create_handle(&cudnn->handle) != SUCCESS) {
            GGML_LOG_INFO("attention: this cuDNN can't be used, ggml's own kernels are\n");
            return nullptr;
        }
        GGML_LOG_INFO("attention: cuDNN %zu\n", version());
        return cudnn;
    }

    ~Cudnn() {
        if (handle) {
            destroy_handle(handle);
        }
    }

    Handle handle = nullptr;

    Status (*create_handle)(Handle *)                                                             = nullptr;
    Status (*destroy_handle)(Handle)                                                              = nullptr;
    Status (*set_stream)(Handle, cudaStream_t)                                                    = nullptr;
    Status (*create)(DescriptorType, Descriptor *)                                                = nullptr;
    Status (*destroy)(Descriptor)                                                                 = nullptr;
    Status (*set)(Descriptor, Attribute, AttributeType, int64_t, const void *)                    = nullptr;
    Status (*get)(const Descriptor, Attribute, AttributeType, int64_t, int64_t *, void *)         = nullptr;
    Status (*finalize)(Descriptor)                                                                = nullptr;
    Status (*execute)(Handle, Descriptor, Descriptor)                                             = nullptr;
};

namespace {

// A descriptor under construction; the first failure is remembered.
class Made {
  public:
    Made(const Cudnn & cudnn, DescriptorType type) : cudnn(&cudnn) { status = cudnn.create(type, &raw); }

    Made(Made && other) noexcept : raw(other.raw), status(other.status), cudnn(other.cudnn) { other.raw = nullptr; }

    Made(const Made &)             = delete;
    Made & operator=(const Made &) = delete;

    ~Made() {
        if (raw) {
            cudnn->destroy(raw);
        }
    }

    Made & with(Attribute attribute, AttributeType type, int64_t count, const void * values) {
        if (status == SUCCESS) {
            status = cudnn->set(raw, attribute, type, count, values);
        }
        return *this;
    }

    Made & with(Attribute attribute, const Made & other) { return with(attribute, TYPE_DESCRIPTOR, 1, &other.raw); }

    bool finish() {
        if (status == SUCCESS) {
            status = cudnn->finalize(raw);
        }
        return status == SUCCESS;
    }

    Descriptor    raw    = nullptr;
    Status        status = SUCCESS;
    const Cudnn * cudnn;
};

Made tensor(const Cudnn & cudnn, int64_t id, int type, const int64_t (&dims)[4], const int64_t (&strides)[4],
            bool by_value) {
    const int64_t alignment = by_value ? 4 : 16;
    Made          made(cudnn, TENSOR);
    made.with(TENSOR_DATA_TYPE, TYPE_DATA_TYPE, 1, &type)
        .with(TENSOR_DIMENSIONS, TYPE_INT64, 4, dims)
        .with(TENSOR_STRIDES, TYPE_INT64, 4, strides)
        .with(TENSOR_UNIQUE_ID, TYPE_INT64, 1, &id)
        .with(TENSOR_BYTE_ALIGNMENT, TYPE_INT64, 1, &alignment);
    if (by_value) {
        made.with(TENSOR_IS_BY_VALUE, TYPE_BOOLEAN, 1, &by_value);
    }
    made.finish();
    return made;
}

} // namespace

struct AttentionPlan {
    Made    plan;
    int64_t workspace = 0;
};

namespace {

std::unique_ptr<AttentionPlan> make_plan(const Cudnn & cudnn, const AttentionShape & s) {
    const auto half = [&](int id, int64_t rows, int64_t row, int64_t head) {
        return tensor(cudnn, IDS[id], DATA_HALF, { 1, s.heads, rows, s.size }, { s.heads * head, head, row, 1 }, false);
    };
    const Made q     = half(Q, s.rows, s.q_row, s.q_head);
    const Made k     = half(K, s.keys, s.k_row, s.k_head);
    const Made v     = half(V, s.keys, s.v_row, s.v_head);
    const Made out   = half(OUT, s.rows, s.out_row, s.out_head);
    const Made scale = tensor(cudnn, IDS[SCALE], DATA_FLOAT, { 1, 1, 1, 1 }, { 1, 1, 1, 1 }, true);

    Made operation(cudnn, SDPA_FORWARD);
    operation.with(SDPA_Q, q).with(SDPA_K, k).with(SDPA_V, v).with(SDPA_OUT, out).with(SDPA_SCALE, scale);
    if (!operation.finish()) {
        GGML_LOG_DEBUG("attention: cuDNN's operation: status %d\n", operation.status);
        return nullptr;
    }
    Made graph(cudnn, OPERATIONGRAPH);
    graph.with(OPERATIONGRAPH_HANDLE, TYPE_HANDLE, 1, &cudnn.handle).with(OPERATIONGRAPH_OPS, operation);
    if (!graph.finish()) {
        GGML_LOG_DEBUG("attention: cuDNN's graph: status %d\n", graph.status);
        return nullptr;
    }
    Made heuristics(cudnn, ENGINEHEUR);
    heuristics.with(ENGINEHEUR_OPERATION_GRAPH, graph).with(ENGINEHEUR_MODE, TYPE_HEUR_MODE, 1, &HEUR_MODE_A);
    if (!heuristics.finish()) {
        GGML_LOG_DEBUG("attention: cuDNN's heuristics: status %d\n", heuristics.status);
        return nullptr;
    }
    // The first proposal that can be built.
    std::vector<Made>       configs;
    std::vector<Descriptor> raw;
    for (int i = 0; i < 8; ++i) {
        configs.emplace_back(cudnn, ENGINECFG);
        raw.push_back(configs.back().raw);
    }
    int64_t count = 0;
    cudnn.get(heuristics.raw, ENGINEHEUR_RESULTS, TYPE_DESCRIPTOR, raw.size(), &count, raw.data());
    for (int64_t i = 0; i < std::min<int64_t>(count, raw.size()); ++i) {
        Made plan(cudnn, EXECUTION_PLAN);
        plan.with(EXECUTION_PLAN_HANDLE, TYPE_HANDLE, 1, &cudnn.handle)
            .with(EXECUTION_PLAN_ENGINE_CONFIG, TYPE_DESCRIPTOR, 1, &raw[i]);
        if (!plan.finish()) {
            continue;
        }
        int64_t workspace = 0, one = 0;
        cudnn.get(plan.raw, EXECUTION_PLAN_WORKSPACE_SIZE, TYPE_INT64, 1, &one, &workspace);
        return std::unique_ptr<AttentionPlan>(new AttentionPlan{ std::move(plan), workspace });
    }
    GGML_LOG_DEBUG("attention: cuDNN proposes nothing of %d\n", (int) count);
    return nullptr;
}

} // namespace

Attention::Attention() : cudnn(Cudnn::load()) {}

Attention::~Attention() {
    plans.clear();
    if (workspace) {
        CUDA_CHECK(cudaFree(workspace));
    }
}

bool Attention::prepare(const AttentionShape & shape) {
    if (!cudnn) {
        return false;
    }
    auto found = plans.find(shape);
    if (found == plans.end()) {
        found = plans.emplace(shape, make_plan(*cudnn, shape)).first;
    }
    return found->second != nullptr;
}

void Attention::run(const AttentionShape & shape, const void * q, const void * k, const void * v, void * out,
                    float scale, cudaStream_t stream) {
    AttentionPlan & plan = *plans.at(shape);
    if (workspace_bytes < (size_t) plan.workspace) {
        if (workspace) {
            CUDA_CHECK(cudaFree(workspace));
        }
        workspace_bytes = plan.workspace;
        CUDA_CHECK(cudaMalloc(&workspace, workspace_bytes));
    }
    const void * pointers[] = { q, k, v, out, &scale };
    Made         pack(*cudnn, VARIANT_PACK);
    pack.with(VARIANT_PACK_UNIQUE_IDS, TYPE_INT64, 5, IDS)
        .with(VARIANT_PACK_DATA_POINTERS, TYPE_VOID_PTR, 5, pointers)
        .with(VARIANT_PACK_WORKSPACE, TYPE_VOID_PTR, 1, &workspace);
    bool done = pack.finish() && cudnn->set_stream(cudnn->handle, stream) == SUCCESS;
    done      = done && cudnn->execute(cudnn->handle, plan.plan.raw, pack.raw) == SUCCESS;
    if (!done) {
        GGML_LOG_ERROR("attention: cuDNN failed (status %d)\n", pack.status);
    }
}

} // namespace video
