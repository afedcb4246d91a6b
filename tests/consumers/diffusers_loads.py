"""diffusers, and transformers for the text encoder: loads a file as a user does, and computes with it.

What was loaded has to compute what the same class computes with the weights that gguf-py finds in the file, put
under diffusers' names by names.py. A loader that misses a tensor, swaps two, or unpacks one wrongly differs.
"""

import logging
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import diffusers
import torch
import transformers
from diffusers import AutoencoderKLWan, GGUFQuantizationConfig, WanTransformer3DModel, WanVACETransformer3DModel
from names import original

torch.set_grad_enabled(False)
torch.set_num_threads(1)
diffusers.logging.set_verbosity(logging.CRITICAL)
diffusers.logging.disable_progress_bar()
transformers.logging.set_verbosity(logging.CRITICAL)
transformers.logging.disable_progress_bar()

#: Of the output's largest value: a product that diffusers takes in another order.
TOLERANCE = 1e-5
#: The same where weights are unpacked by diffusers: it multiplies scales and codes in F16, and so rounds the weights.
PACKED_TOLERANCE = 2e-3
#: The largest difference that was let pass, by whether something was packed.
WORST = {False: 0.0, True: 0.0}


def inputs(config):
    """One forward pass: 2 frames of 8 x 12 latents, or what TI2V-5B has of them."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    tokens = 2 * 4 * 6
    given = {
        "hidden_states": draw(1, config["in_channels"], 2, 8, 12),
        "encoder_hidden_states": draw(1, 16, config["text_dim"]),
        "timestep": torch.full((1, tokens), 500) if config["in_channels"] == 48 else torch.tensor([500]),
    }
    if config.get("image_dim"):
        # Two images, where their features have positions.
        images = 2 if config.get("pos_embed_seq_len") else 1
        given["encoder_hidden_states_image"] = draw(images, 257, config["image_dim"])
    if config.get("vace_layers"):
        given["control_hidden_states"] = draw(1, config["vace_in_channels"], 2, 8, 12)
    return given


def output(model):
    return model(**inputs(model.config), return_dict=False)[0]


def distance(left, right):
    """The largest difference, relative to the largest value; infinite where one is no number."""
    worst = ((left - right).abs().max() / right.abs().max()).item()
    return worst if worst == worst else float("inf")


def plain(kind, folder, values):
    """The model of a folder, with the values of a file by original name in place of its own."""
    cls = WanVACETransformer3DModel if kind == "vace" else WanTransformer3DModel
    model = cls.from_config(cls.load_config(folder)).eval()
    weights = {name: torch.tensor(values[original(name)]) for name in model.state_dict()}
    model.load_state_dict(weights, strict=True)
    return model


def transformer(path, kind, folder, expected, packed):
    """None, or why not. `expected` is the output of `plain`; `packed` says that diffusers unpacks something."""
    cls = WanVACETransformer3DModel if kind == "vace" else WanTransformer3DModel
    try:
        model = cls.from_single_file(
            str(path),
            config=str(folder.parent),
            subfolder=folder.name,
            quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
            torch_dtype=torch.float32,
        )
        got = output(model)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    worst = distance(got, expected)
    if worst > (PACKED_TOLERANCE if packed else TOLERANCE):
        return f"computes something else: {worst:.1e}"
    WORST[packed] = max(WORST[packed], worst)


def text_encoder(path, folder, values):
    """The same for UMT5; `values` are by llama.cpp's names."""
    try:
        model = transformers.UMT5EncoderModel.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    reference = transformers.UMT5EncoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    names = {
        "SelfAttention.q": "attn_q",
        "SelfAttention.k": "attn_k",
        "SelfAttention.v": "attn_v",
        "SelfAttention.o": "attn_o",
        "SelfAttention.relative_attention_bias": "attn_rel_b",
        "DenseReluDense.wi_0": "ffn_gate",
        "DenseReluDense.wi_1": "ffn_up",
        "DenseReluDense.wo": "ffn_down",
    }
    weights = {}
    for name in reference.state_dict():
        parts = name.removesuffix(".weight").split(".")
        if parts[-1] in ("shared", "embed_tokens"):
            stored = "token_embd"
        elif parts[-1] == "final_layer_norm":
            stored = "enc.output_norm"
        elif parts[-1] == "layer_norm":
            stored = f"enc.blk.{parts[2]}.{('attn_norm', 'ffn_norm')[int(parts[4])]}"
        else:
            stored = f"enc.blk.{parts[2]}.{names['.'.join(parts[-2:])]}"
        weights[name] = torch.tensor(values[f"{stored}.weight"])
    reference.load_state_dict(weights, strict=True)
    ids = torch.arange(3, 40)[None]
    worst = distance(model.eval()(ids)[0], reference(ids)[0])
    return None if worst <= TOLERANCE else f"computes something else: {worst:.1e}"


def vae(path, folder):
    """None, or why not: a clip, encoded and decoded, beside what the checkpoint's VAE makes of it."""
    options = {}
    if path.suffix == ".gguf":
        options["quantization_config"] = GGUFQuantizationConfig(compute_dtype=torch.float32)
    try:
        ours = AutoencoderKLWan.from_single_file(str(path), config=str(folder), torch_dtype=torch.float32, **options)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    theirs = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).eval()
    clip = torch.rand((1, 3, 5, 32, 48), generator=torch.Generator().manual_seed(3)) * 2 - 1

    def both(vae):
        latents = vae.encode(clip).latent_dist.mode()
        return latents, vae.decode(latents).sample

    worst = max(distance(got, expected) for got, expected in zip(both(ours.eval()), both(theirs)))
    return None if worst <= TOLERANCE else f"computes something else: {worst:.1e}"


def image_encoder_gguf(path):
    try:
        transformers.CLIPVisionModel.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
