"""Files as other tools make them, and broken ones: each a name, a change to a file of `to-gguf`, and that file's type."""

import gguf
from gguf_file import BF16, F16, MXFP4, Tensor
from names import original

Q8_0 = gguf.GGMLQuantizationType.Q8_0
PATCH = "patch_embedding.weight"
#: What city96's tools write.
CITY96 = ("general.architecture", "general.quantization_version", "general.file_type")


def diffusers_names(file):
    """The inverse of names.original, over the names that this model has."""
    blocks = {int(name.split(".")[1]) for name in file.tensors if name.startswith("blocks.")}
    theirs = ["scale_shift_table", "patch_embedding.weight", "patch_embedding.bias", "proj_out.weight", "proj_out.bias"]
    for module in ("text_embedder.linear_1", "text_embedder.linear_2", "time_embedder.linear_1"):
        theirs += [f"condition_embedder.{module}.{kind}" for kind in ("weight", "bias")]
    for module in ("time_embedder.linear_2", "time_proj"):
        theirs += [f"condition_embedder.{module}.{kind}" for kind in ("weight", "bias")]
    for n in blocks:
        theirs.append(f"blocks.{n}.scale_shift_table")
        for attention in ("attn1", "attn2"):
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                theirs += [f"blocks.{n}.{attention}.{part}.{kind}" for kind in ("weight", "bias")]
            theirs += [f"blocks.{n}.{attention}.{part}.weight" for part in ("norm_q", "norm_k")]
        for part in ("norm2", "ffn.net.0.proj", "ffn.net.2"):
            theirs += [f"blocks.{n}.{part}.{kind}" for kind in ("weight", "bias")]
    table = {original(name): name for name in theirs}
    file.rename(lambda name: table[name])


def prefixed(prefix):
    return lambda file: file.rename(lambda name: prefix + name)


def typed(name, dtype):
    return lambda file: file.convert(name, dtype)


def without(*names):
    def change(file):
        for name in names:
            file.tensors.pop(name)

    return change


def key(name, value):
    return lambda file: file.set(name, value)


def no_keys(*names, keep=()):
    def change(file):
        for name in list(file.metadata):
            if name in names or keep and name not in keep:
                del file.metadata[name]

    return change


def no_metadata(file):
    file.metadata.clear()


def noted(file):
    file.set(f"comfy.gguf.orig_shape.{PATCH}", list(file.tensors[PATCH].shape))
    file.fold(PATCH)


def noted_prefix(file):
    """Also in the key of the shape, as it has the tensor's name."""
    before = "comfy.gguf.orig_shape."
    prefix = "model.diffusion_model."
    file.rename(lambda name: prefix + name)
    file.metadata = {
        name.replace(before, before + prefix): value for name, value in file.metadata.items()
    }


def folded(file):
    file.fold(PATCH)


def squeezed(file):
    tensor = file.tensors["blocks.1.modulation"]
    file.tensors["blocks.1.modulation"] = Tensor(tensor.shape[1:], tensor.dtype, tensor.data)


def extra(file):
    file.tensors["blocks.0.unheard_of.weight"] = file.tensors["blocks.0.self_attn.q.bias"]


def shape(name):
    """A matrix of half its rows."""

    def change(file):
        tensor = file.tensors[name]
        rows = tensor.shape[0] // 2
        file.tensors[name] = Tensor((rows, *tensor.shape[1:]), tensor.dtype, tensor.data[:rows])

    return change


def both(*changes):
    def change(file):
        for one in changes:
            one(file)

    return change


def mxfp4(file):
    for name in ("blocks.0.ffn.0.weight", "blocks.0.ffn.2.weight"):
        tensor = file.tensors[name]
        # gguf-py's table of types is by enum.
        file.tensors[name] = Tensor(tensor.shape, MXFP4, gguf.quants.quantize(tensor.values(), MXFP4))


VARIANTS = [
    ("diffusers' names", diffusers_names, "F32"),
    ("diffusers' names, prefix", both(diffusers_names, prefixed("model.diffusion_model.")), "F32"),
    ("prefix model.diffusion_model.", prefixed("model.diffusion_model."), "Q8_0"),
    ("prefix diffusion_model.", prefixed("diffusion_model."), "Q8_0"),
    ("city96's three keys", no_keys(keep=CITY96), "Q8_0"),
    ("no metadata", no_metadata, "Q8_0"),
    ("no metadata, prefix", both(no_metadata, prefixed("model.diffusion_model.")), "Q8_0"),
    ("stable-diffusion.cpp's own", both(no_metadata, folded, prefixed("model.diffusion_model.")), "Q8_0"),
    ("unknown architecture", key("general.architecture", "wan3"), "Q8_0"),
    ("architecture of an encoder", key("general.architecture", "t5encoder"), "Q8_0"),
    ("architecture of another model", key("general.architecture", "flux"), "Q8_0"),
    ("architecture pig", key("general.architecture", "pig"), "Q8_0"),
    ("no wan.expert", no_keys("wan.expert"), "Q8_0"),
    ("no wan.variant", no_keys("wan.variant"), "Q8_0"),
    ("no wan.attention.head_count", no_keys("wan.attention.head_count"), "Q8_0"),
    ("array beside five dimensions", key("general.tags", ["text-to-video"]), "Q8_0"),
    ("array beside a noted fold", both(noted, key("general.tags", ["text-to-video"])), "Q8_0"),
    ("fold with its shape", noted, "F32"),
    ("fold without its shape", folded, "F32"),
    ("fold with its shape, prefix", both(noted, noted_prefix), "F32"),
    ("F16 patch embedding", typed(PATCH, F16), "F32"),
    ("BF16 patch embedding", typed(PATCH, BF16), "F32"),
    ("F16 modulation", typed("blocks.1.modulation", F16), "F32"),
    ("BF16 modulation", typed("blocks.1.modulation", BF16), "F32"),
    ("Q8_0 modulation", typed("blocks.1.modulation", Q8_0), "F32"),
    ("BF16 modulation of the head", typed("head.modulation", BF16), "F32"),
    ("F16 norm", typed("blocks.0.norm3.weight", F16), "F32"),
    ("BF16 norm", typed("blocks.0.norm3.weight", BF16), "F32"),
    ("Q8_0 norm", typed("blocks.0.norm3.weight", Q8_0), "F32"),
    ("BF16 norm of queries", typed("blocks.0.self_attn.norm_q.weight", BF16), "F32"),
    ("BF16 bias", typed("blocks.0.ffn.0.bias", BF16), "F32"),
    ("Q8_0 bias", typed("blocks.0.ffn.0.bias", Q8_0), "F32"),
    ("BF16 bias of the patch embedding", typed("patch_embedding.bias", BF16), "F32"),
    ("BF16 time embedding", typed("time_embedding.0.weight", BF16), "F32"),
    ("Q8_0 head", typed("head.head.weight", Q8_0), "F32"),
    ("Q8_0 text embedding", typed("text_embedding.0.weight", Q8_0), "F32"),
    ("MXFP4 matrices", mxfp4, "F32"),
    ("no head", without("head.head.weight"), "Q8_0"),
    ("no modulation of the head", without("head.modulation"), "Q8_0"),
    ("no patch embedding", without(PATCH), "Q8_0"),
    ("no bias of the patch embedding", without("patch_embedding.bias"), "Q8_0"),
    ("no norm of the first keys", without("blocks.0.cross_attn.norm_k.weight"), "Q8_0"),
    ("no matrix of the last block", without("blocks.1.ffn.2.weight"), "Q8_0"),
    ("no bias of the last block", without("blocks.1.self_attn.o.bias"), "Q8_0"),
    ("half a matrix", shape("blocks.1.self_attn.v.weight"), "Q8_0"),
    ("a lost dimension", squeezed, "F32"),
    ("a tensor too many", extra, "Q8_0"),
]
