#!/bin/bash
# Images per second: Corvid's VRWKV-T beside PyTorch on the processor, in turns, in one run.
# Usage: PEER=PATH/Vision-RWKV [BLAS=FOLDER] [ROUNDS=5] [THREADS=2] [SIZE=224] [BATCHES="8 1"]
#        [TYPES="f32 bf16 q8_0"] [CORVID=PATH] [PYTHON=PATH] bench/vision.sh
#
#   PEER    a checkout of OpenGVLab/Vision-RWKV, whose own module is timed
#   BLAS    folder of the libblas.so.3 that PyTorch shall use, where the system's is a slow one
#   PYTHON  one with PyTorch; /usr/bin/python3 with Debian's python3-torch by default
# Builds nothing. First holds the official module against the reference data, where that is
# ($CORVID_TEST_DATA, or ../shared/data). Prints medians; the ratio is Corvid over the faster of the
# official module in that type and in f32. int8 in PyTorch is its dynamic quantization.
# Status 1 when the rounds lie too far apart to be believed: the machine was not quiet.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3} rounds=${ROUNDS:-5}
threads=${THREADS:-2} size=${SIZE:-224} batches=${BATCHES:-8 1} types=${TYPES:-f32 bf16 q8_0}
golden=${CORVID_TEST_DATA:-$here/../../shared/data}/vrwkv-golden/published
if [ $# -gt 0 ] || [ -z "${PEER:-}" ]; then
    sed -n '2,12p' "$0" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

median() { sort -n | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2)
    print NR == 0 ? "-" : NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'; }

peer() { # peer MODEL OPTION...
    local repo=()
    [ "$1" != vrwkv ] || repo=(--repo "$PEER")
    LD_LIBRARY_PATH=${BLAS:+$BLAS:}${LD_LIBRARY_PATH:-} \
        "$python" "$here/vision_peers.py" "$@" "${repo[@]}" --threads "$threads"
}

# field NAME < JSON, of Corvid or of a peer
field() { "$python" -c 'import json, sys
d = json.load(sys.stdin)
print(d.get("vision", d)[sys.argv[1]])' "$1"; }

peer_type() { if [ "$1" = q8_0 ]; then echo int8; else echo "$1"; fi; }

one_turn() { # one_turn BATCH
    local type out
    for type in $types; do
        "$corvid" bench --shape vrwkv-t --type "$type" --threads "$threads" --size "$size" \
            --batch "$1" --no-probe --json >"$work/json"
        field images_per_s <"$work/json" >>"$work/corvid.$type.$1"
        out=$work/official.$(peer_type "$type").$1
        peer vrwkv --type "$(peer_type "$type")" --size "$size" --batch "$1" --json >"$work/json"
        field images_per_s <"$work/json" >>"$out"
    done
    peer vit --size "$size" --batch "$1" --json >"$work/json"
    field images_per_s <"$work/json" >>"$work/vit.f32.$1"
}

of() { if [ -s "$work/$1" ]; then median <"$work/$1"; else echo -; fi; }

row() { # row TYPE BATCH
    awk -v type="$1" -v batch="$2" -v ours="$(of "corvid.$1.$2")" -v vit="$(of "vit.$1.$2")" \
        -v same="$(of "official.$(peer_type "$1").$2")" -v f32="$(of "official.f32.$2")" 'BEGIN {
        best = same == "-" || (f32 != "-" && f32 + 0 > same + 0) ? f32 : same
        printf "%-6s %5d %9.1f %9.1f %7.2f %9s\n", type, batch, ours, same, ours / best,
            vit == "-" ? vit : sprintf("%.1f", vit) }'
}

# PyTorch's threads spin for each other: beside any other work they are ten times slower.
unsteady() { # the files whose rounds lie far apart
    for file in "$work"/{corvid,official,vit}.*; do
        sort -n "$file" | awk -v name="${file##*/}" 'NR == 1 { least = $1 } { most = $1 }
            END { if (most > 1.5 * least) printf "not steady: %s, %.1f to %.1f; measure again\n",
                name, least, most }'
    done
}

load=$(cut -d' ' -f1 /proc/loadavg)
if awk -v load="$load" 'BEGIN { exit !(load > 0.5) }'; then
    echo "vision.sh: the machine is not idle (load $load): PyTorch's threads wait for each" \
        "other and suffer most, so these ratios will flatter Corvid" >&2
fi
if [ -f "$golden/vrwkv_t_f16.io.safetensors" ]; then
    peer vrwkv --check "$golden" --json >"$work/json"
    echo "official module against the reference data: largest relative error" \
        "$(field max_relative_error <"$work/json")"
fi
for ((round = 0; round < rounds; round++)); do
    for batch in $batches; do one_turn "$batch"; done
done
echo "PyTorch $(field torch <"$work/json"), $(field blas <"$work/json");" \
    "$rounds rounds, $threads threads, $size pixels, images per second"
printf '%-6s %5s %9s %9s %7s %9s\n' type batch corvid official ratio ViT-T
for batch in $batches; do for type in $types; do row "$type" "$batch"; done; done
shaken=$(unsteady)
echo "load before: $load; at the end: $(cut -d' ' -f1 /proc/loadavg), of which this made $threads"
if [ -n "$shaken" ]; then
    echo "$shaken"
    exit 1
fi
