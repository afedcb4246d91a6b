"""gguf-video: makes a picture of 32 x 32 pixels with a file."""

import shutil
import subprocess

from PIL import Image



class Program:
    def __init__(self, program, scratch):
        self.program, self.scratch = program, scratch
        Image.effect_noise((48, 48), 60).convert("RGB").save(scratch / "image.png")

    def run(self, *files, image=False, last=False, frames=1):
        """None, or the error. What the picture shows is of no interest: weights are random."""
        empty, state = self.scratch / "empty", self.scratch / "run"
        empty.mkdir(exist_ok=True)
        shutil.rmtree(state, ignore_errors=True)
        arguments = ["run", "--model", empty, *files, "--prompt", "a cat", "--size", "32x32", "--frames", frames]
        arguments += ["--steps", 2, "--guidance", 1, "--threads", 1, "--no-preflight", "--preview", "none"]
        arguments += ["--device", "cpu", "--run-folder", state, "-o", self.scratch / "picture.y4m"]
        if image:
            arguments += ["--image", self.scratch / "image.png"]
        if last:
            arguments += ["--last-image", self.scratch / "image.png"]
        run = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True)
        # 3 is a picture that the judge takes for noise.
        if run.returncode in (0, 3):
            return None
        return " ".join(run.stderr.split()) or f"exit code {run.returncode}"

    def files(self, model, **changed):
        """The files of a model as they are, less those that are given."""
        folder = self.scratch / f"{'wan2.1-t2v-1.3b' if model == 'vace' else model}-5d"
        names = {
            "--high-noise": "HighNoise/M-HighNoise-F32.gguf",
            "--low-noise": "LowNoise/M-LowNoise-F32.gguf",
            "--transformer": "M-F32.gguf",
            "--text-encoder": "TextEncoder/M-umt5-F32.gguf",
            "--image-encoder": "ImageEncoder/M-clip-F16.gguf",
            "--vae": "VAE/M-VAE-F32.gguf",
        }
        found = {option: folder / name for option, name in names.items() if (folder / name).exists()}
        found |= {f"--{option.replace('_', '-')}": path for option, path in changed.items()}
        assert all(option in names for option in found), found
        return [part for pair in found.items() for part in pair]

    def transformer(self, path, model):
        role = "transformer"
        if "a14b" in model:
            role = "low_noise" if "LowNoise" in path.name else "high_noise"
        images = {"image": "i2v" in model or "flf2v" in model, "last": "flf2v" in model}
        images["frames"] = 1 if "t2v" in model or model == "vace" else 5
        return self.run(*self.files(model, **{role: path}), **images)

    def part(self, option, path, model="wan2.2-t2v-a14b"):
        return self.run(*self.files(model, **{option: path}), image="i2v" in model, frames=5)
