// Loads a file with stable-diffusion.cpp's ModelLoader into its own modules, and says what came of it.
//
//     loads KIND FILE OUT [NAME=NUMBER]...
//
// KIND is transformer, t5xxl, vae or clip_vision. The numbers are the sizes of the model, which
// stable-diffusion.cpp has as constants for each number of blocks: that and the size of a patch, by which it
// tells models of the same blocks apart, is what is not tried here. OUT receives the values of every
// parameter as F32: the length of its name, the name, the number of values, the values.
// Prints the log's warnings and errors, the version that it took the file for, and `loaded` or `refused`.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "clip.hpp"
#include "model.h"
#include "t5.hpp"
#include "wan.hpp"

namespace {

std::map<std::string, int64_t> sizes;

int64_t size(const std::string& name, int64_t otherwise) {
    auto found = sizes.find(name);
    return found == sizes.end() ? otherwise : found->second;
}

void log(sd_log_level_t level, const char* text, void*) {
    if (level >= SD_LOG_WARN || strstr(text, "unknown tensor")) {
        fputs(text, stdout);
    }
}

// The VAE, narrower.
struct Vae : WAN::WanVAE {
    Vae(bool wan2_2)
        : WAN::WanVAE(false, wan2_2) {
        dim     = size("dim", dim);
        dec_dim = size("decoder_dim", dim);
        z_dim   = size("z_dim", z_dim);
        blocks["encoder"] = std::make_shared<WAN::Encoder3d>(dim, z_dim * 2, dim_mult, num_res_blocks, temperal_downsample, wan2_2);
        blocks["conv1"]   = std::make_shared<WAN::CausalConv3d>(z_dim * 2, z_dim * 2, std::tuple<int, int, int>{1, 1, 1});
        blocks["decoder"] = std::make_shared<WAN::Decoder3d>(dec_dim, z_dim, dim_mult, num_res_blocks, temperal_upsample, wan2_2);
        blocks["conv2"]   = std::make_shared<WAN::CausalConv3d>(z_dim, z_dim, std::tuple<int, int, int>{1, 1, 1});
    }
};

// CLIP's image encoder, smaller.
struct Vision : CLIPVisionModel {
    Vision()
        : CLIPVisionModel(OPEN_CLIP_VIT_H_14) {
        hidden_size       = size("dim", hidden_size);
        intermediate_size = size("ffn", intermediate_size);
        n_head            = size("heads", n_head);
        n_layer           = size("layers", n_layer);

        blocks["embeddings"]     = std::make_shared<CLIPVisionEmbeddings>(hidden_size, num_channels, patch_size, image_size);
        blocks["pre_layernorm"]  = std::make_shared<LayerNorm>(hidden_size);
        blocks["encoder"]        = std::make_shared<CLIPEncoder>(n_layer, hidden_size, n_head, intermediate_size, false);
        blocks["post_layernorm"] = std::make_shared<LayerNorm>(hidden_size);
    }
};

struct VisionProjection : CLIPVisionModelProjection {
    VisionProjection()
        : CLIPVisionModelProjection(OPEN_CLIP_VIT_H_14) {
        blocks["vision_model"]      = std::make_shared<Vision>();
        blocks["visual_projection"] = std::make_shared<CLIPProjection>(size("dim", 1280), size("projection", 1024), false);
    }
};

// The transformer, with an image encoder of another width.
struct Transformer : WAN::Wan {
    Transformer(const WAN::WanParams& params)
        : WAN::Wan(params) {
        if (params.model_type == "i2v") {
            blocks["img_emb"] = std::make_shared<WAN::MLPProj>(size("image", 1280), params.dim, params.flf_pos_embed_token_number);
        }
    }
};

WAN::WanParams params(const String2TensorStorage& tensors) {
    WAN::WanParams params;
    params.dim         = size("dim", 1536);
    params.ffn_dim     = size("ffn", 8960);
    params.num_heads   = size("heads", 12);
    params.in_dim      = size("in", 16);
    params.out_dim     = size("out", 16);
    params.text_dim    = size("text", 4096);
    params.num_layers  = size("layers", 30);
    params.vace_layers = size("vace", 0);
    for (auto& [name, _] : tensors) {
        if (name.find("img_emb") != std::string::npos) {
            params.model_type = "i2v";
        }
        if (name.find("img_emb.emb_pos") != std::string::npos) {
            params.flf_pos_embed_token_number = 514;
        }
    }
    return params;
}

const char* const VERSIONS[] = {"Wan 2.x", "Wan 2.2 I2V", "Wan 2.2 TI2V"};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        fprintf(stderr, "loads KIND FILE OUT [NAME=NUMBER]...\n");
        return 2;
    }
    const std::string kind = argv[1];
    for (int i = 4; i < argc; i++) {
        const std::string given = argv[i];
        const size_t at         = given.find('=');
        sizes[given.substr(0, at)] = atoll(given.c_str() + at + 1);
    }
    sd_set_log_callback(log, nullptr);
    sd_set_progress_callback([](int, int, float, void*) {}, nullptr);

    // The prefixes, the order of the calls and what is ignored are those of its new_sd_ctx.
    const std::map<std::string, std::pair<std::string, std::string>> prefixes = {
        {"transformer", {"model.diffusion_model.", "model.diffusion_model"}},
        {"t5xxl", {"text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.transformer"}},
        {"vae", {"vae.", "first_stage_model"}},
        {"clip_vision", {"cond_stage_model.transformer.", "cond_stage_model.transformer"}},
    };
    const auto& [prefix, module] = prefixes.at(kind);
    ModelLoader loader;
    if (!loader.init_from_file(argv[2], prefix)) {
        puts("refused");
        return 1;
    }
    loader.convert_tensors_name();
    auto& tensors = loader.get_tensor_storage_map();

    if (kind == "transformer") {
        const SDVersion version = loader.get_sd_version();
        if (!sd_version_is_wan(version)) {
            puts(version == VERSION_COUNT ? "get sd version from file failed" : "taken for a model that is not Wan");
            puts("refused");
            return 1;
        }
        printf("version: %s\n", VERSIONS[version - VERSION_WAN2]);
    }

    ggml_init_params init = {64u << 20, nullptr, true};
    ggml_context* ctx     = ggml_init(init);
    std::shared_ptr<GGMLBlock> model;
    if (kind == "transformer") {
        model = std::make_shared<Transformer>(params(tensors));
    } else if (kind == "t5xxl") {
        T5Params params;
        params.num_layers         = size("layers", 24);
        params.model_dim          = size("dim", 4096);
        params.ff_dim             = size("ffn", 10240);
        params.num_heads          = size("heads", 64);
        params.vocab_size         = size("vocabulary", 256384);
        params.relative_attention = false;
        model                     = std::make_shared<T5>(params);
    } else if (kind == "vae") {
        model = std::make_shared<Vae>(size("wan2_2", 0) != 0);
    } else {
        model = std::make_shared<VisionProjection>();
    }
    model->init(ctx, tensors, module);
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_alloc_ctx_tensors(ctx, backend);
    std::map<std::string, ggml_tensor*> parameters;
    model->get_param_tensors(parameters, module);

    const std::set<std::string> ignored = {
        "model.diffusion_model.__x0__",
        "model.diffusion_model.__32x32__",
        "model.diffusion_model.__index_timestep_zero__",
    };
    if (!loader.load_tensors(parameters, ignored, 1, false)) {
        puts("refused");
        return 1;
    }

    std::ofstream out(argv[3], std::ios::binary);
    for (auto& [name, tensor] : parameters) {
        const uint64_t length = name.size();
        const uint64_t count  = ggml_nelements(tensor);
        std::vector<float> values(count);
        if (tensor->type == GGML_TYPE_F32) {
            memcpy(values.data(), tensor->data, count * sizeof(float));
        } else {
            ggml_get_type_traits(tensor->type)->to_float(tensor->data, values.data(), count);
        }
        out.write((const char*)&length, 8);
        out.write(name.data(), length);
        out.write((const char*)&count, 8);
        out.write((const char*)values.data(), count * sizeof(float));
    }
    out.close();
    if (!out) {
        puts("its values could not be written");
        return 2;
    }
    printf("%zu parameters\nloaded\n", parameters.size());
    return 0;
}
