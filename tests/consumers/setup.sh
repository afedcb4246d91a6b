#!/bin/sh
# Make the Python environment of these tests from PyPI alone, with stable-diffusion.cpp's loader compiled in it.
#
#   ./setup.sh FOLDER
#
# Linux x86-64, Python 3.11, a C++ compiler and cmake. JOBS=N compiles with so many processes.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
folder=$1
pin() { sed -n "s/^$1==//p" "$here/requirements.txt"; }

"$here/../reference/setup.sh" "$folder"
"$folder/bin/pip" install --quiet --no-deps "gguf==$(pin gguf)" "peft==$(pin peft)"

source=$folder/sdcpp
mkdir -p "$source"
"$folder/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$source" \
    "stable-diffusion-cpp-python==$(pin stable-diffusion-cpp-python)"
tar -xzf "$source"/*.tar.gz -C "$source" --strip-components 1
cmake -S "$here/sdcpp" -B "$source/build" -DSDCPP="$source/vendor/stable-diffusion.cpp" \
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-O1 -DCMAKE_CXX_FLAGS_RELEASE=-O1 >"$source/cmake.log"
cmake --build "$source/build" --target loads -j "${JOBS:-1}" >"$source/build.log" 2>&1 || {
    tail -20 "$source/build.log" >&2
    exit 1
}
cp "$source/build/loads" "$folder/bin/sdcpp-loads"
rm -rf "$source"
"$folder/bin/python" -c 'import gguf, peft; print("peft", peft.__version__)'
