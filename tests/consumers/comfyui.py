"""Whether ComfyUI with ComfyUI-GGUF computes with a file what is in it: the rules of their loaders, for they aren't on PyPI.

ComfyUI-GGUF's `loader.py` (which names and architectures it takes, which tensors it keeps packed) and `ops.py` (which
modules unpack); ComfyUI's `model_detection.py` (how the sizes follow from the tensors) and `ldm/wan/model.py` (which
parameters there are). Read as of 2026.
"""

import re

import gguf

UNETS = {"flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan", "lumina2", "qwen_image"}
ENCODERS = {"t5", "t5encoder", "llama", "qwen2vl", "qwen3", "qwen3vl"}
#: By which a file without an architecture is told for Wan, and for HunyuanVideo.
SIGNS = (
    {"blocks.0.self_attn.norm_q.weight", "text_embedding.2.weight", "head.modulation"},
    {"double_blocks.0.img_attn_proj.weight", "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.weight"},
)
PREFIX = "model.diffusion_model."
PLAIN = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16}
#: Types that it unpacks on the device.
FAST = {
    getattr(gguf.GGMLQuantizationType, name)
    for name in "BF16 Q8_0 Q5_1 Q5_0 Q4_1 Q4_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()
}


class Refused(Exception):
    pass


def state(file, architectures):
    """What the loader makes of a file: name to shape and type."""
    names = {name for name in file.tensors}
    prefixed = any(name.startswith(PREFIX) for name in names)
    taken = {name: name.removeprefix(PREFIX) for name in names if not prefixed or name.startswith(PREFIX)}
    value, types = file.metadata.get("general.architecture", (None, None))
    if types is not None and types != [gguf.GGUFValueType.STRING]:
        raise Refused("the architecture is no string")
    if value in (None, "pig", "cow"):
        if architectures is ENCODERS:
            raise Refused("a text encoder without an architecture")
        if not any(signs <= set(taken.values()) for signs in SIGNS):
            raise Refused("the names are those of no model that it knows")
    elif value not in architectures:
        raise Refused(f"unexpected architecture type {value}")
    loaded = {}
    for name, key in taken.items():
        tensor = file.tensors[name]
        shape = tensor.shape
        if noted := file.metadata.get(f"comfy.gguf.orig_shape.{name}"):
            # Arrays come with the type of their elements.
            if noted[1] != [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32]:
                raise Refused(f"the shape of {name} is no array of INT32")
            shape = tuple(int(n) for n in noted[0])
        loaded[key] = shape, tensor.dtype
    return loaded


def count(loaded, stack):
    """Blocks from 0 on without a gap."""
    numbers = {int(m[1]) for key in loaded if (m := re.match(stack + r"\.(\d+)\.", key))}
    return next(n for n in range(len(numbers) + 1) if n not in numbers)


def attention(name, dim, image):
    parts = ["q", "k", "v", "o"] + (["k_img", "v_img"] if image else [])
    wanted = {f"{name}.{part}.weight": (dim, dim) for part in parts}
    wanted |= {f"{name}.{part}.bias": (dim,) for part in parts}
    norms = ["norm_q", "norm_k"] + (["norm_k_img"] if image else [])
    return wanted | {f"{name}.{part}.weight": (dim,) for part in norms}


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, dim):
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def block(name, dim, ffn, image):
    return {
        f"{name}.modulation": (1, 6, dim),
        **attention(f"{name}.self_attn", dim, False),
        **attention(f"{name}.cross_attn", dim, image),
        **norm(f"{name}.norm3", dim),
        **linear(f"{name}.ffn.0", dim, ffn),
        **linear(f"{name}.ffn.2", ffn, dim),
    }


def parameters(loaded, text):
    """Those of the model that its detection would make; `text` is what no tensor says: UMT5's width."""
    for key in ("head.modulation", "head.head.weight", "blocks.0.ffn.0.weight", "patch_embedding.weight"):
        if key not in loaded:
            raise Refused(f"{key} is missing, by which it is detected")
    shape = {key: shape for key, (shape, _) in loaded.items()}
    dim, ffn = shape["head.modulation"][-1], shape["blocks.0.ffn.0.weight"][0]
    channels = shape["patch_embedding.weight"][1]
    image = "img_emb.proj.0.bias" in loaded
    wanted = {
        "patch_embedding.weight": (dim, channels, 1, 2, 2),
        "patch_embedding.bias": (dim,),
        **linear("text_embedding.0", text, dim),
        **linear("text_embedding.2", dim, dim),
        **linear("time_embedding.0", 256, dim),
        **linear("time_embedding.2", dim, dim),
        **linear("time_projection.1", dim, 6 * dim),
        "head.modulation": (1, 2, dim),
        **linear("head.head", dim, shape["head.head.weight"][0]),
    }
    for n in range(count(loaded, "blocks")):
        wanted |= block(f"blocks.{n}", dim, ffn, image)
    if image:
        features = shape["img_emb.proj.0.bias"][0]
        wanted |= norm("img_emb.proj.0", features) | linear("img_emb.proj.1", features, features)
        wanted |= linear("img_emb.proj.3", features, dim) | norm("img_emb.proj.4", dim)
        if "img_emb.emb_pos" in loaded:
            wanted["img_emb.emb_pos"] = (1, shape["img_emb.emb_pos"][1], features)
    if "vace_patch_embedding.weight" in loaded:
        wanted["vace_patch_embedding.weight"] = (dim, shape["vace_patch_embedding.weight"][1], 1, 2, 2)
        wanted["vace_patch_embedding.bias"] = (dim,)
        for n in range(count(loaded, "vace_blocks")):
            wanted |= block(f"vace_blocks.{n}", dim, ffn, image) | linear(f"vace_blocks.{n}.after_proj", dim, dim)
        wanted |= linear("vace_blocks.0.before_proj", dim, dim)
    return wanted


def transformer(file, text):
    """Raises Refused where the model would not load, or not be the file's."""
    loaded = state(file, UNETS)
    wanted = parameters(loaded, text)
    for name, shape in wanted.items():
        # load_state_dict is not strict: what is missing stays as memory was.
        if name not in loaded:
            raise Refused(f"{name} is missing and would be noise")
        stored, dtype = loaded[name]
        if stored != shape:
            raise Refused(f"{name} is {stored}, not {shape}")
        # A packed tensor works where a module unpacks it: Linear, and vectors of BF16 while loading.
        if dtype not in PLAIN:
            matrix = name.endswith(".weight") and len(shape) == 2
            if not (matrix or len(shape) == 1 and dtype == gguf.GGMLQuantizationType.BF16):
                raise Refused(f"{name} stays packed as {dtype.name}")
            if dtype not in FAST:
                # It computes, on the CPU with numpy: `check` has a note for it.
                continue


def text_encoder(file):
    state(file, ENCODERS)
    if file.tensors["token_embd.weight"].shape != (256384, 4096):
        raise Refused("the tokenizer is only rebuilt for UMT5-XXL's embedding")
    if file.metadata.get("tokenizer.ggml.model", (None,))[0] != "t5":
        raise Refused("there is no tokenizer")


def loads(kind, file, text):
    """None, or why not."""
    try:
        if kind == "transformer":
            transformer(file, text)
        elif kind == "text_encoder":
            text_encoder(file)
        else:
            raise Refused("no node loads it from GGUF")
    except Refused as reason:
        return str(reason)
