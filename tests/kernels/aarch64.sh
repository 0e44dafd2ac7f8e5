#!/bin/sh
# Builds the kernels and their check for aarch64 with the cross file and runs it under qemu-user.
# usage: aarch64.sh SOURCE_FOLDER BUILD_FOLDER (made when missing)
set -eu
source=$1 build=$2
if [ ! -f "$build/build.ninja" ]; then
    meson setup -Dkernels_only=true --cross-file "$source/cross/aarch64-linux-gnu.ini" "$build" "$source" >&2
fi
ninja -C "$build" tests/kernels/kernels_check >&2
exec qemu-aarch64 -cpu max "$build/tests/kernels/kernels_check" --short
