#!/bin/sh
# Builds a check of the kernels for aarch64 with the cross file and runs it on a CPU of qemu-user.
# usage: aarch64.sh SOURCE_FOLDER BUILD_FOLDER (made when missing) PROGRAM CPU LEFT_OUT (as of emulated.sh)
set -eu
source=$1 build=$2 program=$3 cpu=$4 left_out=$5
(
    flock 9 # several tests share the folder
    if [ ! -f "$build/build.ninja" ]; then
        meson setup -Dkernels_only=true --cross-file "$source/cross/aarch64-linux-gnu.ini" "$build" "$source" >&2
    fi
    ninja -C "$build" "tests/kernels/$program" >&2
) 9>"$build.lock"
exec "${0%/*}/emulated.sh" qemu-aarch64 "$cpu" "$build/tests/kernels/$program" "$left_out"
