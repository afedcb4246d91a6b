"""Make a small Wan2.2-T2V-A14B checkpoint with random weights, in the exact layout of the published ones.

    python checkpoint.py --out FOLDER [--preset xs|tiny|k256] [--seed N]

Every tensor is drawn from its own generator, seeded with the crc32 of its name started from --seed: the
same torch gives the same bytes, and a tensor keeps its values when others come or go. No norm weight, bias
or table is 1 or 0, so one that a port forgets shows in its output.
"""

import argparse
import dataclasses
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
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import UMT5Config, UMT5EncoderModel

VOCABULARY_ROWS = 512  # more than the tokenizer's pieces, as umt5-xxl's 256384 are more than its 256300
EXTRA_IDS = 12
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


PRESETS = {
    # Small enough to commit; rows are multiples of 32 only.
    "xs": Preset(heads=2, head_dim=32, ffn=128, layers=2, text=64, text_heads=2, text_ffn=128, shard="200KB"),
    # Rows are multiples of 256, which the K-quants need, and the heads are as wide as the real ones.
    "tiny": Preset(heads=2, head_dim=128, ffn=512, layers=2, text=256, text_heads=4, text_ffn=512, shard="3MB"),
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
        if name.endswith("scale_shift_table"):
            value = 0.3 * draw
        elif "relative_attention_bias" in name:
            value = 0.7 * draw
        elif name.endswith("gamma") or (parameter.ndim == 1 and name.endswith("weight")):
            value = 1 + 0.15 * draw
        elif name.endswith("bias"):
            value = 0.1 * draw
        elif name.endswith(("shared.weight", "embed_tokens.weight")):
            value = draw
        else:
            # UMT5's attention has no 1/sqrt(d): a smaller q keeps its softmax from saturating.
            gain = 0.35 if ".SelfAttention.q." in name else 1.0
            value = gain * draw * parameter[0].numel() ** -0.5
        parameter.copy_(value)
    return module.eval()


def transformer(preset, component, seed):
    module = WanTransformer3DModel(
        num_attention_heads=preset.heads,
        attention_head_dim=preset.head_dim,
        text_dim=preset.text,
        ffn_dim=preset.ffn,
        num_layers=preset.layers,
    )
    return randomize(module, component, seed).to(preset.dtype)


def vae(preset, seed):
    module = randomize(AutoencoderKLWan(base_dim=preset.vae_base), "vae", seed)
    # Most pixels inside [-1, 1], a few outside: the clamp is exercised and hides little.
    module.decoder.conv_out.weight.mul_(0.7)
    return module


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="replaced if it exists")
    parser.add_argument("--preset", choices=PRESETS, default="xs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    preset, seed, out = PRESETS[arguments.preset], arguments.seed, arguments.out

    if out.exists():
        assert (out / "model_index.json").exists(), f"{out} holds something other than a checkpoint"
        shutil.rmtree(out)
    write_tokenizer(out / "tokenizer")
    for name in ("transformer", "transformer_2"):
        transformer(preset, name, seed).save_pretrained(out / name, max_shard_size=preset.shard)
    text_encoder(preset, seed).save_pretrained(out / "text_encoder", max_shard_size=preset.shard)
    vae(preset, seed).save_pretrained(out / "vae")
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.save_pretrained(out / "scheduler")
    index = {
        "_class_name": "WanPipeline",
        "_diffusers_version": "0.35.0.dev0",
        "boundary_ratio": 0.875,
        "expand_timesteps": False,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    write_json(out / "model_index.json", index)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {arguments.preset}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
