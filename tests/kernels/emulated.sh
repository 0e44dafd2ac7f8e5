#!/bin/sh
# Runs a check of the kernels on a CPU that an emulator makes, and looks at what it left out: a CPU that lacks an
# instruction ends a program that meets it, so the kernels of features it has not must be left out, and no others.
# usage: emulated.sh EMULATOR CPU PROGRAM LEFT_OUT
# LEFT_OUT: variants that this CPU cannot run, sorted and joined by commas; "-" for none.
set -eu
emulator=$1 cpu=$2 program=$3 expected=$4
output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
"$emulator" -cpu "$cpu" "$program" --short >"$output" || status=$?
cat "$output"
if [ "$status" -gt 1 ]; then
    echo "Bail out! $cpu: ended with status $status (132: an instruction that this CPU lacks)"
    exit 1
fi
left_out=$(sed -n 's/^# left out: [^ ]* \([^ ]*\) .*/\1/p' "$output" | LC_ALL=C sort -u | paste -sd, -)
if [ "${left_out:--}" != "$expected" ]; then
    echo "Bail out! $cpu: left out ${left_out:-nothing}, expected $expected"
    exit 1
fi
exit "$status"
