"""Run a checkpoint of checkpoint.py with diffusers, in float32 on the CPU, and record what passes between its parts.

    python golden.py --checkpoint FOLDER --out FILE.safetensors [--fixture]

Beside FILE.safetensors goes FILE.json: the texts, the settings, and each tap's largest absolute value.
--fixture keeps every n-th element of the large taps (the strides are in the json), to make a file small
enough to commit. README.md lists the taps.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import torch
import transformers
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

# Runs of whitespace of several kinds, HTML entities, a ligature, a fraction, curly quotes, an em dash, full-width
# letters, a combining accent, Chinese, two adjacent characters outside the vocabulary, and an added token. Over 128
# tokens, so that every bucket of the relative positions is met.
PROMPT = (
    "A  cat &amp;amp; a dog\tbaking a\u00a0cake\r\n together, \ufb01ne \u00bd cup \u2014 \u201csoft\u201d light; "
    "\uff21\uff22\uff23 cafe\u0301 \u4e00\u53ea\u732b \U0001f999\U0001f988 <extra_id_3>tail. "
    "The camera pans left over a quiet lake at dawn, then follows one red ball down a wooden table; people walk home. "
)
# Without "<", ftfy decodes the entities too.
NEGATIVE = "blurry, worst quality &lt; static\u2019s"
SETTINGS = dict(height=64, width=96, num_frames=9, num_inference_steps=4, guidance_scale=4.0, guidance_scale_2=3.0)
SEED = 42

# Taps that --fixture thins out: prefix to the stride along each axis. Strides over pixels are odd, so that
# every phase of the upsampling by two is met.
STRIDES = {
    "high.text_embedding": (13, 1),
    "low.text_embedding": (13, 1),
    "vae.decoder.up_blocks.0": (1, 1, 3, 3),
    "vae.decoder.up_blocks.1": (1, 1, 5, 5),
    "vae.decoder.up_blocks.2": (1, 1, 5, 7),
    "vae.decoder.up_blocks.3": (1, 1, 5, 7),
    "vae.decoder.conv_out": (1, 1, 5, 7),
}


def tokens(x):
    """[1, L, C] or [1, C, F, H, W] -> [L, C]"""
    return (x.flatten(2).transpose(1, 2) if x.ndim == 5 else x)[0]


class Taps(dict):
    """Tensors by name, filled by forward hooks while the pipeline runs."""

    def on_first(self, module, name, shape):
        """Record the output of the first call."""

        def record(_module, _inputs, output):
            if name not in self:
                self[name] = shape(output[0] if isinstance(output, tuple) else output).clone()

        module.register_forward_hook(record)

    def on_each(self, module, name):
        """Record the output of call J as `name.J`."""
        calls = []

        def record(_module, _inputs, output):
            self[f"{name}.{len(calls)}"] = output[0].clone()
            calls.append(None)

        module.register_forward_hook(record)


def attach(taps, pipe, prompt_length):
    for n, block in enumerate(pipe.text_encoder.encoder.block):
        taps.on_first(block, f"text.block.{n}", lambda x: x[0, :prompt_length])
    for expert, model in (("high", pipe.transformer), ("low", pipe.transformer_2)):
        embedder, block = model.condition_embedder, model.blocks[0]
        taps.on_first(model.patch_embedding, f"{expert}.patch_embedding", tokens)
        taps.on_first(embedder.time_embedder, f"{expert}.time_embedding", lambda x: x[0])
        taps.on_first(embedder.time_proj, f"{expert}.time_projection", lambda x: x.view(6, -1))
        taps.on_first(embedder.text_embedder, f"{expert}.text_embedding", tokens)
        taps.on_first(block.attn1.to_q, f"{expert}.blocks.0.self_attn.q", tokens)
        taps.on_first(block.attn1.norm_q, f"{expert}.blocks.0.self_attn.norm_q", tokens)
        taps.on_first(block.attn1, f"{expert}.blocks.0.self_attn", tokens)
        taps.on_first(block.attn2, f"{expert}.blocks.0.cross_attn", tokens)
        taps.on_first(block.ffn, f"{expert}.blocks.0.ffn", tokens)
        for n, block in enumerate(model.blocks):
            taps.on_first(block, f"{expert}.blocks.{n}", tokens)
        taps.on_first(model.proj_out, f"{expert}.head", tokens)
        # The pipeline gives transformers a batch of one and unpacks a tuple: what is left is [C, F, H, W].
        taps.on_first(model, f"{expert}.noise", lambda x: x[0])
    taps.on_first(pipe.vae.post_quant_conv, "vae.post_quant_conv", lambda x: x[0])
    decoder = pipe.vae.decoder
    taps.on_each(decoder.conv_in, "vae.decoder.conv_in")
    taps.on_each(decoder.mid_block, "vae.decoder.mid_block")
    for i, block in enumerate(decoder.up_blocks):
        taps.on_each(block, f"vae.decoder.up_blocks.{i}")
    taps.on_each(decoder.conv_out, "vae.decoder.conv_out")

    step = pipe.scheduler.step
    steps = []

    def record_step(velocity, timestep, latents, **options):
        if not steps:
            taps["latents.init"] = latents[0].clone()
        after = step(velocity, timestep, latents, **options)
        taps[f"step.{len(steps)}.velocity"] = velocity[0].clone()
        taps[f"step.{len(steps)}.latents"] = after[0][0].clone()
        steps.append(timestep)
        return after

    pipe.scheduler.step = record_step


def thin(taps):
    """Keep every n-th element of the taps in STRIDES; returns the strides by tap name."""
    strides = {}
    for name in taps:
        for prefix, stride in STRIDES.items():
            if name == prefix or name.startswith(prefix + "."):
                taps[name] = taps[name][tuple(slice(None, None, n) for n in stride)]
                strides[name] = stride
    return strides


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--fixture", action="store_true", help="thin out the large taps")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()

    # tokenizer.json as it stands. T5TokenizerFast of transformers 5 would rebuild it, with another id for <unk>.
    tokenizer_file = str(arguments.checkpoint / "tokenizer" / "tokenizer.json")
    plain = Tokenizer.from_file(tokenizer_file)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=tokenizer_file, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    pipe = WanPipeline.from_pretrained(arguments.checkpoint, tokenizer=tokenizer, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    texts = {"prompt": PROMPT, "negative": NEGATIVE}
    ids = {key: plain.encode(prompt_clean(text)).ids for key, text in texts.items()}
    for key, text in texts.items():
        assert tokenizer(prompt_clean(text)).input_ids == ids[key], "the pipeline would see other ids"

    taps = Taps({f"{key}.input_ids": torch.tensor(value) for key, value in ids.items()})
    embeds = pipe.encode_prompt(PROMPT, NEGATIVE, do_classifier_free_guidance=True, device="cpu")
    for key, rows in zip(texts, embeds, strict=True):
        taps[f"{key}.embeds"] = rows[0, : len(ids[key])]
        assert not rows[0, len(ids[key]) :].any(), "rows past the text are zero"
    attach(taps, pipe, len(ids["prompt"]))
    generator = torch.Generator("cpu").manual_seed(SEED)
    result = pipe(PROMPT, NEGATIVE, **SETTINGS, generator=generator, output_type="pt")
    taps["video"] = result.frames[0]
    taps["sigmas"] = pipe.scheduler.sigmas.float()
    taps["timesteps"] = pipe.scheduler.timesteps

    largest = {name: tap.abs().max().item() for name, tap in taps.items() if tap.is_floating_point()}
    strides = thin(taps) if arguments.fixture else {}
    save_file({name: tap.contiguous().clone() for name, tap in taps.items()}, arguments.out)
    packages = ("torch", "diffusers", "transformers", "tokenizers", "ftfy")
    info = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "prompt_clean": prompt_clean(PROMPT),
        "negative_clean": prompt_clean(NEGATIVE),
        **SETTINGS,
        "seed": SEED,
        "flow_shift": pipe.scheduler.config.flow_shift,
        "boundary_ratio": pipe.config.boundary_ratio,
        "timesteps": taps["timesteps"].tolist(),
        "clamped_fraction": ((taps["video"] <= 0) | (taps["video"] >= 1)).float().mean().item(),
        "strides": strides,
        "largest": largest,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(info, indent=1) + "\n")
    print(f"{arguments.out}: {len(taps)} taps, {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
