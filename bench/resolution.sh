#!/bin/bash
# Time and memory of one image against its size: Corvid's VRWKV-T beside a ViT-T of the same width
# and depth in plain PyTorch.
# Usage: [PEER=PATH/Vision-RWKV] [BLAS=FOLDER] [SIZES="224 ... 2048"] [ROUNDS=3] [THREADS=2]
#        [TYPE=f32] [CORVID=PATH] [PYTHON=PATH] [OUT=docs/results] bench/resolution.sh
#
#   PEER    a checkout of OpenGVLab/Vision-RWKV: its module is then measured too, so that the two
#           models can be compared within PyTorch
#   BLAS    folder of the libblas.so.3 that PyTorch shall use, where the system's is a slow one
# Each figure comes from a process of its own, so its peak of memory is that of one size. A size
# whose attention does not fit into free memory is left out, and the table says so.
# Writes resolution.json, resolution.md and resolution.svg.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3} rounds=${ROUNDS:-3}
threads=${THREADS:-2} type=${TYPE:-f32} out=${OUT:-$here/../docs/results}
sizes=${SIZES:-224 384 512 640 768 1024 1280 1600 2048}
if [ $# -gt 0 ]; then
    sed -n '2,12p' "$0" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

peer() {
    LD_LIBRARY_PATH=${BLAS:+$BLAS:}${LD_LIBRARY_PATH:-} "$python" "$here/vision_peers.py" "$@" \
        --batch 1 --threads "$threads" --rounds "$rounds" --json
}

load=$(cut -d' ' -f1 /proc/loadavg)
if awk -v load="$load" 'BEGIN { exit !(load > 0.5) }'; then
    echo "resolution.sh: the machine is not idle (load $load): PyTorch's threads wait for each" \
        "other and suffer most, so the ratios will flatter Corvid" >&2
fi
for size in $sizes; do
    echo "$size pixels" >&2
    "$corvid" bench --shape vrwkv-t --type "$type" --threads "$threads" --size "$size" --batch 1 \
        --repeat "$rounds" --no-probe --json >"$work/corvid.$size"
    peer vit --size "$size" >"$work/vit.$size"
    [ -z "${PEER:-}" ] || peer vrwkv --repo "$PEER" --size "$size" >"$work/official.$size"
done
mkdir -p "$out"
"$python" "$here/resolution_report.py" "$work" "$out" --threads "$threads" --type "$type"
