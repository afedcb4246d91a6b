"""Encode a clip in which every frame moves with both VAEs, in float32 on the CPU.

    python vae.py --fixtures FOLDER --out FILE.safetensors

The runs of golden.py encode an image and frames of zeros, or one frame: here a wrong order in time shows. The
clip is a formula (tests/wan_vae.rs has the same), so only the latents are kept, normalized as the denoiser has them:
`wan2.1` [16, 3, 8, 12], `wan2.2` [48, 3, 4, 6].
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

FRAMES, HEIGHT, WIDTH = 9, 64, 96
CHECKPOINTS = {"wan2.1": "xs", "wan2.2": "wan2.2-ti2v-5b"}


def clip():
    """[3, T, H, W] in [-1, 1]: value i, counted with channels innermost, is sin(0.7 i + (i // 96)^2 / 50)."""
    i = numpy.arange(FRAMES * HEIGHT * WIDTH * 3)
    values = numpy.sin(0.7 * i + (i // 96) ** 2 / 50.0).astype(numpy.float32)
    return torch.from_numpy(values.reshape(FRAMES, HEIGHT, WIDTH, 3).transpose(3, 0, 1, 2).copy())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fixtures", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    latents = {}
    for name, folder in CHECKPOINTS.items():
        vae = AutoencoderKLWan.from_pretrained(arguments.fixtures / folder / "vae", dtype=torch.float32).eval()
        with torch.no_grad():
            mode = vae.encode(clip()[None]).latent_dist.mode()[0]
        mean, std = (torch.tensor(getattr(vae.config, f"latents_{what}")).view(-1, 1, 1, 1) for what in ("mean", "std"))
        latents[name] = ((mode - mean) * (1.0 / std)).contiguous()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(latents, arguments.out)
    info = {"shape": {name: list(t.shape) for name, t in latents.items()}}
    arguments.out.with_suffix(".json").write_text(json.dumps(info, indent=2) + "\n")


if __name__ == "__main__":
    main()
