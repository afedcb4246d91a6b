// Finds chains of a graph's nodes that one step can compute: norm, scale, shift, rotation and SiLU; matrix
// product, bias and GELU; attention; gated sums; copies.
//
// A result that only such steps read is kept in F16 (`narrow`), in the memory that ggml gave it and with
// the distance between rows that it would have in F32, so that a step may write over its own input.
#pragma once

#include "attention.hpp"
#include "linear.hpp"
#include "rows.hpp"

#include "ggml-cuda/common.cuh"
#include "ggml-impl.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace video {

// Products with fewer rows stay with ggml. A prompt has 512 tokens at most, and the activations of its
// encoder leave F16's range.
constexpr int64_t FEW_ROWS = 512;

struct Range {
    const char * begin;
    const char * end;

    explicit Range(const ggml_tensor * t) : begin((const char *) t->data), end(begin + ggml_nbytes(t)) {}

    bool overlaps(const Range & other) const { return begin < other.end && other.begin < end; }
};

inline bool is_view(const ggml_tensor * t) {
    return t->op == GGML_OP_RESHAPE || t->op == GGML_OP_VIEW || t->op == GGML_OP_PERMUTE || t->op == GGML_OP_TRANSPOSE;
}

// What a chain of views looks at.
inline const ggml_tensor * base(const ggml_tensor * t) {
    while (is_view(t)) {
        t = t->src[0];
    }
    return t;
}

inline bool aligned(const void * data) {
    return (uintptr_t) data % 16 == 0;
}

// Rows of one type, or none (`count` 0) if the values don't lie in rows of one distance.
struct Matrix {
    int64_t count   = 0;
    int64_t columns = 0;
    size_t  pitch   = 0;

    explicit Matrix(const ggml_tensor * t, ggml_type type = GGML_TYPE_F32) {
        const bool rows  = t->type == type && t->nb[0] == ggml_type_size(type) && aligned(t->data);
        const bool dense = (t->ne[2] == 1 || t->nb[2] == t->nb[1] * t->ne[1]) &&
                           (t->ne[3] == 1 || t->nb[3] == t->nb[2] * t->ne[2]);
        if (rows && dense && t->ne[0] % 4 == 0 && t->nb[1] % 16 == 0) {
            count   = ggml_nrows(t);
            columns = t->ne[0];
            pitch   = t->nb[1];
        }
    }

    explicit operator bool() const { return count > 0; }
};

// A vector that is applied to every row.
inline bool is_vector(const ggml_tensor * t, int64_t columns) {
    return t->type == GGML_TYPE_F32 && ggml_nelements(t) == columns && ggml_is_contiguous(t) && aligned(t->data);
}

enum class Kind { Normalize, Linear, Attention, Add, Copy };

constexpr const char * NAMES[] = { "norms", "matrix products", "attention", "sums", "copies" };

// Nodes that are computed at once, when the last of them is due.
struct Step {
    Kind                kind;
    std::vector<int>    nodes; // positions among the graph's operations
    const ggml_tensor * out    = nullptr;
    const ggml_tensor * x      = nullptr;
    const ggml_tensor * y      = nullptr;
    const ggml_tensor * weight = nullptr; // of a product; the vector that multiplies rows
    const ggml_tensor * bias   = nullptr;
    Norm                norm   = Norm::Layer;
    Rope                rope;
    bool                activated = false; // with SiLU after norms, GELU after products
    // Bytes from one row of `out` to the next.
    size_t              pitch  = 0;
};

struct Use {
    int op;
    int source;
};

class Matcher {
  public:
    Matcher(ggml_cgraph * graph, Attention & attention) : attention(attention) {
        for (int i = 0; i < graph->n_nodes; ++i) {
            ggml_tensor * node = graph->nodes[i];
            if (is_view(node) || node->op == GGML_OP_NONE || ggml_is_empty(node)) {
                continue;
            }
            const int op = ops.size();
            ops.push_back(node);
            position.push_back(i);
            for (int s = 0; s < GGML_MAX_SRC; ++s) {
                if (node->src[s]) {
                    uses[base(node->src[s])].push_back({ op, s });
                }
            }
        }
        step_of.assign(ops.size(), -1);
        for (size_t op = 0; op < ops.size(); ++op) {
            if (step_of[op] < 0) {
                match(op);
            }
        }
        for (const Step & step : steps) {
            if (can_be_narrow(step)) {
                narrow.insert(step.out);
            }
        }
    }

    std::vector<ggml_tensor *>              ops;
    std::vector<int>                        position; // of each operation among the graph's nodes
    std::vector<int>                        step_of;  // the step of each operation, or -1
    std::vector<Step>                       steps;
    std::unordered_set<const ggml_tensor *> narrow;

  private:
    void match(int op) {
        Step step;
        bool found = false;
        switch (ops[op]->op) {
            case GGML_OP_NORM:
            case GGML_OP_RMS_NORM:       found = normalize(op, step); break;
            case GGML_OP_MUL_MAT:        found = linear(op, step); break;
            case GGML_OP_FLASH_ATTN_EXT: found = attend(op, step); break;
            case GGML_OP_MUL:
            case GGML_OP_ADD:            found = add(op, step); break;
            case GGML_OP_CPY:
            case GGML_OP_CONT:           found = copy(op, step); break;
            default:                     break;
        }
        if (!found || !is_safe(step)) {
            return;
        }
        for (int node : step.nodes) {
            step_of[node] = steps.size();
        }
        steps.push_back(std::move(step));
    }

    // The only operation that reads `t`, if it is an `op` that takes it (or a view of it) as `source`.
    int next(const ggml_tensor * t, ggml_op op, int source) const {
        const auto found = uses.find(t);
        if ((t->flags & GGML_TENSOR_FLAG_OUTPUT) || found == uses.end() || found->second.size() != 1) {
            return -1;
        }
        const Use use = found->second[0];
        return ops[use.op]->op == op && use.source == source && step_of[use.op] < 0 ? use.op : -1;
    }

    // The same, for an operation that reads `t` itself and no view.
    int next_direct(const ggml_tensor * t, ggml_op op, int source) const {
        const int found = next(t, op, source);
        return found >= 0 && ops[found]->src[source] == t ? found : -1;
    }

    bool normalize(int op, Step & step) {
        const ggml_tensor * node = ops[op];
        const Matrix        x(node->src[0]);
        const int           mul = next_direct(node, GGML_OP_MUL, 0);
        if (!x || x.columns > MOST_COLUMNS || mul < 0 || !is_vector(ops[mul]->src[1], x.columns)) {
            return false;
        }
        step.kind   = Kind::Normalize;
        step.norm   = node->op == GGML_OP_NORM ? Norm::Layer : Norm::Rms;
        step.nodes  = { op, mul };
        step.x      = node->src[0];
        step.weight = ops[mul]->src[1];
        const int add = next_direct(ops[mul], GGML_OP_ADD, 0);
        if (add >= 0 && is_vector(ops[add]->src[1], x.columns)) {
            step.bias = ops[add]->src[1];
            step.nodes.push_back(add);
        }
        rotate(step, x.columns);
        const int silu = next_direct(ops[step.nodes.back()], GGML_OP_UNARY, 0);
        if (silu >= 0 && ggml_get_unary_op(ops[silu]) == GGML_UNARY_OP_SILU) {
            step.activated = true;
            step.nodes.push_back(silu);
        }
        step.out   = ops[step.nodes.back()];
        step.pitch = x.columns * sizeof(float);
        return ggml_is_contiguous(step.out) && aligned(step.out->data);
    }

    // The rotations that follow a norm.
    void rotate(Step & step, int64_t columns) const {
        while (step.rope.count < 3) {
            const ggml_tensor * last = ops[step.nodes.back()];
            const int           rope = next(last, GGML_OP_ROPE, 0);
            if (rope < 0) {
                return;
            }
            const ggml_tensor * node = ops[rope];
            const ggml_tensor * in   = node->src[0];
            const int32_t *     p    = node->op_params;
            float               f[4];
            memcpy(f, p + 5, sizeof(f)); // base, scale, extrapolation and magnitude
            const bool plain = p[2] == GGML_ROPE_TYPE_NORMAL && f[1] == 1 && f[2] == 0 && f[3] == 1 && !node->src[2];
            const bool whole = in->data == last->data && ggml_is_contiguous(in) && in->ne[0] * in->ne[1] == columns &&
                               in->ne[3] == 1 && ggml_nelements(in) == ggml_nelements(last);
            const bool fits  = in->ne[0] <= 256 && in->ne[0] % 4 == 0 && p[1] % 2 == 0 && p[15] % 2 == 0;
            if (!plain || !whole || !fits) {
                return;
            }
            step.rope.head = in->ne[0];
            step.rope.sections[step.rope.count++] = { p[15], p[1], (const int32_t *) node->src[1]->data, log2f(f[0]) };
            step.nodes.push_back(rope);
        }
    }

    bool linear(int op, Step & step) {
        const ggml_tensor * node = ops[op];
        const ggml_tensor * x    = node->src[1];
        const Matrix        f32(x), f16(x, GGML_TYPE_F16);
        if (std::max(f32.count, f16.count) <= FEW_ROWS || !Linear::takes(node->src[0])) {
            return false;
        }
        step.kind   = Kind::Linear;
        step.nodes  = { op };
        step.weight = node->src[0];
        step.x      = x;
        const int add = next_direct(node, GGML_OP_ADD, 0);
        if (add >= 0 && is_vector(ops[add]->src[1], node->ne[0])) {
            step.bias = ops[add]->src[1];
            step.nodes.push_back(add);
        }
        const int gelu = next_direct(ops[step.nodes.back()], GGML_OP_UNARY, 0);
        if (gelu >= 0 && ggml_get_unary_op(ops[gelu]) == GGML_UNARY_OP_GELU) {
            step.activated = true;
            step.nodes.push_back(gelu);
        }
        store(step);
        step.out   = ops[step.nodes.back()];
        step.pitch = step.out->nb[1];
        return true;
    }

    // A copy of the result into other rows, which can get it at once.
    void store(Step & step) const {
        const ggml_tensor * last = ops[step.nodes.back()];
        const int           copy = next_direct(last, GGML_OP_CPY, 0);
        if (copy >= 0 && ggml_are_same_shape(ops[copy], last) && Matrix(ops[copy])) {
            step.nodes.push_back(copy);
        }
    }

    bool attend(int op, Step & step) {
        const ggml_tensor * node = ops[op];
        const ggml_tensor * q    = node->src[0];
        const ggml_tensor * k    = node->src[1];
        const ggml_tensor * v    = node->src[2];
        float               bias, cap;
        memcpy(&bias, node->op_params + 1, sizeof(bias));
        memcpy(&cap, node->op_params + 2, sizeof(cap));
        const bool plain = !node->src[3] && !node->src[4] && bias == 0 && cap == 0 && q->ne[3] == 1;
        const bool types = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16;
        const bool heads = q->ne[2] == k->ne[2] && q->ne[2] == v->ne[2] && q->ne[0] == v->ne[0] && q->ne[0] % 8 == 0;
        if (!plain || !types || !heads || q->nb[0] != sizeof(float) || q->ne[1] <= FEW_ROWS) {
            return false;
        }
        for (const ggml_tensor * t : { q, k, v }) {
            if (!aligned(t->data) || t->nb[1] % 16 || t->nb[2] % 16) {
                return false;
            }
        }
        step.kind  = Kind::Attention;
        step.nodes = { op };
        step.out   = node;
        step.x     = q;
        step.pitch = node->nb[2];
        return attention.prepare(dense(node));
    }

    bool add(int op, Step & step) {
        const ggml_tensor * node = ops[op];
        step.kind                = Kind::Add;
        step.nodes               = { op };
        const ggml_tensor * sum  = node;
        if (node->op == GGML_OP_MUL) {
            const int add = next_direct(node, GGML_OP_ADD, 1);
            if (add < 0 || !is_vector(node->src[1], node->ne[0])) {
                return false;
            }
            step.weight = node->src[1];
            step.nodes.push_back(add);
            sum = ops[add];
        }
        step.x = sum->src[0];
        step.y = step.weight ? node->src[0] : sum->src[1];
        store(step);
        step.out = ops[step.nodes.back()];
        const Matrix x(step.x), y(step.y), out(step.out);
        step.pitch = out.pitch;
        return x && y && out && ggml_are_same_shape(step.x, step.y) && ggml_are_same_shape(step.x, sum);
    }

    bool copy(int op, Step & step) const {
        const ggml_tensor * to   = ops[op];
        const ggml_tensor * from = to->src[0];
        const auto          fits = [&](const ggml_tensor * t) {
            const size_t size = ggml_type_size(t->type);
            return (t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16) && t->nb[0] == size && aligned(t->data) &&
                   t->nb[1] % 16 == 0 && t->nb[2] % 16 == 0;
        };
        step.kind  = Kind::Copy;
        step.nodes = { op };
        step.x     = from;
        step.out   = to;
        return ggml_are_same_shape(from, to) && to->ne[3] == 1 && to->ne[0] % 8 == 0 && fits(from) && fits(to);
    }

    // Nothing that happens before a step is done may change what it reads, nor may the step itself.
    bool is_safe(const Step & step) const {
        const Range out(step.out);
        for (const ggml_tensor * in : { step.x, step.y, step.weight, step.bias }) {
            if (!in) {
                continue;
            }
            const bool by_rows = in == step.x || in == step.y;
            const bool itself  = by_rows && (step.kind == Kind::Normalize || step.kind == Kind::Add) &&
                                 in->data == step.out->data && Matrix(in).pitch == step.pitch;
            if (Range(in).overlaps(out) && !itself) {
                return false;
            }
            for (int op = read_at(step, in); op < step.nodes.back(); ++op) {
                const bool member = std::find(step.nodes.begin(), step.nodes.end(), op) != step.nodes.end();
                if (!member && Range(ops[op]).overlaps(Range(in))) {
                    return false;
                }
            }
        }
        return true;
    }

    // The node of a step that reads `in`.
    int read_at(const Step & step, const ggml_tensor * in) const {
        return *std::find_if(step.nodes.begin(), step.nodes.end(), [&](int op) {
            return std::find(ops[op]->src, ops[op]->src + GGML_MAX_SRC, in) != ops[op]->src + GGML_MAX_SRC;
        });
    }

    bool can_be_narrow(const Step & step) const {
        const bool makes = step.kind == Kind::Normalize || step.kind == Kind::Linear || step.kind == Kind::Attention;
        const auto found = uses.find(step.out);
        if (!makes || (step.out->flags & GGML_TENSOR_FLAG_OUTPUT) || found == uses.end() || step.out->view_src ||
            step.pitch % 32) {
            return false;
        }
        return std::all_of(found->second.begin(), found->second.end(), [&](Use use) {
            const int index = step_of[use.op];
            if (index < 0) {
                return false;
            }
            const Step &        reader = steps[index];
            const ggml_tensor * seen   = ops[use.op]->src[use.source];
            const bool          first  = use.op == reader.nodes.front();
            const bool          takes  = reader.kind == Kind::Linear    ? use.source == 1 :
                                         reader.kind == Kind::Attention ? use.source == 0 :
                                         reader.kind == Kind::Copy      ? use.source == 0 :
                                                                          false;
            return first && takes && seen->data == step.out->data && in_rows(seen, step.pitch);
        });
    }

    // Whether each dimension of a view lies within rows of `pitch` bytes or goes over whole rows.
    static bool in_rows(const ggml_tensor * view, size_t pitch) {
        size_t within = view->ne[0] * sizeof(float);
        for (int i = 1; i < 3; ++i) {
            if (view->ne[i] > 1 && view->nb[i] % pitch != 0) {
                within = std::max<size_t>(within, view->nb[i] * view->ne[i]);
            }
        }
        return view->ne[3] == 1 && view->nb[0] == sizeof(float) && within <= pitch;
    }

    Attention &                                              attention;
    std::unordered_map<const ggml_tensor *, std::vector<Use>> uses;

  public:
    // An attention node's shape with densely packed queries and results, as they are in scratch memory.
    static AttentionShape dense(const ggml_tensor * node) {
        const ggml_tensor * q = node->src[0];
        const ggml_tensor * k = node->src[1];
        const ggml_tensor * v = node->src[2];
        const int64_t size = q->ne[0], rows = q->ne[1], heads = q->ne[2];
        const auto    values = [](const ggml_tensor * t, int i) { return (int64_t) (t->nb[i] / sizeof(half)); };
        return { heads,        rows,         k->ne[1],     size,         size,         rows * size,
                 values(k, 1), values(k, 2), values(v, 1), values(v, 2), heads * size, size };
    }
};

} // namespace video
