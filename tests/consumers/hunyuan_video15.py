"""HunyuanVideo 1.5 of diffusers, converted, read with gguf-py and turned back: bit for bit what diffusers has.

    python hunyuan_video15.py TO_GGUF SCRATCH

And whether ComfyUI and stable-diffusion.cpp find every parameter of theirs in the file, beside `to-gguf check`: by the rules
of their loaders as of 2026, since the first isn't on PyPI and the second's package there doesn't know the model. Prints a
line for each file; exit code 1 if one is wrong.
"""

import copy
import json
import pathlib
import re
import subprocess
import sys
import time

import comfyui
import gguf
import gguf_file
import torch
from diffusers import AutoencoderKLHunyuanVideo15, FlowMatchEulerDiscreteScheduler, HunyuanVideo15Transformer3DModel
from safetensors.torch import load_file

F16, BF16, Q8_0 = (getattr(gguf.GGMLQuantizationType, name) for name in ("F16", "BF16", "Q8_0"))
HEADS, LAYERS, TEXT, IMAGE = 2, 2, 64, 32
D = 128 * HEADS
CLASSES = {"t2v": "HunyuanVideo15Pipeline", "i2v": "HunyuanVideo15ImageToVideoPipeline"}


def checkpoint(folder, task, mean_flow):
    """A pipeline's folder without its encoders, which aren't read. Returns the two state dictionaries."""
    torch.manual_seed(7)
    transformer = HunyuanVideo15Transformer3DModel(
        num_attention_heads=HEADS,
        num_layers=LAYERS,
        text_embed_dim=TEXT,
        image_embed_dim=IMAGE,
        use_meanflow=mean_flow,
        task_type=task,
    )
    vae = AutoencoderKLHunyuanVideo15(block_out_channels=(8, 16, 24, 32, 40))
    for model in (transformer, vae):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.05 * torch.randn(parameter.shape))
    # Small shards: q, k and v of a block are in several.
    transformer.save_pretrained(folder / "transformer", max_shard_size="3MB")
    vae.save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=9.0).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": CLASSES[task],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLTextModel"],
        "transformer": ["diffusers", "HunyuanVideo15Transformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLHunyuanVideo15"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return transformer.state_dict(), vae.state_dict()


# Back from the file's names, as diffusers' own script goes from Tencent's. Written apart from the converter's table.
OUTSIDE = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_embed.timestep_embedder.linear_2",
    "time_r_in.mlp.0": "time_embed.timestep_embedder_r.linear_1",
    "time_r_in.mlp.2": "time_embed.timestep_embedder_r.linear_2",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "byt5_in.layernorm": "context_embedder_2.norm",
    "byt5_in.fc1": "context_embedder_2.linear_1",
    "byt5_in.fc2": "context_embedder_2.linear_2",
    "byt5_in.fc3": "context_embedder_2.linear_3",
    "vision_in.proj.0": "image_embedder.norm_in",
    "vision_in.proj.1": "image_embedder.linear_1",
    "vision_in.proj.3": "image_embedder.linear_2",
    "vision_in.proj.4": "image_embedder.norm_out",
    "cond_type_embedding": "cond_type_embed",
    "final_layer.linear": "proj_out",
}
REFINER = {
    "norm1": "norm1",
    "norm2": "norm2",
    "self_attn_proj": "attn.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm_out.linear",
}
BLOCK = {
    "img_mod.linear": "norm1.linear",
    "txt_mod.linear": "norm1_context.linear",
    "img_attn_q_norm": "attn.norm_q",
    "img_attn_k_norm": "attn.norm_k",
    "txt_attn_q_norm": "attn.norm_added_q",
    "txt_attn_k_norm": "attn.norm_added_k",
    "img_attn_proj": "attn.to_out.0",
    "txt_attn_proj": "attn.to_add_out",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
}
JOINED = {
    "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
STACKS = {
    r"double_blocks\.(\d+)\.(.+)": ("transformer_blocks", BLOCK),
    r"txt_in\.individual_token_refiner\.blocks\.(\d+)\.(.+)": (
        "context_embedder.token_refiner.refiner_blocks",
        REFINER,
    ),
}


def back(file):
    """The tensors of a file as diffusers has them."""
    found = {}
    for name, tensor in file.tensors.items():
        module, kind = name.rsplit(".", 1)
        value = torch.from_numpy(tensor.values())
        if module == "final_layer.adaLN_modulation.1":
            shift, scale = value.chunk(2, dim=0)
            found[f"norm_out.linear.{kind}"] = torch.cat([scale, shift], dim=0)
            continue
        for pattern, (stack, table) in STACKS.items():
            if block := re.fullmatch(pattern, module):
                stem = f"{stack}.{block[1]}"
                if block[2] in JOINED:
                    parts = zip(JOINED[block[2]], value.chunk(3, dim=0))
                    found |= {f"{stem}.{part}.{kind}": rows for part, rows in parts}
                else:
                    found[f"{stem}.{table[block[2]]}.{kind}"] = value
                break
        else:
            found[f"{OUTSIDE[module]}.{kind}"] = value
    return found


# The VAE's names, back.
VAE = (
    (r"(encoder|decoder)\.(down|up)\.(\d)\.block\.(\d)\.(.+)", r"\1.\2_blocks.\3.resnets.\4.\5"),
    (r"(encoder|decoder)\.(down|up)\.(\d)\.(down|up)sample\.(.+)", r"\1.\2_blocks.\3.\4samplers.0.\5"),
    (r"(encoder|decoder)\.mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
    (r"(encoder|decoder)\.mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.([qkv])\.(.+)", r"\1.mid_block.attentions.0.to_\2.\3"),
    (r"(encoder|decoder)\.mid\.attn_1\.(.+)", r"\1.mid_block.attentions.0.\2"),
)


def vae_back(tensors):
    """The tensors of the VAE's file as diffusers has them."""

    def name(original):
        for pattern, template in VAE:
            if found := re.fullmatch(pattern, original):
                return found.expand(template)
        return original

    return {name(original): value for original, value in tensors.items()}


def same(found, wanted):
    """Nothing, or what of the one is not in the other, bit for bit."""
    if found.keys() != wanted.keys():
        return f"other tensors: {sorted(found.keys() ^ wanted.keys())[:3]}"
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            return f"{name} is {tuple(found[name].shape)}, not {tuple(value.shape)}"
        if not torch.equal(found[name].contiguous().view(torch.int32), value.contiguous().view(torch.int32)):
            return f"{name} has other values"


# What the two programs call modules once a file is loaded: ComfyUI's `HunyuanVideo.process_unet_state_dict`,
# stable-diffusion.cpp's `convert_hunyuan_video_to_original_flux`. They differ in what norms are called, which no name here is.
RENAMED = (
    ("txt_in.t_embedder.mlp.0.", "txt_in.t_embedder.in_layer."),
    ("txt_in.t_embedder.mlp.2.", "txt_in.t_embedder.out_layer."),
    ("txt_in.c_embedder.linear_1.", "txt_in.c_embedder.in_layer."),
    ("txt_in.c_embedder.linear_2.", "txt_in.c_embedder.out_layer."),
    ("_mod.linear.", "_mod.lin."),
    ("_attn_qkv.", "_attn.qkv."),
    ("_attn_proj.", "_attn.proj."),
    ("_attn_q_norm.weight", "_attn.norm.query_norm"),
    ("_attn_k_norm.weight", "_attn.norm.key_norm"),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.2."),
    ("_in.mlp.0.", "_in.in_layer."),
    ("_in.mlp.2.", "_in.out_layer."),
)


def loaded_name(name):
    for before, after in RENAMED:
        name = name.replace(before, after)
    return name


def parameters(loaded, mean_flow):
    """Those of the model that a program makes of the shapes that it detects."""
    linear, norm = comfyui.linear, comfyui.norm
    d, channels = loaded["img_in.proj.weight"][0][:2]
    text, image = loaded["txt_in.input_embedder.weight"][0][1], loaded["vision_in.proj.0.weight"][0][0]
    wanted = {
        "img_in.proj.weight": (d, channels, 1, 1, 1),
        "img_in.proj.bias": (d,),
        "cond_type_embedding.weight": (3, d),
        **linear("txt_in.input_embedder", text, d),
        **linear("txt_in.c_embedder.in_layer", text, d),
        **linear("txt_in.c_embedder.out_layer", d, d),
        **norm("byt5_in.layernorm", 1472),
        **linear("byt5_in.fc1", 1472, 2048),
        **linear("byt5_in.fc2", 2048, 2048),
        **linear("byt5_in.fc3", 2048, d),
        **norm("vision_in.proj.0", image),
        **linear("vision_in.proj.1", image, image),
        **linear("vision_in.proj.3", image, d),
        **norm("vision_in.proj.4", d),
        **linear("final_layer.linear", d, 32),
        **linear("final_layer.adaLN_modulation.1", d, 2 * d),
    }
    for stem in ("time_in", "txt_in.t_embedder") + (("time_r_in",) if mean_flow else ()):
        wanted |= linear(f"{stem}.in_layer", 256, d) | linear(f"{stem}.out_layer", d, d)
    for n in range(2):
        stem = f"txt_in.individual_token_refiner.blocks.{n}"
        wanted |= norm(f"{stem}.norm1", d) | norm(f"{stem}.norm2", d)
        wanted |= linear(f"{stem}.self_attn.qkv", d, 3 * d) | linear(f"{stem}.self_attn.proj", d, d)
        wanted |= linear(f"{stem}.mlp.0", d, 4 * d) | linear(f"{stem}.mlp.2", 4 * d, d)
        wanted |= linear(f"{stem}.adaLN_modulation.1", d, 2 * d)
    for n in range(comfyui.count(loaded, "double_blocks")):
        for stream in ("img", "txt"):
            stem = f"double_blocks.{n}.{stream}"
            wanted |= linear(f"{stem}_mod.lin", d, 6 * d)
            wanted |= linear(f"{stem}_attn.qkv", d, 3 * d) | linear(f"{stem}_attn.proj", d, d)
            wanted |= linear(f"{stem}_mlp.0", d, 4 * d) | linear(f"{stem}_mlp.2", 4 * d, d)
            wanted |= {f"{stem}_attn.norm.query_norm": (128,), f"{stem}_attn.norm.key_norm": (128,)}
    return wanted


def comfyui_loads(file):
    """None, or why ComfyUI with ComfyUI-GGUF would not load it, or not right."""
    try:
        loaded = comfyui.state(file, comfyui.UNETS)
    except comfyui.Refused as reason:
        return str(reason)
    if "txt_in.individual_token_refiner.blocks.0.norm1.weight" not in loaded:
        return "the tensor is missing by which it is detected"
    if len(loaded["img_in.proj.weight"][0]) != 5:
        return "detected with another patch size"
    wrong = parameters_differ({loaded_name(name): value for name, value in loaded.items()})
    if wrong:
        return wrong
    for name, (shape, dtype) in loaded.items():
        # Linear layers are unpacked, and vectors of BF16 while loading.
        layer = len(shape) == 2 and not name.startswith("cond_type_embedding.")
        vector = len(shape) == 1 and dtype == BF16
        if not (dtype in comfyui.PLAIN or vector or layer and dtype in comfyui.FAST):
            return f"{name} stays packed as {dtype.name}"


def sdcpp_loads(file):
    """None, or why stable-diffusion.cpp would not load it."""
    shapes = {name.removeprefix(comfyui.PREFIX): tensor.shape for name, tensor in file.tensors.items()}
    if any(len(shape) > 4 for shape in shapes.values()):
        # The reader for such files knows no arrays.
        for key, (_, types) in file.metadata.items():
            if types[0] == gguf.GGUFValueType.ARRAY:
                return f"the array {key} beside five dimensions"
    patch, bias = shapes.get("img_in.proj.weight"), shapes.get("img_in.proj.bias")
    if bias and patch and len(patch) == 4:
        shapes["img_in.proj.weight"] = (bias[0], patch[0] // bias[0], *patch[1:])
    if "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight" not in shapes:
        return "get sd version from file failed"
    return parameters_differ({loaded_name(name): (shape, None) for name, shape in shapes.items()})


def parameters_differ(loaded):
    mean_flow = any(name.startswith("time_r_in.") for name in loaded)
    try:
        wanted = parameters(loaded, mean_flow)
    except KeyError as name:
        return f"{name} is missing, by which sizes are detected"
    for name, shape in wanted.items():
        if name not in loaded:
            return f"{name} is missing"
        if loaded[name][0] != shape:
            return f"{name} is {loaded[name][0]}, not {shape}"


def without(name):
    return lambda file: file.tensors.pop(name)


def typed(name, dtype):
    return lambda file: file.convert(name, dtype)


def renamed(file):
    file.rename(lambda name: comfyui.PREFIX + name)


#: The Q8_0 file with something changed.
VARIANTS = {
    "as it is": lambda file: None,
    "prefix model.diffusion_model.": renamed,
    "no metadata": lambda file: file.metadata.clear(),
    "architecture wan3": lambda file: file.set("general.architecture", "wan3"),
    "array beside five dimensions": lambda file: file.set("general.tags", ["text-to-video"]),
    "fold without its shape": lambda file: file.fold("img_in.proj.weight"),
    "Q8_0 conditions": typed("cond_type_embedding.weight", Q8_0),
    "BF16 conditions": typed("cond_type_embedding.weight", BF16),
    "F16 conditions": typed("cond_type_embedding.weight", F16),
    "BF16 patch embedding": typed("img_in.proj.weight", BF16),
    "Q8_0 last modulation": typed("final_layer.adaLN_modulation.1.weight", Q8_0),
    "BF16 norm": typed("double_blocks.0.img_attn_q_norm.weight", BF16),
    "no conditions": without("cond_type_embedding.weight"),
    "no glyphs": without("byt5_in.fc2.bias"),
    "no matrix of the last block": without(f"double_blocks.{LAYERS - 1}.txt_mlp.fc2.weight"),
    "no mark of stable-diffusion.cpp's": without(
        "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight"
    ),
}


def check(to_gguf, path):
    """Which programs `to-gguf check` says load it."""
    run = subprocess.run([to_gguf, "check", path], capture_output=True, text=True)
    assert run.returncode == 1, run
    return {who: word == "yes" for who, word in re.findall(r"^(\w+): (yes|no)$", run.stdout, re.MULTILINE)}


def main():
    begin, wrong = time.monotonic(), []
    to_gguf, scratch = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]) / "hunyuan_video15"

    def row(name, reason):
        print(f"{name:60} {reason or 'yes'}", flush=True)
        if reason:
            wrong.append(name)

    def loads(name, path):
        file, said = gguf_file.File.read(path), check(to_gguf, path)
        found = {"comfyui": comfyui_loads(file), "sdcpp": sdcpp_loads(file), "diffusers": "no loader", "ours": "not run"}
        differ = [f"{who}: {found[who] or 'loads'}, check says otherwise" for who in found if said[who] == bool(found[who])]
        row(f"{name}: {' '.join(who for who in found if not found[who]) or 'nobody'}", "; ".join(differ))

    for task, mean_flow in (("t2v", False), ("i2v", True)):
        folder = scratch / f"{task}-Diffusers"
        transformer, vae = checkpoint(folder, task, mean_flow)
        for layout in ("5d", "fold4d"):
            out = scratch / f"{task}-{layout}"
            command = [to_gguf, folder, "-o", out, "--quant", "F32,Q8_0,Q4_K_M", "--name", "M", "--layout", layout]
            subprocess.run(command, check=True, capture_output=True, text=True)
            for quant in ("F32", "Q8_0", "Q4_K_M"):
                loads(f"{task} {layout} {quant}", out / f"M-{quant}.gguf")
            file = gguf_file.File.read(out / "M-F32.gguf")
            if layout == "fold4d":
                patch = file.tensors["img_in.proj.weight"]
                patch.shape = (D, patch.shape[0] // D, *patch.shape[1:])
            row(f"{task} {layout}: {len(transformer)} tensors are diffusers'", same(back(file), transformer))
        renamed_back = load_file(out / "VAE" / "M-VAE.safetensors")
        row(f"{task}: {len(vae)} tensors of the VAE are diffusers'", same(vae_back(renamed_back), vae))

    base = gguf_file.File.read(scratch / "t2v-5d" / "M-Q8_0.gguf")
    for name, change in VARIANTS.items():
        file = copy.deepcopy(base)
        change(file)
        path = scratch / "changed.gguf"
        file.write(path)
        loads(name, path)
    print(f"\n{time.monotonic() - begin:.0f} s; {len(wrong)} wrong", *wrong, sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
