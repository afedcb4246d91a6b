// ggml's CUDA backend, with faster ways for what video transformers spend their time on.
//
// Before a graph runs, chains of its nodes are matched that one step can compute (matcher.hpp). The rest is
// left to ggml, in order.

#include "matcher.hpp"
#include "profile.hpp"

#include "ggml-backend-impl.h"

#include <memory>
#include <mutex>

// ggml's own entry, renamed where it is compiled.
extern "C" ggml_backend_reg_t ggml_backend_init_of_ggml(void);

namespace video {
namespace {

// What belongs to one backend.
class State {
  public:
    explicit State(ggml_backend_t backend) : ggml(backend->iface) {}

    const ggml_backend_i ggml;

    ggml_status compute(ggml_backend_t backend, ggml_cgraph * graph) {
        auto * context = (ggml_backend_cuda_context *) backend->context;
        ggml_cuda_set_device(context->device);
        cudaStream_t  stream = context->stream();
        const Matcher matched(graph, attention);

        // Nodes from `begin` on are still to be left to ggml.
        int        begin = 0;
        const auto leave = [&](int end) {
            // For a profile, one by one.
            const int most = profile.on ? 1 : end - begin;
            for (; begin < end; begin += most) {
                ggml_cgraph  part = ggml_graph_view(graph, begin, begin + most);
                const char * name = ggml_op_desc(graph->nodes[begin]);
                profile.measure(name, stream, [&] { ggml.graph_compute(backend, &part); });
            }
        };
        for (size_t op = 0; op < matched.ops.size(); ++op) {
            if (matched.step_of[op] < 0) {
                continue;
            }
            const int at = matched.position[op];
            leave(at);
            begin              = at + 1;
            const Step & step = matched.steps[matched.step_of[op]];
            if (step.nodes.back() == (int) op) {
                profile.measure(NAMES[(int) step.kind], stream, [&] { run(step, matched, stream); });
            }
        }
        leave(graph->n_nodes);
        profile.collect();
        return GGML_STATUS_SUCCESS;
    }

  private:
    static bool is_half(const Matcher & matched, const ggml_tensor * t) {
        return t->type == GGML_TYPE_F16 || matched.narrow.count(base(t));
    }

    // The values of `t` as they lie in memory now.
    static Cube cube(const Matcher & matched, const ggml_tensor * t) {
        if (!matched.narrow.count(base(t))) {
            const size_t size = ggml_type_size(t->type);
            return { t->data, (int64_t) (t->nb[1] / size), (int64_t) (t->nb[2] / size), t->type == GGML_TYPE_F16 };
        }
        // Within a row, F16 values are neighbours; rows are as far apart as they would be in F32.
        const size_t pitch  = pitch_of(matched, base(t));
        const auto   stride = [&](int i) {
            const bool rows = t->nb[i] % pitch == 0;
            return (int64_t) (t->nb[i] / (rows ? sizeof(half) : sizeof(float)));
        };
        return { t->data, stride(1), stride(2), true };
    }

    static size_t pitch_of(const Matcher & matched, const ggml_tensor * narrow) {
        for (const Step & step : matched.steps) {
            if (step.out == narrow) {
                return step.pitch;
            }
        }
        GGML_ABORT("a narrow tensor is made by a step");
    }

    void run(const Step & step, const Matcher & matched, cudaStream_t stream) {
        const bool    half = matched.narrow.count(step.out);
        const Rows    out  = { step.out->data, step.pitch, half };
        const float * bias = step.bias ? (const float *) step.bias->data : nullptr;
        switch (step.kind) {
            case Kind::Normalize: {
                const ggml_tensor * node = matched.ops[step.nodes.front()];
                const Matrix        x(step.x);
                float               eps;
                memcpy(&eps, node->op_params, sizeof(eps));
                normalize(step.norm, { step.x->data, x.pitch, false }, out, (const float *) step.weight->data, bias,
                          step.rope, step.activated, x.count, x.columns, eps, stream);
                break;
            }
            case Kind::Linear: {
                const Rows x = { step.x->data, step.x->nb[1], is_half(matched, step.x) };
                linear.run(step.weight, x, out, ggml_nrows(step.x), bias, step.activated, stream);
                break;
            }
            case Kind::Attention: attend(step, matched, half, stream); break;
            case Kind::Add: {
                const Matrix  x(step.x), y(step.y);
                const float * gate = step.weight ? (const float *) step.weight->data : nullptr;
                add_gated({ step.x->data, x.pitch, false }, { step.y->data, y.pitch, false }, gate, out, x.count,
                          x.columns, stream);
                break;
            }
            case Kind::Copy: copy(cube(matched, step.x), cube(matched, step.out), step.x->ne, stream); break;
        }
    }

    void attend(const Step & step, const Matcher & matched, bool narrow, cudaStream_t stream) {
        const ggml_tensor * node   = step.out;
        const ggml_tensor * q      = step.x;
        const Cube          q_cube = cube(matched, q);
        const Cube out_cube = { node->data, node->ne[0], (int64_t) (node->nb[2] / (narrow ? sizeof(half) : sizeof(float))),
                                narrow };
        const AttentionShape dense = Matcher::dense(node);
        AttentionShape       shape = dense;
        if (q_cube.half) {
            shape.q_row  = q_cube.stride1;
            shape.q_head = q_cube.stride2;
        }
        if (narrow) {
            shape.out_head = out_cube.stride1;
            shape.out_row  = out_cube.stride2;
        }
        const bool in_place = attention.prepare(shape);
        if (!in_place) {
            shape = dense;
        }
        const size_t bytes     = ggml_nelements(q) * sizeof(half);
        void *       queries   = q->data;
        void *       attended  = node->data;
        const bool   copies_q  = !q_cube.half || !in_place;
        const bool   copies_out = !narrow || !in_place;
        if (copies_q) {
            queries = this->queries.of(bytes);
            copy(q_cube, { queries, dense.q_row, dense.q_head, true }, q->ne, stream);
        }
        if (copies_out) {
            attended = this->attended.of(bytes);
        }
        float scale;
        memcpy(&scale, node->op_params, sizeof(scale));
        attention.run(shape, queries, node->src[1]->data, node->src[2]->data, attended, scale, stream);
        if (copies_out) {
            copy({ attended, dense.out_head, dense.out_row, true }, out_cube, node->ne, stream);
        }
    }

    Attention attention;
    Linear    linear;
    Scratch   queries, attended;
    Profile   profile;
};

std::mutex                                                  mutex;
std::unordered_map<ggml_backend_t, std::unique_ptr<State>> states;

State & state_of(ggml_backend_t backend) {
    std::lock_guard<std::mutex> lock(mutex);
    return *states.at(backend);
}

ggml_status graph_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    return state_of(backend).compute(backend, graph);
}

void free_backend(ggml_backend_t backend) {
    const auto free = state_of(backend).ggml.free;
    {
        std::lock_guard<std::mutex> lock(mutex);
        states.erase(backend);
    }
    free(backend);
}

decltype(ggml_backend_device_i::init_backend) init_of_ggml = nullptr;

ggml_backend_t init_backend(ggml_backend_dev_t device, const char * params) {
    ggml_backend_t backend = init_of_ggml(device, params);
    if (!backend) {
        return nullptr;
    }
    const auto * context = (const ggml_backend_cuda_context *) backend->context;
    // Older cards than Ampere have other strengths.
    if (ggml_cuda_info().devices[context->device].cc < GGML_CUDA_CC_AMPERE) {
        return backend;
    }
    ggml_cuda_set_device(context->device);
    auto state = std::make_unique<State>(backend);
    backend->iface.graph_compute = graph_compute;
    backend->iface.free          = free_backend;
    std::lock_guard<std::mutex> lock(mutex);
    states.emplace(backend, std::move(state));
    return backend;
}

} // namespace
} // namespace video

// What a program that loads this library calls first.
extern "C" GGML_BACKEND_API ggml_backend_reg_t ggml_backend_init(void) {
    ggml_backend_reg_t reg = ggml_backend_init_of_ggml();
    for (size_t i = 0; reg && i < ggml_backend_reg_dev_count(reg); ++i) {
        ggml_backend_dev_t device = ggml_backend_reg_dev_get(reg, i);
        video::init_of_ggml       = device->iface.init_backend;
        device->iface.init_backend = video::init_backend;
    }
    return reg;
}
