"""Gives files of `to-gguf`, and broken ones, to every program that is to read them, and compares with `to-gguf check`.

    python matrix.py TO_GGUF GGUF_VIDEO SCRATCH [--only TEXT]

Prints a row for each file: what each program did, and what `check` said where that is something else.
Exit code 1 if something is.
"""

import argparse
import copy
import pathlib
import subprocess
import time

import checkpoints
import comfyui
import diffusers_loads
import gguf
import numpy
import ours
import sdcpp
import variants
from gguf_file import File

CONSUMERS = ("comfyui", "sdcpp", "diffusers", "ours")
QUANTS = "F32,F16,BF16,Q8_0,Q6_K,Q5_K_M,Q5_0,Q4_K_M,Q4_0,Q3_K_M,Q2_K,IQ4_NL,IQ4_XS"
FEW = "F32,Q4_K_M"
#: Model, its types, what sdcpp/loads.cpp is told, and what it takes the file for.
MODELS = {
    "wan2.2-t2v-a14b": (QUANTS, {}),
    "wan2.2-i2v-a14b": (FEW, {"in": 36}),
    "wan2.2-ti2v-5b": (FEW, {"in": 48, "out": 48}),
    "wan2.1-t2v-1.3b": (FEW, {}),
    "wan2.1-i2v-14b": (FEW, {"in": 36, "image": 256}),
    "wan2.1-flf2v-14b": (FEW, {"in": 36, "image": 256}),
    "vace": (FEW, {"vace": 2}),
}
TI2V = "wan2.2-ti2v-5b"


class Matrix:
    def __init__(self, to_gguf, gguf_video, scratch, only):
        self.to_gguf, self.scratch, self.only = to_gguf, scratch, only
        self.ours = ours.Program(gguf_video, scratch)
        self.rows, self.wrong, self.reasons = [], [], []
        self.reference = {}

    def convert(self, *arguments):
        subprocess.run([self.to_gguf, *map(str, arguments)], check=True, capture_output=True, text=True)

    def check(self, path):
        """What `to-gguf check` says of a file: consumer to its problems."""
        run = subprocess.run(
            [self.to_gguf, "check", path, "--for", ",".join(CONSUMERS)], capture_output=True, text=True
        )
        assert run.returncode in (0, 1), run
        said, who = {}, None
        for line in run.stdout.splitlines():
            if line.startswith("  "):
                if not line.startswith("  note: "):
                    said[who].append(line.strip())
            else:
                who, word = line.split(": ")
                assert word in ("yes", "no"), line
                said[who] = [] if word == "yes" else [None]
        for problems in said.values():
            if problems:
                problems.remove(None)
                assert problems, run.stdout
        assert list(said) == list(CONSUMERS), run
        return said

    def row(self, name, path, found):
        """Compares what was found with what `check` says. None is: it loads."""
        said = self.check(path)
        cells, before = [], len(self.wrong)
        for who in CONSUMERS:
            loads, expected = found[who] is None, not said[who]
            word = "yes" if loads else "no"
            cells.append(word if loads == expected else f"{word}!")
            if loads != expected:
                reason = found[who] if not loads else f"it does; check: {said[who][0]}"
                self.wrong.append(f"{name}: {who}: {reason}")
            if not loads:
                self.reasons.append(f"{name}: {who}: {found[who]}")
        self.rows.append((name, *cells))
        print(f"{name:44}", *(f"{cell:9}" for cell in cells), flush=True)
        for line in self.wrong[before:]:
            print("   ", line[:600], flush=True)

    def transformer(self, name, path, model, folder, extra, whole=None):
        """A transformer's file. `whole` holds the values that it should load as; unless given, its own."""
        if self.only not in name:
            return
        file = File.read(path)
        whole = whole or {name: tensor.values() for name, tensor in file.tensors.items()}
        kind = "vace" if model == "vace" else "transformer"
        loaded = sdcpp.loads("transformer", path, checkpoints.SIZES | extra, self.scratch)
        if isinstance(loaded, dict):
            loaded = difference(loaded, whole)
        # The same values were there before in most variants: their output is kept.
        key = hash((model, folder, *(hash(value.tobytes()) for value in whole.values())))
        if key not in self.reference:
            self.reference[key] = diffusers_loads.output(diffusers_loads.plain(kind, folder, whole))
        found = {
            "comfyui": comfyui.loads("transformer", file, checkpoints.PRESET.text),
            "sdcpp": loaded,
            "diffusers": diffusers_loads.transformer(path, kind, folder, self.reference[key], packed(file)),
            "ours": self.ours.transformer(path, model),
        }
        self.row(name, path, found)

    def values(self, path):
        """gguf-py against us: the values of every tensor, and every key. Returns the number of tensors."""
        file = File.read(path)
        out = self.scratch / "again"
        self.convert(path, "-o", out, "--quant", "F32", "--name", "again", "--force")
        (again,) = out.rglob("*.gguf")
        decoded = File.read(again)
        again.unlink()
        assert file.tensors.keys() == decoded.tensors.keys()
        for name, tensor in file.tensors.items():
            got = decoded.tensors[name]
            assert got.dtype == gguf.GGMLQuantizationType.F32
            same = numpy.array_equal(got.values().reshape(-1).view(numpy.uint32), tensor.values().reshape(-1).view(numpy.uint32))
            assert same, f"{path}: {name} ({tensor.dtype.name}) differs from gguf-py's"
        return len(file.tensors)


def packed(file):
    """Whether something is of a type whose scales are F16."""
    exact = {"F32", "F16", "BF16", "IQ4_NL"}
    return any(tensor.dtype.name not in exact for tensor in file.tensors.values())


def difference(loaded, whole):
    """None, or which values stable-diffusion.cpp has that are not the file's, by gguf-py."""
    if loaded.keys() != whole.keys():
        return f"other parameters: {sorted(loaded.keys() ^ whole.keys())[:3]}"
    for name, value in loaded.items():
        expected = whole[name].reshape(-1)
        if name.endswith("patch_embedding.weight"):
            # Its convolutions compute with F16 whatever the file has.
            expected = expected.astype(numpy.float16).astype(numpy.float32)
        if not numpy.allclose(value, expected, rtol=1e-6, atol=1e-7):
            return f"{name} has other values"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to_gguf", type=pathlib.Path)
    parser.add_argument("gguf_video", type=pathlib.Path)
    parser.add_argument("scratch", type=pathlib.Path)
    parser.add_argument("--only", default="", help="transformers' rows whose names have this in them")
    arguments = parser.parse_args()
    begin, scratch = time.monotonic(), arguments.scratch
    matrix = Matrix(arguments.to_gguf.resolve(), arguments.gguf_video.resolve(), scratch, arguments.only)
    print(f"{'file':44}", *(f"{who:9}" for who in CONSUMERS))

    compared = 0
    for model, (quants, extra) in MODELS.items():
        source = scratch / "checkpoints" / model
        if not source.exists():
            checkpoints.make_vace(source) if model == "vace" else checkpoints.make(source, model)
        for layout in ("5d", "fold4d"):
            out = scratch / f"{model}-{layout}"
            given = source / "wan2.1-vace-1.3b.safetensors" if model == "vace" else source
            options = ["--publish", "--license", "mit"] if layout == "5d" and model != "vace" else []
            matrix.convert(given, "-o", out, "--quant", quants, "--name", "M", "--layout", layout, "--force", *options)
            for path in sorted(out.rglob("*.gguf")):
                part = path.parent.name
                name = f"{model} {layout} {path.stem.removeprefix('M-')}"
                if part in ("TextEncoder", "VAE", "ImageEncoder"):
                    continue
                if arguments.only in name:
                    compared += matrix.values(path)
                folder = source / ("transformer_2" if part == "LowNoise" else "transformer")
                # Two experts differ in nothing but their values: of the second, one type is enough.
                if part == "LowNoise" and not path.stem.endswith("Q8_0"):
                    continue
                whole = None
                if layout == "fold4d":
                    five = File.read(scratch / f"{model}-5d" / path.relative_to(out))
                    whole = {name: tensor.values() for name, tensor in five.tensors.items()}
                matrix.transformer(name, path, model, folder, extra, whole)

    t2v = scratch / "wan2.2-t2v-a14b-5d"
    folder = scratch / "checkpoints/wan2.2-t2v-a14b/transformer"
    for name, change, base in variants.VARIANTS:
        file = File.read(t2v / f"HighNoise/M-HighNoise-{base}.gguf")
        whole = {name: tensor.values() for name, tensor in file.tensors.items()}
        changed = copy.deepcopy(file)
        change(changed)
        for key in whole:
            # Where a variant has other types, its own values are right.
            if key in changed.tensors and changed.tensors[key].dtype != file.tensors[key].dtype:
                whole[key] = changed.tensors[key].values().reshape(whole[key].shape)
        path = scratch / "changed.gguf"
        changed.write(path)
        matrix.transformer(name, path, "wan2.2-t2v-a14b", folder, {}, whole)

    encoder = scratch / "checkpoints/wan2.2-t2v-a14b/text_encoder"
    for path in sorted((t2v / "TextEncoder").glob("*.gguf")):
        file = File.read(path)
        whole = {name: tensor.values() for name, tensor in file.tensors.items()}
        loaded = sdcpp.loads("t5xxl", path, checkpoints.ENCODER_SIZES | {"vocabulary": 512}, scratch)
        compared += len(file.tensors)
        found = {
            "comfyui": comfyui.loads("text_encoder", file, None),
            "sdcpp": None if isinstance(loaded, dict) else loaded,
            "diffusers": diffusers_loads.text_encoder(path, encoder, whole),
            "ours": matrix.ours.part("text_encoder", path),
        }
        matrix.row(f"text encoder {path.stem.removeprefix('M-umt5-')}", path, found)

    for model, sizes in (("wan2.2-t2v-a14b", {"dim": 4}), (TI2V, {"dim": 2, "decoder_dim": 4, "z_dim": 48, "wan2_2": 1})):
        source = scratch / "checkpoints" / model / "vae"
        for layout in ("5d", "fold4d"):
            (path,) = (scratch / f"{model}-{layout}" / "VAE").glob("*.gguf")
            loaded = sdcpp.loads("vae", path, sizes, scratch)
            found = {
                "comfyui": comfyui.loads("vae", None, None),
                "sdcpp": None if isinstance(loaded, dict) else loaded,
                "diffusers": diffusers_loads.vae(path, source),
                "ours": matrix.ours.part("vae", path, model),
            }
            matrix.row(f"VAE of {model} {layout}", path, found)
        (path,) = (scratch / f"{model}-5d" / "VAE").glob("*.safetensors")
        loaded = sdcpp.loads("vae", path, sizes, scratch)
        assert isinstance(loaded, dict), loaded
        # diffusers' converter knows the names of 2.1's alone.
        loaded = diffusers_loads.vae(path, source)
        assert (loaded is None) == (model != TI2V), loaded

    i2v = scratch / "wan2.1-i2v-14b-5d"
    for path in sorted((i2v / "ImageEncoder").glob("*.gguf")):
        preset = checkpoints.PRESET
        sizes = {"dim": preset.clip, "ffn": 2 * preset.clip, "heads": preset.clip_heads, "layers": preset.clip_layers}
        loaded = sdcpp.loads("clip_vision", path, sizes, scratch)
        found = {
            "comfyui": comfyui.loads("image_encoder", None, None),
            "sdcpp": None if isinstance(loaded, dict) else loaded,
            "diffusers": diffusers_loads.image_encoder_gguf(path),
            "ours": matrix.ours.part("image_encoder", path, "wan2.1-i2v-14b"),
        }
        matrix.row(f"image encoder {path.stem.removeprefix('M-clip-')}", path, found)

    print(f"\n{len(matrix.rows)} files; {compared} tensors have gguf-py's values, bit for bit")
    print("Wan 2.1's VAE in safetensors decodes the same in diffusers; stable-diffusion.cpp loads both")
    plain, packed = diffusers_loads.WORST[False], diffusers_loads.WORST[True]
    print(f"transformers by diffusers: {plain:.1e} of the largest value; {packed:.1e} where it unpacks types")
    print("\nwhy not:", *sorted({reason[:300] for reason in matrix.reasons}), sep="\n  ")
    print(f"\n{time.monotonic() - begin:.0f} s; `check` is wrong {len(matrix.wrong)} times", *(line[:600] for line in matrix.wrong), sep="\n  ")
    return 1 if matrix.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
