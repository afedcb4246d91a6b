"""The models that checkpoint.py makes and golden.py runs: one row each, told apart as their published configurations are.

Sources: the `config.json` and `model_index.json` of Wan-AI's repositories in diffusers layout, diffusers'
`scripts/convert_wan_to_diffusers.py`, and `wan/configs/*.py` of the original code.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    #: Class in model_index.json.
    pipeline: str
    #: The scheduler's.
    flow_shift: float
    #: Of the transformer.
    in_channels: int = 16
    out_channels: int = 16
    #: Two experts, and where they change.
    boundary_ratio: float | None = None
    #: The VAE of Wan 2.2 and one timestep a token: TI2V-5B.
    expand_timesteps: bool = False
    #: A CLIP and the image embedder.
    image_encoder: bool = False
    #: First and last frame to video.
    last_image: bool = False
    #: What golden.py samples with.
    steps: int = 3
    guidance_scale: float = 5.0
    guidance_scale_2: float | None = None

    @property
    def takes_image(self):
        """Whether a run needs an image (TI2V-5B can do without)."""
        return self.pipeline == "WanImageToVideoPipeline"

    @property
    def experts(self):
        """The transformers: folder, and the prefix of its taps."""
        if self.boundary_ratio is None:
            return {"transformer": "single"}
        return {"transformer": "high", "transformer_2": "low"}

    @property
    def wan21(self):
        """Published before model_index.json had `boundary_ratio` and `expand_timesteps`."""
        return self.boundary_ratio is None and not self.expand_timesteps


ROWS = {
    "wan2.2-t2v-a14b": Row(
        "WanPipeline", 3.0, boundary_ratio=0.875, steps=4, guidance_scale=4.0, guidance_scale_2=3.0
    ),
    # The second of its four timesteps is 900: exactly where the experts change.
    "wan2.2-i2v-a14b": Row(
        "WanImageToVideoPipeline",
        3.0,
        in_channels=36,
        boundary_ratio=0.9,
        steps=4,
        guidance_scale=3.5,
        guidance_scale_2=3.0,
    ),
    "wan2.2-ti2v-5b": Row("WanPipeline", 5.0, in_channels=48, out_channels=48, expand_timesteps=True),
    "wan2.1-t2v-1.3b": Row("WanPipeline", 3.0, guidance_scale=6.0),
    "wan2.1-i2v-14b": Row("WanImageToVideoPipeline", 3.0, in_channels=36, image_encoder=True),
    "wan2.1-flf2v-14b": Row("WanImageToVideoPipeline", 16.0, in_channels=36, image_encoder=True, last_image=True),
}
DEFAULT = "wan2.2-t2v-a14b"
