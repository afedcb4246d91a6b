"""Run a checkpoint of checkpoint.py with diffusers, in float32 on the CPU, and record what passes between its parts.

    python golden.py --checkpoint FOLDER --out FILE.safetensors [--model NAME] [--base FOLDER]... [--image] [--fixture]

Beside FILE.safetensors goes FILE.json: the texts, the settings, and each tap's largest absolute value.
--base has the components that checkpoint.py left out; --image gives an image to the one model that can do
without. --fixture keeps every n-th element of the large taps (the strides are in the json), to make a file
small enough to commit. README.md lists the taps.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import numpy
import torch
import transformers
from diffusers import WanImageToVideoPipeline, WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from PIL import Image
from rows import DEFAULT, ROWS
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
# What the other rows are asked for: the text encoder is the same, and looked at in the first.
SHORT_PROMPT = "A cat and a dog baking a cake together in a kitchen."
SIZE = dict(height=64, width=96, num_frames=9)
SEED = 42

EXPERTS = ("high", "low", "single")
# Taps that --fixture thins out: prefix to the stride along each axis. Strides over pixels are odd, so that
# every phase of the upsampling by two is met.
STRIDES = {
    **{f"{expert}.text_embedding": (13, 1) for expert in EXPERTS},
    "vae.decoder.up_blocks.0": (1, 1, 3, 3),
    "vae.decoder.up_blocks.1": (1, 1, 5, 5),
    "vae.decoder.up_blocks.2": (1, 1, 5, 7),
    "vae.decoder.up_blocks.3": (1, 1, 5, 7),
    "vae.decoder.conv_out": (1, 1, 5, 7),
}
# What the other rows have in common with the first is kept thinner there.
OTHER_STRIDES = {
    **{f"{expert}.text_embedding": (29, 3) for expert in EXPERTS},
    **{f"{expert}.image_embedding": (17, 1) for expert in EXPERTS},
    **{f"{expert}.{tap}": (5, 1) for expert in EXPERTS for tap in ("patch_embedding", "blocks", "head")},
    "image_encoder.pixels": (1, 1, 13, 11),
    "image_encoder.embeddings": (1, 17, 1),
    "image_encoder.blocks": (1, 17, 1),
    "vae.encoder.conv_in": (1, 1, 9, 11),
    **{f"vae.encoder.down_blocks.{i}": (1, 1, 9, 11) for i in (0, 1)},
    **{f"vae.encoder.down_blocks.{i}": (1, 1, 5, 5) for i in (2, 3, 4)},
    **{f"vae.encoder.down_blocks.{i}": (1, 1, 3, 3) for i in (5, 6, 7)},
    "video": (1, 1, 3, 5),
}
# The VAE of Wan 2.2 works on patches of 2 x 2 pixels, and few tokens are left.
TI2V_STRIDES = {
    "single.text_embedding": (29, 3),
    "vae.decoder.up_blocks.1": (1, 1, 3, 3),
    **{f"vae.decoder.{tap}": (1, 1, 5, 7) for tap in ("up_blocks.2", "up_blocks.3", "conv_out")},
    "video": (1, 1, 3, 5),
}


def picture(width, height, phase):
    """An image that is no frame's size: gradients, stripes that resizing blurs, and a sharp edge."""
    y, x = numpy.mgrid[0:height, 0:width]
    stripes = 127 + 120 * numpy.sin((x * 0.9 + y * 0.35) * (1 + phase))
    edge = numpy.where(x * height > y * width, 230, 20 + 60 * phase)
    channels = (x * 255 // (width - 1), stripes, (edge + y * 255 // (height - 1)) // 2)
    return Image.fromarray(numpy.stack(channels, -1).astype(numpy.uint8))


def tokens(x):
    """[1, L, C] or [1, C, F, H, W] -> [L, C]"""
    return (x.flatten(2).transpose(1, 2) if x.ndim == 5 else x)[0]


def eight_bits(x):
    """[..., C, H, W] of eight bits a value, in [0, 1] -> [..., H, W, C]"""
    rounded = (x * 255).round()
    assert (rounded / 255 - x).abs().max() < 1e-6, "rounding loses nothing"
    return rounded.movedim(-3, -1).to(torch.uint8)


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


def attach_text(taps, pipe, prompt_length):
    for n, block in enumerate(pipe.text_encoder.encoder.block):
        taps.on_first(block, f"text.block.{n}", lambda x: x[0, :prompt_length])


def attach_image_encoder(taps, model, processor):
    def record(_module, _inputs, options):
        pixels = options["pixel_values"]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
        taps["image_encoder.resized"] = eight_bits(pixels * std + mean)
        taps["image_encoder.pixels"] = pixels.clone()

    model.register_forward_pre_hook(record, with_kwargs=True)
    taps.on_first(model.pre_layrnorm, "image_encoder.embeddings", lambda x: x)
    *layers, penultimate, _unused = model.encoder.layers
    for n, layer in enumerate([*layers, penultimate]):
        taps.on_first(layer, f"image_encoder.blocks.{n}", lambda x: x)
    taps.on_first(penultimate, "image_encoder.features", lambda x: x)


def attach_transformers(taps, pipe, row):
    for component, expert in row.experts.items():
        model = getattr(pipe, component)
        embedder, block = model.condition_embedder, model.blocks[0]
        taps.on_first(model.patch_embedding, f"{expert}.patch_embedding", tokens)
        # With expand_timesteps, one for each token: a dimension more in both.
        taps.on_first(embedder.time_embedder, f"{expert}.time_embedding", lambda x: x[0])
        taps.on_first(embedder.time_proj, f"{expert}.time_projection", lambda x: x[0].unflatten(-1, (6, -1)))
        taps.on_first(embedder.text_embedder, f"{expert}.text_embedding", tokens)
        if row.image_encoder:
            taps.on_first(embedder.image_embedder, f"{expert}.image_embedding", tokens)
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


def attach_decoder(taps, pipe):
    taps.on_first(pipe.vae.post_quant_conv, "vae.post_quant_conv", lambda x: x[0])
    decoder = pipe.vae.decoder
    taps.on_each(decoder.conv_in, "vae.decoder.conv_in")
    taps.on_each(decoder.mid_block, "vae.decoder.mid_block")
    for i, block in enumerate(decoder.up_blocks):
        taps.on_each(block, f"vae.decoder.up_blocks.{i}")
    taps.on_each(decoder.conv_out, "vae.decoder.conv_out")


def attach_encoder(taps, pipe):
    encoder = pipe.vae.encoder
    taps.on_each(encoder.conv_in, "vae.encoder.conv_in")
    for i, block in enumerate(encoder.down_blocks):
        taps.on_each(block, f"vae.encoder.down_blocks.{i}")
    taps.on_each(encoder.mid_block, "vae.encoder.mid_block")
    taps.on_each(encoder.conv_out, "vae.encoder.conv_out")
    taps.on_first(pipe.vae.quant_conv, "vae.quant_conv", lambda x: x[0])
    # What is decoded: TI2V-5B's first frame has been put back by then.
    taps.on_first(pipe.vae.post_quant_conv, "vae.post_quant_conv", lambda x: x[0])


def attach_inputs(taps, pipe):
    """What an image becomes: its pixels at the video's size, and what the denoiser is given of it."""
    preprocess, prepare = pipe.video_processor.preprocess, pipe.prepare_latents

    def record_pixels(image, **options):
        pixels = preprocess(image, **options)
        name = "last_image.resized" if "image.resized" in taps else "image.resized"
        taps[name] = eight_bits(pixels / 2 + 0.5)[0]
        return pixels

    def record_condition(*inputs):
        latents, condition, *mask = prepare(*inputs)
        taps["condition"] = condition[0].clone()
        if mask:
            taps["first_frame_mask"] = mask[0][0].clone()
        return latents, condition, *mask

    pipe.video_processor.preprocess, pipe.prepare_latents = record_pixels, record_condition


def attach_steps(taps, pipe):
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


def thin(taps, wanted):
    """Keep every n-th element of the taps that `wanted` has strides for; returns the strides by tap name."""
    strides = {}
    for name in taps:
        for prefix, stride in wanted.items():
            if name == prefix or name.startswith(prefix + "."):
                taps[name] = taps[name][tuple(slice(None, None, n) for n in stride)]
                strides[name] = stride
    return strides


def whole(checkpoint, bases, folder):
    """A folder with the components of all: the checkpoint's own, and what it lacks from `bases`."""
    for source in (checkpoint, *bases):
        for path in source.iterdir():
            target = folder / path.name
            if not target.exists():
                target.symlink_to(path.resolve())
    return folder


def pictures(row):
    images = {"image": picture(118, 70, 0)}
    if row.last_image:
        images["last_image"] = picture(66, 90, 1)
    return images


def open_pipeline(folder, row, image):
    # tokenizer.json as it stands. T5TokenizerFast of transformers 5 would rebuild it, with another id for <unk>.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer" / "tokenizer.json"),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
    )
    pipeline = WanImageToVideoPipeline if row.takes_image else WanPipeline
    pipe = pipeline.from_pretrained(folder, tokenizer=tokenizer, dtype=torch.float32)
    if image and not row.takes_image:
        # One checkpoint, two pipelines.
        pipe = WanImageToVideoPipeline(**pipe.components, expand_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--model", choices=ROWS, default=DEFAULT)
    parser.add_argument("--base", type=pathlib.Path, action="append", default=[], help="has what the checkpoint lacks")
    parser.add_argument("--image", action="store_true", help="run TI2V-5B with an image")
    parser.add_argument("--fixture", action="store_true", help="thin out the large taps")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    row, first = ROWS[arguments.model], arguments.model == DEFAULT
    with_image = row.takes_image or arguments.image
    assert not arguments.image or row.expand_timesteps, "the other models need an image, or take none"

    with tempfile.TemporaryDirectory() as folder:
        folder = whole(arguments.checkpoint, arguments.base, pathlib.Path(folder))
        plain = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        pipe = open_pipeline(folder, row, with_image)

    texts = {"prompt": PROMPT if first else SHORT_PROMPT, "negative": NEGATIVE}
    ids = {key: plain.encode(prompt_clean(text)).ids for key, text in texts.items()}
    for key, text in texts.items():
        assert pipe.tokenizer(prompt_clean(text)).input_ids == ids[key], "the pipeline would see other ids"

    taps = Taps({f"{key}.input_ids": torch.tensor(value) for key, value in ids.items()})
    embeds = pipe.encode_prompt(*texts.values(), do_classifier_free_guidance=True, device="cpu")
    for key, rows in zip(texts, embeds, strict=True):
        taps[f"{key}.embeds"] = rows[0, : len(ids[key])]
        assert not rows[0, len(ids[key]) :].any(), "rows past the text are zero"
    if first:
        attach_text(taps, pipe, len(ids["prompt"]))
    if row.image_encoder:
        attach_image_encoder(taps, pipe.image_encoder, pipe.image_processor)
    attach_transformers(taps, pipe, row)
    # A stage that several rows share is looked at in the first that has it.
    if first or row.expand_timesteps and not with_image:
        attach_decoder(taps, pipe)
    if with_image:
        attach_inputs(taps, pipe)
        if not row.image_encoder:
            attach_encoder(taps, pipe)
    attach_steps(taps, pipe)

    images = pictures(row) if with_image else {}
    for name, image in images.items():
        taps[f"{name}.uint8"] = torch.from_numpy(numpy.array(image))
    settings = dict(**SIZE, num_inference_steps=row.steps, guidance_scale=row.guidance_scale)
    if row.guidance_scale_2 is not None:
        settings["guidance_scale_2"] = row.guidance_scale_2
    prompts = dict(zip(("prompt", "negative_prompt"), texts.values(), strict=True))
    generator = torch.Generator("cpu").manual_seed(SEED)
    result = pipe(**images, **prompts, **settings, generator=generator, output_type="pt")
    taps["video"] = result.frames[0]
    taps["sigmas"] = pipe.scheduler.sigmas.float()
    taps["timesteps"] = pipe.scheduler.timesteps

    largest = {name: tap.abs().max().item() for name, tap in taps.items() if tap.is_floating_point()}
    wanted = STRIDES if first else TI2V_STRIDES if row.expand_timesteps else OTHER_STRIDES
    strides = thin(taps, wanted) if arguments.fixture else {}
    save_file({name: tap.contiguous().clone() for name, tap in taps.items()}, arguments.out)
    packages = ("torch", "diffusers", "transformers", "tokenizers", "ftfy", *(["pillow"] if images else []))
    info = {
        **prompts,
        "prompt_clean": prompt_clean(texts["prompt"]),
        "negative_clean": prompt_clean(texts["negative"]),
        **settings,
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
