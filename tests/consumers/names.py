"""Original names of Wan's transformers, from diffusers', a table of whole components: what the converter is held to.

Source: the modules of `wan/modules/model.py` and `wan/modules/vace_model.py` beside diffusers' `WanTransformer3DModel`
and `WanVACETransformer3DModel`.
"""

import re

EMBEDDER = {
    "text_embedder.linear_1": "text_embedding.0",
    "text_embedder.linear_2": "text_embedding.2",
    "time_embedder.linear_1": "time_embedding.0",
    "time_embedder.linear_2": "time_embedding.2",
    "time_proj": "time_projection.1",
    "image_embedder.norm1": "img_emb.proj.0",
    "image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "image_embedder.ff.net.2": "img_emb.proj.3",
    "image_embedder.norm2": "img_emb.proj.4",
}
ATTENTION = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
}
# The norm with weights is the second of diffusers and the third of the original.
BLOCK = {
    **{f"attn1.{theirs}": f"self_attn.{name}" for theirs, name in ATTENTION.items()},
    **{f"attn2.{theirs}": f"cross_attn.{name}" for theirs, name in ATTENTION.items()},
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
    "proj_in": "before_proj",
    "proj_out": "after_proj",
}
TOP = {"patch_embedding": "patch_embedding", "vace_patch_embedding": "vace_patch_embedding", "proj_out": "head.head"}


def module(name):
    """The original name of a module that has a weight or a bias."""
    if block := re.fullmatch(r"((?:vace_)?blocks\.\d+)\.(.+)", name):
        return f"{block[1]}.{BLOCK[block[2]]}"
    if name.startswith("condition_embedder."):
        return EMBEDDER[name.removeprefix("condition_embedder.")]
    return TOP[name]


def original(name):
    """The original name of a tensor."""
    if name == "scale_shift_table":
        return "head.modulation"
    if name == "condition_embedder.image_embedder.pos_embed":
        return "img_emb.emb_pos"
    if name.endswith(".scale_shift_table"):
        return name.replace("scale_shift_table", "modulation")
    stem, kind = name.rsplit(".", 1)
    return f"{module(stem)}.{kind}"
