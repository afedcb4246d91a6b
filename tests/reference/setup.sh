#!/bin/sh
# Make the Python environment of the reference scripts from PyPI alone.
#
#   ./setup.sh FOLDER
#
# On Linux the only torch wheel there is a CUDA build. It is installed without its CUDA wheels (3 GB), and
# stubs.py makes a library in their place: enough for a machine that computes on the CPU.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
python3 -m venv "$1"
"$1/bin/pip" install --quiet --no-deps -r "$here/requirements.txt"
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    "$1/bin/python" "$here/stubs.py" "$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
fi
"$1/bin/python" -c 'import torch, diffusers, ftfy, sentencepiece, transformers; print("torch", torch.__version__)'
