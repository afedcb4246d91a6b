#!/bin/sh
# Make every committed fixture anew, in the environment of setup.sh.
#
#   ./fixtures.sh
#
# All models have the text encoder, the tokenizer and, but for TI2V-5B, the VAE of the first. The first and
# last frame model has the image encoder of the image one.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
fixtures=$here/../fixtures

checkpoint() { # MODEL FOLDER [BASE...]
    model=$1 folder=$2
    shift 2
    python "$here/checkpoint.py" --model "$model" --out "$fixtures/$folder" "$@"
    python "$here/golden.py" --model "$model" --checkpoint "$fixtures/$folder" "$@" \
        --out "$fixtures/$folder/golden.safetensors" --fixture
}

checkpoint wan2.2-t2v-a14b xs
set -- --base "$fixtures/xs"
for model in wan2.2-i2v-a14b wan2.2-ti2v-5b wan2.1-t2v-1.3b wan2.1-i2v-14b; do
    checkpoint "$model" "$model" "$@"
done
python "$here/golden.py" --model wan2.2-ti2v-5b --checkpoint "$fixtures/wan2.2-ti2v-5b" "$@" --image \
    --out "$fixtures/wan2.2-ti2v-5b/golden-image.safetensors" --fixture
checkpoint wan2.1-flf2v-14b wan2.1-flf2v-14b "$@" --base "$fixtures/wan2.1-i2v-14b"
