"""Checkpoints with random weights whose rows are multiples of 256, for every transformer that `to-gguf` converts."""

import pathlib
import sys

from diffusers import WanVACETransformer3DModel
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "reference"))
import checkpoint

#: Those of `tests/reference/checkpoint.py`, whose text encoder and VAE every model here has.
PRESET = checkpoint.PRESETS["tiny"]
#: By the arguments of sdcpp/loads.cpp.
SIZES = {"dim": 256, "ffn": PRESET.ffn, "heads": 2, "text": PRESET.text, "layers": PRESET.layers}
ENCODER_SIZES = {"dim": PRESET.text, "ffn": PRESET.text_ffn, "heads": PRESET.text_heads, "layers": PRESET.layers}


def make(folder, model):
    """A whole checkpoint, as tests/reference makes it."""
    sys.argv = ["checkpoint.py", "--out", str(folder), "--model", model, "--preset", "tiny"]
    checkpoint.main()


def make_vace(folder):
    """A transformer alone, for VACE is converted from single files: `folder`/transformer, and its file beside it."""
    model = WanVACETransformer3DModel(
        num_attention_heads=PRESET.heads,
        attention_head_dim=PRESET.head_dim,
        text_dim=PRESET.text,
        ffn_dim=PRESET.ffn,
        num_layers=PRESET.layers,
        vace_layers=[0, 1],
    )
    checkpoint.randomize(model, "transformer", 0)
    model.save_pretrained(folder / "transformer")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "wan2.1-vace-1.3b.safetensors")
