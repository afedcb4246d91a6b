"""Make a small Wan checkpoint with random weights, in the exact layout of the published ones.

    python checkpoint.py --out FOLDER [--model NAME] [--preset xs|tiny|k256] [--seed N] [--base FOLDER]...

--model is a row of rows.py. --base leaves out the components that another checkpoint has, byte by byte: what
stays is what tells the model from that one.

Every tensor is drawn from its own generator, seeded with the crc32 of its name started from --seed: the
same torch gives the same bytes, and a tensor keeps its values when others come or go. No norm weight, bias
or table is 1 or 0, so one that a port forgets shows in its output.
"""

import argparse
import dataclasses
import filecmp
import io
import json
import os
import pathlib
import shutil
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import sentencepiece
import torch
import transformers
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from rows import DEFAULT, ROWS
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

VOCABULARY_ROWS = 512  # more than the tokenizer's pieces, as umt5-xxl's 256384 are more than its 256300
EXTRA_IDS = 12
# What CLIP makes of an image of 224 x 224 pixels: 16 x 16 patches and the class token.
IMAGE_TOKENS = 257
# Of the VAE of Wan 2.2, by channel (`wan/modules/vae2_2.py`).
LATENTS_MEAN = [
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
]
LATENTS_STD = [
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
]
SEED_LINES = (
    "a cat and a dog baking a cake together in a kitchen",
    "the camera pans left over a quiet lake at dawn , soft light , film grain",
    "one red ball rolls down a wooden table and falls",
    "snow settles on a street while people walk home",
    "blurry , worst quality , static , low detail , extra fingers , subtitles",
    "fine flour , 1/2 cup ; it's < 3 spoons , pour & stir !",
    'A dog. A cat? The end: "quoted" words - and (so on) 0 1 2 3 4 5 6 7 8 9',
    "1\u20442 caf\u00e9 na\u00efve AB C",
    "\u4e00\u53ea\u732b \u72d7 \u53a8\u623f \u86cb\u7cd5",
)


@dataclasses.dataclass(frozen=True)
class Preset:
    heads: int
    head_dim: int
    ffn: int
    layers: int
    text: int
    text_heads: int
    text_ffn: int
    shard: str
    dtype: torch.dtype = torch.float32
    vae_base: int = 4
    vae22_base: int = 2
    vae22_decoder_base: int = 4
    clip: int = 32
    clip_heads: int = 2
    clip_layers: int = 3


PRESETS = {
    # Small enough to commit; rows are multiples of 32 only.
    "xs": Preset(heads=2, head_dim=32, ffn=128, layers=2, text=64, text_heads=2, text_ffn=128, shard="200KB"),
    # Rows are multiples of 256, which the K-quants need, and the heads are as wide as the real ones.
    "tiny": Preset(heads=2, head_dim=128, ffn=512, layers=2, text=256, text_heads=4, text_ffn=512, shard="3MB", clip=256),
    # The least that has rows of 256.
    "k256": Preset(
        heads=2,
        head_dim=128,
        ffn=256,
        layers=1,
        text=256,
        text_heads=4,
        text_ffn=256,
        shard="1MB",
        dtype=torch.bfloat16,
    ),
}


def randomize(module, component, seed):
    """Draw every parameter of `module`, keeping the variance of what passes through it."""
    for name, parameter in module.named_parameters():
        generator = torch.Generator("cpu").manual_seed(zlib.crc32(f"{component}/{name}".encode(), seed))
        draw = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("scale_shift_table", "pos_embed", "class_embedding")):
            value = 0.3 * draw
        elif "relative_attention_bias" in name:
            value = 0.7 * draw
        elif name.endswith("gamma") or (parameter.ndim == 1 and name.endswith("weight")):
            value = 1 + 0.15 * draw
        elif name.endswith("bias"):
            value = 0.1 * draw
        elif name.endswith(("shared.weight", "embed_tokens.weight", "position_embedding.weight")):
            value = draw
        else:
            # UMT5's attention has no 1/sqrt(d): a smaller q keeps its softmax from saturating.
            gain = 0.35 if ".SelfAttention.q." in name else 1.0
            value = gain * draw * parameter[0].numel() ** -0.5
        parameter.copy_(value)
    return module.eval()


def transformer(row, preset, component, seed):
    dim = preset.heads * preset.head_dim
    module = WanTransformer3DModel(
        num_attention_heads=preset.heads,
        attention_head_dim=preset.head_dim,
        in_channels=row.in_channels,
        out_channels=row.out_channels,
        text_dim=preset.text,
        ffn_dim=preset.ffn,
        num_layers=preset.layers,
        image_dim=preset.clip if row.image_encoder else None,
        added_kv_proj_dim=dim if row.image_encoder else None,
        pos_embed_seq_len=2 * IMAGE_TOKENS if row.last_image else None,
    )
    return randomize(module, component, seed).to(preset.dtype)


def vae(row, preset, seed):
    if row.expand_timesteps:
        module = AutoencoderKLWan(
            base_dim=preset.vae22_base,
            decoder_base_dim=preset.vae22_decoder_base,
            z_dim=48,
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
            latents_mean=LATENTS_MEAN,
            latents_std=LATENTS_STD,
        )
    else:
        module = AutoencoderKLWan(base_dim=preset.vae_base)
    module = randomize(module, "vae", seed)
    # Most pixels inside [-1, 1], a few outside: the clamp is exercised and hides little.
    module.decoder.conv_out.weight.mul_(0.7)
    return module


def image_encoder(preset, seed):
    config = CLIPVisionConfig(
        hidden_size=preset.clip,
        intermediate_size=2 * preset.clip,
        num_hidden_layers=preset.clip_layers,
        num_attention_heads=preset.clip_heads,
        image_size=224,
        patch_size=14,
        hidden_act="gelu",
    )
    return randomize(CLIPVisionModel(config), "image_encoder", seed)


def write_image_encoder(module, folder):
    """Under the names of the published file, which transformers 5 reads but does not write."""
    folder.mkdir()
    module.config.save_pretrained(folder)
    weights = {f"vision_model.{name}": value for name, value in module.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def text_encoder(preset, seed):
    config = UMT5Config(
        vocab_size=VOCABULARY_ROWS,
        d_model=preset.text,
        d_kv=preset.text // preset.text_heads,
        d_ff=preset.text_ffn,
        num_layers=preset.layers,
        num_heads=preset.text_heads,
        feed_forward_proj="gated-gelu",
    )
    return randomize(UMT5EncoderModel(config), "text_encoder", seed).to(torch.bfloat16)


def write_tokenizer(folder):
    """The pipeline of umt5-xxl's tokenizer.json over a unigram vocabulary trained on SEED_LINES.

    Like the original, it lists SentencePiece's byte pieces but does not fall back on them: a character
    outside the vocabulary is `<unk>`, id 3.
    """
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SEED_LINES * 20),
        model_writer=trained,
        model_type="unigram",
        vocab_size=480,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    # The sentinels count down, as T5's do: the last piece is <extra_id_0>.
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(EXTRA_IDS))]
    pieces = [(p.piece, p.score) for p in model.pieces] + [(name, 0.0) for name in sentinels]
    assert len(pieces) <= VOCABULARY_ROWS, len(pieces)

    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    charsmap = model.normalizer_spec.precompiled_charsmap
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<s>", "<unk>", *sentinels])

    folder.mkdir(parents=True)
    # Compact: the published file's indentation would double the size of this one.
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special["additional_special_tokens"] = sentinels[::-1]
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": EXTRA_IDS, **special}
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", special)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def model_index(row):
    def component(present, library, name):
        return [library, name] if present else [None, None]

    optional = {
        "boundary_ratio": row.boundary_ratio,
        "expand_timesteps": row.expand_timesteps,
        "transformer_2": component(row.boundary_ratio, "diffusers", "WanTransformer3DModel"),
    }
    if row.takes_image:
        optional["image_encoder"] = component(row.image_encoder, "transformers", "CLIPVisionModel")
        optional["image_processor"] = component(row.image_encoder, "transformers", "CLIPImageProcessor")
    if row.wan21:
        # What their publishers' diffusers did not know yet is not in these files.
        optional = {key: value for key, value in optional.items() if key.startswith("image_")}
    index = {
        "_class_name": row.pipeline,
        "_diffusers_version": "0.33.0.dev0" if row.wan21 else "0.35.0.dev0",
        **optional,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    return dict(sorted(index.items()))


def same(left, right):
    """Whether two folders have the same files with the same bytes."""
    names = sorted(path.name for path in left.iterdir())
    if not right.is_dir() or names != sorted(path.name for path in right.iterdir()):
        return False
    return not any(filecmp.cmpfiles(left, right, names, shallow=False)[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="replaced if it exists")
    parser.add_argument("--model", choices=ROWS, default=DEFAULT)
    parser.add_argument("--preset", choices=PRESETS, default="xs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", type=pathlib.Path, action="append", default=[], help="leave out what it has")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    row, preset = ROWS[arguments.model], PRESETS[arguments.preset]
    seed, out = arguments.seed, arguments.out

    if out.exists():
        assert (out / "model_index.json").exists(), f"{out} holds something other than a checkpoint"
        shutil.rmtree(out)
    write_tokenizer(out / "tokenizer")
    for name in row.experts:
        transformer(row, preset, name, seed).save_pretrained(out / name, max_shard_size=preset.shard)
    text_encoder(preset, seed).save_pretrained(out / "text_encoder", max_shard_size=preset.shard)
    vae(row, preset, seed).save_pretrained(out / "vae")
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=row.flow_shift
    )
    scheduler.save_pretrained(out / "scheduler")
    if row.image_encoder:
        write_image_encoder(image_encoder(preset, seed), out / "image_encoder")
        CLIPImageProcessor().save_pretrained(out / "image_processor")
    write_json(out / "model_index.json", model_index(row))
    for component in [path for path in out.iterdir() if path.is_dir()]:
        if any(same(component, base / component.name) for base in arguments.base):
            shutil.rmtree(component)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {arguments.model}, {arguments.preset}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
