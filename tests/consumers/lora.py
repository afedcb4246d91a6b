"""Merges LoRAs with `to-gguf` and fuses the same files with diffusers, and compares every tensor.

    python lora.py TO_GGUF SCRATCH

diffusers loads them into both experts of a pipeline (`load_lora_weights`, `fuse_lora`, by peft). Exit code 1 where a
value differs by more than 1e-6.
"""

import argparse
import json
import pathlib
import subprocess
import time
import zlib

import checkpoints
import diffusers_loads  # noqa: F401: it silences them
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from gguf_file import File
from names import module, original
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-6
STRENGTHS = {"high": 1.0, "low": 0.75}
MODEL = "wan2.2-t2v-a14b"


def draw(key, *shape):
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn(shape, generator=generator)


def modules(folder):
    """Every module of the blocks with a matrix, by diffusers' name: outputs and inputs."""
    model = WanTransformer3DModel.from_pretrained(folder)
    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return {name: tuple(m.weight.shape) for name, m in linear.items() if name.startswith("blocks.")}


def adapter(style, expert, rank, shapes):
    """Tensors of a file, and its metadata."""
    weights, metadata = {}, {"format": "pt"}
    alpha = rank / 4
    for name, (outputs, inputs) in shapes.items():
        key = f"{expert}/{name}"
        up, down = draw(f"{key}/up", outputs, rank) * 0.05, draw(f"{key}/down", rank, inputs) * 0.1
        if style in ("kohya", "kohya, whole alpha"):
            stem = "lora_unet_" + module(name).replace(".", "_")
            weights[f"{stem}.lora_up.weight"], weights[f"{stem}.lora_down.weight"] = up, down
            weights[f"{stem}.alpha"] = torch.tensor(alpha if style == "kohya" else int(alpha))
        elif style.startswith("original"):
            stem = "diffusion_model." + module(name)
            up_key, down_key = ("lora_up", "lora_down") if style.endswith("alpha") else ("lora_B", "lora_A")
            weights[f"{stem}.{up_key}.weight"], weights[f"{stem}.{down_key}.weight"] = up, down
            if style.endswith("alpha"):
                weights[f"{stem}.alpha"] = torch.tensor(alpha)
            if style.startswith("original, biases"):
                weights[f"{stem}.diff_b"] = draw(f"{key}/bias", outputs) * 0.1
        elif style.startswith("diffusers"):
            weights[f"transformer.{name}.lora_B.weight"], weights[f"transformer.{name}.lora_A.weight"] = up, down
        elif style == "peft":
            weights[f"base_model.model.{name}.lora_B.weight"] = up
            weights[f"base_model.model.{name}.lora_A.weight"] = down
    if style == "diffusers, alpha in the metadata":
        targets = sorted(shapes)
        given = {"r": rank, "lora_alpha": int(alpha), "target_modules": targets, "lora_bias": False}
        metadata["lora_adapter_metadata"] = json.dumps({f"transformer.{k}": v for k, v in given.items()})
    return weights, metadata


def fused(folder, paths, style):
    """The weights of both experts by original name."""
    pipeline = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        scheduler=None,
        transformer=WanTransformer3DModel.from_pretrained(folder / "transformer"),
        transformer_2=WanTransformer3DModel.from_pretrained(folder / "transformer_2"),
        boundary_ratio=0.875,
    )
    for (expert, path), second in zip(paths.items(), (False, True)):
        options = {"load_into_transformer_2": True} if second else {}
        if style == "peft":
            # It has no prefix that diffusers knows: the caller takes it off, as peft's own loader does.
            given = {k.replace("base_model.model.", "transformer."): v for k, v in load_file(path).items()}
        else:
            given = str(path)
        pipeline.load_lora_weights(given, adapter_name=expert, **options)
        component = "transformer_2" if second else "transformer"
        # Strengths of two transformers: one call each.
        pipeline.fuse_lora(components=[component], lora_scale=STRENGTHS[expert])
    pipeline.unload_lora_weights()
    experts = {"high": pipeline.transformer, "low": pipeline.transformer_2}
    return {
        expert: {original(name): value.detach() for name, value in model.state_dict().items()}
        for expert, model in experts.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to_gguf", type=pathlib.Path)
    parser.add_argument("scratch", type=pathlib.Path)
    arguments = parser.parse_args()
    begin, scratch = time.monotonic(), arguments.scratch
    source = scratch / "checkpoints" / MODEL
    if not source.exists():
        checkpoints.make(source, MODEL)
    shapes = modules(source / "transformer")
    before = {
        expert: WanTransformer3DModel.from_pretrained(source / folder).state_dict()
        for expert, folder in (("high", "transformer"), ("low", "transformer_2"))
    }
    styles = [
        "kohya",
        "kohya, whole alpha",
        "peft",
        "diffusers",
        "diffusers, alpha in the metadata",
        "original",
        "original, alpha",
        "original, biases",
        "original, biases, alpha",
    ]
    wrong = 0
    print(f"{'LoRA':44} rank  changed    of tensors  largest difference")
    for style in styles:
        for rank in (32, 128):
            paths = {}
            for expert in STRENGTHS:
                weights, metadata = adapter(style, expert, rank, shapes)
                paths[expert] = scratch / f"lora-{expert}.safetensors"
                save_file(weights, paths[expert], metadata=metadata)
            out = scratch / "merged"
            lora = [(f"--lora-{expert}", f"{path}:{STRENGTHS[expert]}") for expert, path in paths.items()]
            command = [arguments.to_gguf, source, "-o", out, "--quant", "F32", "--name", "M", "--force"]
            run = subprocess.run(
                [*map(str, command), *(part for pair in lora for part in pair)], capture_output=True, text=True
            )
            if run.returncode:
                wrong += 1
                print(f"{style:44} {rank:4}  to-gguf: {run.stderr.strip()}")
                continue
            expected = fused(source, paths, style)
            worst, changed, tensors = 0.0, 0, 0
            for expert, name in (("high", "HighNoise"), ("low", "LowNoise")):
                file = File.read(out / name / f"M-{name}-F32.gguf")
                assert file.tensors.keys() == expected[expert].keys()
                for theirs, value in before[expert].items():
                    got = torch.tensor(file.tensors[original(theirs)].values())
                    worst = max(worst, (got - expected[expert][original(theirs)]).abs().max().item())
                    changed += not torch.equal(got, value)
                    tensors += 1
            # A LoRA that both leave out would agree, too.
            per_expert = len(shapes) * (2 if "biases" in style else 1)
            assert changed == 2 * per_expert, (style, changed)
            bad = not worst <= TOLERANCE
            wrong += bad
            print(f"{style:44} {rank:4}  {changed:7} {tensors:13}  {worst:.1e}{' !' if bad else ''}", flush=True)
    print(f"\n{time.monotonic() - begin:.0f} s; {wrong} LoRAs differ that should not")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
