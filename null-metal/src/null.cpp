// The null device: what stands below ggml's Metal encoder instead of Apple's framework. It answers
// as one of Apple's chips would, hands out addresses without memory, and tells an observer what would
// have been dispatched.

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml-metal-common.h"
#include "ggml-metal-context.h"
#include "ggml-metal-device.h"
#include "ggml-metal-fusion.h"
#include "ggml-metal-impl.h"
#include "ggml-metal-ops.h"
#include "ggml-metal.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

extern "C" {

struct null_metal_chip {
    const char * name;       // as the hardware calls itself: "Apple M1 Max"
    int          gpu_family; // n of MTLGPUFamilyApple<n>
    bool         has_tensor; // Metal 4's matrix units
    size_t       memory;     // recommendedMaxWorkingSetSize
};

struct null_metal_dispatch {
    const char * kernel;
    size_t       threadgroup_memory;
    int          grid[3];
    int          threads[3];
};

// what was encoded for some nodes that became one step; `graph` counts up
typedef void (*null_metal_observer)(uint64_t graph, ggml_tensor * const * nodes, int n_nodes,
                                    const null_metal_dispatch * dispatches, int n_dispatches);

ggml_backend_reg_t null_metal_register(const null_metal_chip * chip, null_metal_observer observer);

} // extern "C"

static null_metal_chip     g_chip;
static null_metal_observer g_observer;

static std::vector<null_metal_dispatch> g_dispatches;

// device

struct ggml_metal_device {
    ggml_metal_device_props  props;
    ggml_metal_library_t     library;
    ggml_metal_fusion_info * fusion;
};

struct ggml_metal_library {
    ggml_metal_device_t    device;
    ggml_metal_pipelines_t pipelines;
};

struct ggml_metal_pipeline {
    std::string kernel;
};

struct ggml_metal_cv {};

struct ggml_metal_encoder {
    ggml_metal_pipeline_t pipeline;
    size_t                threadgroup_memory;
};

extern "C" {

#include "plain-c.inc"

ggml_metal_device_t ggml_metal_device_init(int device, int) {
    auto * dev   = new ggml_metal_device{};
    auto & props = dev->props;

    snprintf(props.name, sizeof(props.name), "MTL%d", device);
    snprintf(props.desc, sizeof(props.desc), "%s", g_chip.name);
    props.device                     = device;
    props.device_virt                = device;
    props.max_buffer_size            = g_chip.memory / 4 * 3;
    props.max_working_set_size       = g_chip.memory;
    props.max_theadgroup_memory_size = 32 * 1024;
    props.has_simdgroup_reduction    = true;
    props.has_simdgroup_mm           = true;
    props.has_unified_memory         = true;
    props.has_bfloat                 = true;
    props.has_tensor                 = g_chip.has_tensor;
    props.use_shared_buffers         = true;
    props.device_id                  = ggml_metal_device_id_parse(g_chip.name);
    props.gpu_family                 = g_chip.gpu_family;
    props.op_offload_min_batch_size  = 32;

    dev->library = new ggml_metal_library{ dev, ggml_metal_pipelines_init() };
    dev->fusion  = ggml_metal_fusion_info_init(true, 0);
    return dev;
}

// the registry keeps its devices until the program ends
void ggml_metal_device_free(ggml_metal_device_t) {}

void * ggml_metal_device_get_obj  (ggml_metal_device_t) { return nullptr; }
void * ggml_metal_device_get_queue(ggml_metal_device_t) { return nullptr; }

ggml_metal_library_t ggml_metal_device_get_library(ggml_metal_device_t dev) { return dev->library; }

const ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t dev) { return &dev->props; }

ggml_metal_fusion_info * ggml_metal_device_get_fusion_info(ggml_metal_device_t dev) { return dev->fusion; }

void ggml_metal_device_get_memory(ggml_metal_device_t dev, size_t * free, size_t * total) {
    *free = *total = dev->props.max_working_set_size;
}

void ggml_metal_device_rsets_add(ggml_metal_device_t, ggml_metal_rset_t) {}
void ggml_metal_device_rsets_rm (ggml_metal_device_t, ggml_metal_rset_t) {}
void ggml_metal_device_rsets_keep_alive(ggml_metal_device_t) {}

// everything is done as soon as it is asked for, so there is nothing to wait for

ggml_metal_event_t ggml_metal_device_event_init(ggml_metal_device_t) { return nullptr; }
void ggml_metal_device_event_free       (ggml_metal_device_t, ggml_metal_event_t) {}
void ggml_metal_device_event_synchronize(ggml_metal_device_t, ggml_metal_event_t) {}
void ggml_metal_event_encode_signal(ggml_metal_event_t, ggml_metal_cmd_buf_t) {}
void ggml_metal_event_encode_wait  (ggml_metal_event_t, ggml_metal_cmd_buf_t) {}

// library: a pipeline is its kernel's name

ggml_metal_cv_t ggml_metal_cv_init(void) { return new ggml_metal_cv; }
void ggml_metal_cv_free(ggml_metal_cv_t cv) { delete cv; }
void ggml_metal_cv_set_int16(ggml_metal_cv_t, int16_t, int32_t) {}
void ggml_metal_cv_set_int32(ggml_metal_cv_t, int32_t, int32_t) {}
void ggml_metal_cv_set_bool (ggml_metal_cv_t, bool,    int32_t) {}

ggml_metal_pipeline_t ggml_metal_pipeline_init(void) { return new ggml_metal_pipeline; }
void ggml_metal_pipeline_free(ggml_metal_pipeline_t pipeline) { delete pipeline; }
int ggml_metal_pipeline_max_theads_per_threadgroup(ggml_metal_pipeline_with_params) { return 1024; }

ggml_metal_device_t ggml_metal_library_get_device(ggml_metal_library_t lib) { return lib->device; }

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline(ggml_metal_library_t lib, const char * name) {
    ggml_metal_pipeline_with_params res = {};
    res.pipeline = ggml_metal_pipelines_get(lib->pipelines, name);
    return res;
}

ggml_metal_pipeline_with_params ggml_metal_library_compile_pipeline(
        ggml_metal_library_t lib, const char * base, const char * name, ggml_metal_cv_t) {
    ggml_metal_pipeline_with_params res = {};
    res.pipeline         = ggml_metal_pipeline_init();
    res.pipeline->kernel = base;
    ggml_metal_pipelines_add(lib->pipelines, name, res.pipeline);
    return res;
}

// encoder

ggml_metal_encoder_t ggml_metal_encoder_init(ggml_metal_cmd_buf_t, bool) { return new ggml_metal_encoder{}; }
void ggml_metal_encoder_free(ggml_metal_encoder_t encoder) { delete encoder; }
void ggml_metal_encoder_debug_group_push(ggml_metal_encoder_t, const char *) {}
void ggml_metal_encoder_debug_group_pop (ggml_metal_encoder_t) {}
void ggml_metal_encoder_set_bytes (ggml_metal_encoder_t, void *, size_t, int) {}
void ggml_metal_encoder_set_buffer(ggml_metal_encoder_t, ggml_metal_buffer_id, int) {}
void ggml_metal_encoder_memory_barrier(ggml_metal_encoder_t) {}
void ggml_metal_encoder_end_encoding(ggml_metal_encoder_t) {}

void ggml_metal_encoder_set_pipeline(ggml_metal_encoder_t encoder, ggml_metal_pipeline_with_params pipeline) {
    *encoder = { pipeline.pipeline, 0 };
}

void ggml_metal_encoder_set_threadgroup_memory_size(ggml_metal_encoder_t encoder, size_t size, int) {
    encoder->threadgroup_memory += size;
}

void ggml_metal_encoder_dispatch_threadgroups(
        ggml_metal_encoder_t encoder, int tg0, int tg1, int tg2, int tptg0, int tptg1, int tptg2) {
    g_dispatches.push_back({ encoder->pipeline->kernel.c_str(), encoder->threadgroup_memory,
                             { tg0, tg1, tg2 }, { tptg0, tptg1, tptg2 } });
}

// buffers: small ones are memory, so that a probe of one value can be computed; others are addresses

static const size_t k_real = 64 * 1024;

struct ggml_metal_buffer {
    size_t size;
    bool   owned;
    char * base;
};

static bool is_real(const ggml_metal_buffer * buf) { return buf->owned && buf->size <= k_real; }

static char * place(const ggml_metal_buffer * buf, const ggml_tensor * tensor, size_t offset) {
    return is_real(buf) ? (char *) tensor->data + offset : nullptr;
}

ggml_metal_buffer_t ggml_metal_buffer_init(ggml_metal_device_t, size_t size, bool) {
    static std::atomic<uintptr_t> next{ (uintptr_t) 1 << 44 };
    auto * buf = new ggml_metal_buffer{ size, true, nullptr };
    buf->base  = is_real(buf) ? (char *) aligned_alloc(16384, k_real)
                              : (char *) next.fetch_add((size + 65535) / 65536 * 65536);
    return buf;
}

ggml_metal_buffer_t ggml_metal_buffer_map(ggml_metal_device_t, void * ptr, size_t size, size_t) {
    return new ggml_metal_buffer{ size, false, (char *) ptr };
}

void ggml_metal_buffer_free(ggml_metal_buffer_t buf) {
    if (is_real(buf)) {
        free(buf->base);
    }
    delete buf;
}

void * ggml_metal_buffer_get_base (ggml_metal_buffer_t buf) { return buf->base; }
bool   ggml_metal_buffer_is_shared(ggml_metal_buffer_t) { return true; }

void ggml_metal_buffer_memset_tensor(ggml_metal_buffer_t buf, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    if (char * to = place(buf, tensor, offset)) {
        memset(to, value, size);
    }
}

void ggml_metal_buffer_set_tensor(ggml_metal_buffer_t buf, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    if (char * to = place(buf, tensor, offset)) {
        memcpy(to, data, size);
    }
}

void ggml_metal_buffer_get_tensor(ggml_metal_buffer_t buf, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    if (const char * from = place(buf, tensor, offset)) {
        memcpy(data, from, size);
    } else {
        memset(data, 0, size);
    }
}

bool ggml_metal_buffer_cpy_tensor(ggml_metal_buffer_t, const ggml_tensor *, ggml_tensor *) { return true; }

void ggml_metal_buffer_clear(ggml_metal_buffer_t buf, uint8_t value) {
    if (is_real(buf)) {
        memset(buf->base, value, k_real);
    }
}

ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t buf, const ggml_tensor * t) {
    return { buf, (size_t) ((const char *) t->data - buf->base) };
}

// context

struct ggml_metal {
    ggml_metal_device_t device;
    uint64_t            graphs;
};

ggml_metal_t ggml_metal_init(ggml_metal_device_t dev) { return new ggml_metal{ dev, 0 }; }
void ggml_metal_free(ggml_metal_t ctx) { delete ctx; }
const char * ggml_metal_get_name(ggml_metal_t ctx) { return ctx->device->props.name; }
void ggml_metal_synchronize(ggml_metal_t) {}
void ggml_metal_event_record(ggml_metal_t, ggml_metal_event_t) {}
void ggml_metal_event_wait  (ggml_metal_t, ggml_metal_event_t) {}
ggml_metal_event_t ggml_metal_get_ev_cpy(ggml_metal_t) { return nullptr; }
void ggml_metal_set_n_cb(ggml_metal_t, int) {}
void ggml_metal_set_abort_callback(ggml_metal_t, ggml_abort_callback, void *) {}
bool ggml_metal_supports_family(ggml_metal_t ctx, int family) { return family <= ctx->device->props.gpu_family; }
void ggml_metal_capture_next_compute(ggml_metal_t) {}

static ggml_metal_buffer_t buffer_of(const ggml_tensor * t) {
    return (ggml_metal_buffer_t) (t->view_src ? t->view_src->buffer : t->buffer)->context;
}

void ggml_metal_set_tensor_async(ggml_metal_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    ggml_metal_buffer_set_tensor(buffer_of(tensor), tensor, data, offset, size);
}

void ggml_metal_get_tensor_async(ggml_metal_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    ggml_metal_buffer_get_tensor(buffer_of(tensor), tensor, data, offset, size);
}

bool ggml_metal_cpy_tensor_async(ggml_metal_t, ggml_metal_t, const ggml_tensor *, ggml_tensor *) { return false; }

void ggml_metal_graph_optimize(ggml_metal_t, ggml_cgraph * gf) { ggml_graph_optimize(gf); }

// encodes nodes [begin, end), as one command buffer would
static void encode(ggml_metal_t ctx, ggml_cgraph * gf, int begin, int end) {
    std::vector<ggml_tensor *> nodes;
    for (int i = begin; i < end; i++) {
        if (!ggml_op_is_empty(gf->nodes[i]->op) && !ggml_is_empty(gf->nodes[i])) {
            nodes.push_back(gf->nodes[i]);
        }
    }
    ggml_metal_op_t op = ggml_metal_op_init(ctx->device, nullptr, gf, ctx->device->fusion, begin, end, true, false, 0);
    GGML_ASSERT(ggml_metal_op_n_nodes(op) == (int) nodes.size());
    for (int idx = 0; idx < (int) nodes.size();) {
        g_dispatches.clear();
        if (!ggml_metal_device_supports_op(ctx->device, nodes[idx])) {
            // the encoder would end the process; the observer says what it was
            g_observer(ctx->graphs, &nodes[idx], 1, nullptr, 0);
            idx++;
            continue;
        }
        const int n = ggml_metal_op_encode(op, idx);
        GGML_ASSERT(n > 0 && "the encoder refused a node");
        g_observer(ctx->graphs, &nodes[idx], n, g_dispatches.data(), (int) g_dispatches.size());
        idx += n;
    }
    ggml_metal_op_free(op);
}

ggml_status ggml_metal_graph_compute(ggml_metal_t ctx, ggml_cgraph * gf) {
    if (gf->n_nodes == 1 && gf->nodes[0]->op == GGML_OP_SCALE && is_real(buffer_of(gf->nodes[0]))) {
        // the probe that tells whether the graph before went well
        const ggml_tensor * node = gf->nodes[0];
        float scale_bias[2];
        memcpy(scale_bias, node->op_params, sizeof(scale_bias));
        for (int64_t i = 0; i < ggml_nelements(node); i++) {
            ((float *) node->data)[i] = ((const float *) node->src[0]->data)[i] * scale_bias[0] + scale_bias[1];
        }
        return GGML_STATUS_SUCCESS;
    }
    ctx->graphs++;
    // Metal begins with the first nodes while it still encodes the others
    const int first = std::min(gf->n_nodes, std::max(64, gf->n_nodes / 10));
    encode(ctx, gf, 0, first);
    encode(ctx, gf, first, gf->n_nodes);
    return GGML_STATUS_SUCCESS;
}

ggml_backend_reg_t null_metal_register(const null_metal_chip * chip, null_metal_observer observer) {
    g_chip     = *chip;
    g_observer = observer;
    ggml_backend_reg_t reg = ggml_backend_metal_reg();
    ggml_backend_register(reg);
    return reg;
}

} // extern "C"
