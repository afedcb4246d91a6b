"""stable-diffusion.cpp: its loader and modules themselves, compiled from the source of a package on PyPI by setup.sh."""

import pathlib
import struct
import subprocess
import sys

import numpy

PROGRAM = pathlib.Path(sys.prefix, "bin", "sdcpp-loads")
PREFIXES = {
    "transformer": "model.diffusion_model.",
    "t5xxl": "text_encoders.t5xxl.transformer.",
    "vae": "first_stage_model.",
    "clip_vision": "cond_stage_model.transformer.",
}


def values(path):
    """What the program wrote: name to F32 values."""
    found, data, at = {}, path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        name = data[at + 8 : at + 8 + length].decode()
        at += 8 + length
        (count,) = struct.unpack_from("<Q", data, at)
        found[name] = numpy.frombuffer(data, numpy.float32, count, at + 8)
        at += 8 + 4 * count
    return found


def loads(kind, path, sizes, scratch):
    """The values of the parameters by name, without prefix; or why not."""
    out = scratch / "sdcpp.values"
    arguments = [PROGRAM, kind, path, out, *(f"{name}={number}" for name, number in sizes.items())]
    run = subprocess.run(arguments, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    if run.returncode == 0 and lines[-1] == "loaded":
        found = values(out)
        out.unlink()
        return {name.removeprefix(PREFIXES[kind]): value for name, value in found.items()}
    assert run.returncode == 1 and lines[-1] == "refused", f"{path}: {run}"
    errors = [line.strip() for line in lines[:-1] if "unknown tensor" not in line and "version: " not in line]
    return errors[0] if errors else "refused"
