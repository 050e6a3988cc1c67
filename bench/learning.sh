#!/bin/bash
# What is learned in the same time: RWKV by Corvid beside a GPT, and VRWKV by Corvid beside a ViT, both
# of those by PyTorch on the processor.
# Usage: [MINUTES=30] [PICTURE_MINUTES=60] [RUNS="rwkv4 rwkv6 rwkv7 gpt-strong gpt-nano vrwkv vit"]
#        [THREADS=N] [LAYERS=6] [DIM=256] [CONTEXT=256] [BATCH=8] [LR=1e-3] [LR_FINAL=5e-5]
#        [TEXT=FILE] [IMAGES=cifar10|mnist] [BLAS=FOLDER] [CORVID=PATH] [PYTHON=PATH]
#        [RUN_FOLDER=build/learning] [OUT=docs/results] bench/learning.sh
#
#   RUN_FOLDER  where the runs go, each in a folder of its own; one that has its result.json is done
#               and is not made again, one that was broken off begins anew
#   BLAS        folder of the libblas.so.3 that PyTorch shall use, where the system's is a slow one
#   TEXT        by default tinyshakespeare of the test data ($CORVID_TEST_DATA, or ../shared/data)
# One run after another, each on all threads. The rate falls along a cosine to the end of the time: by
# the clock in PyTorch, in Corvid over as many steps as a trial of 20 says that there will be.
# Writes learning.json, learning.md and learning.svg into OUT.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3}
minutes=${MINUTES:-30} picture_minutes=${PICTURE_MINUTES:-60} threads=${THREADS:-$(nproc)}
runs=${RUNS:-rwkv4 rwkv6 rwkv7 gpt-strong gpt-nano vrwkv vit}
layers=${LAYERS:-6} dim=${DIM:-256} context=${CONTEXT:-256} batch=${BATCH:-8}
lr=${LR:-1e-3} lr_final=${LR_FINAL:-5e-5} images=${IMAGES:-cifar10}
data=${CORVID_TEST_DATA:-$here/../../shared/data}
text=${TEXT:-$data/text/tinyshakespeare/input.txt}
folder=${RUN_FOLDER:-build/learning} out=${OUT:-$here/../docs/results}
if [ $# -gt 0 ]; then
    sed -n '2,16p' "$0" >&2
    exit 2
fi
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$folder"

peer() { # peer VERB OPTION...
    LD_LIBRARY_PATH=${BLAS:+$BLAS:}${LD_LIBRARY_PATH:-} \
        "$python" "$here/train_peers.py" "$@" --threads "$threads" --json >/dev/null
}

# steps_in MINUTES LOG: how many steps fill the time, by a trial's log
steps_in() {
    "$python" - "$@" <<'END'
import json, statistics, sys
lines = [json.loads(line) for line in open(sys.argv[2])]
pairs = [p for p in zip(lines[2:], lines[3:])
         if not {"validation", "accuracy", "saved"} & set(p[1])]
middle = statistics.median(b["seconds"] - a["seconds"] for a, b in pairs)
print(max(20, int(60 * float(sys.argv[1]) / middle)))
END
}

# by_corvid RUN NAME MINUTES LOOKS EVAL OPTION...: a trial, then the run and its result. EVAL is the
# option that says on how much is evaluated.
by_corvid() {
    local run=$folder/$1 name=$2 time=$3 looks=$4 eval=$5 steps guard=()
    shift 5
    rm -rf "$run" "$run.trial"
    "$corvid" train "$@" --threads "$threads" -n 20 --out "$run.trial" "$eval" 1 --quiet >/dev/null
    steps=$(steps_in "$time" "$run.trial/log.jsonl")
    rm -rf "$run.trial"
    # Where the machine turns out slower than in the trial, the run ends all the same.
    if "$corvid" train --help | grep -q -- --minutes; then
        guard=(--minutes "$(awk -v m="$time" 'BEGIN { print 1.2 * m + 1 }')")
    fi
    /usr/bin/time -f %M -o "$run.peak" "$corvid" train "$@" --threads "$threads" -n "$steps" \
        --out "$run" "$eval" 0 --eval-every $(((steps + looks - 1) / looks)) \
        --save-every 1000000 --quiet "${guard[@]}" >/dev/null
    "$python" "$here/learning_report.py" note "$run" --model "$name" --threads "$threads" \
        --minutes "$time" --peak $(($(tail -n 1 "$run.peak") * 1024))
    rm -f "$run.peak" "$run/resume.bin" "$run/tokens.bin"
}

language() { # language ARCH
    by_corvid "$1" "RWKV-${1#rwkv}" "$minutes" 12 --eval-tokens lm --arch "$1" \
        --layers "$layers" --dim "$dim" --context "$context" --batch "$batch" --lr "$lr" \
        --lr-final "$lr_final" --warmup 100 --data "$text"
}

# Of both models; a layer of VRWKV has 13 squares of parameters, of ViT 12.
picture_options=(--layers 6 --dim 128 --patch 4 --batch 128 --lr 1e-3 --lr-final 1e-5 --warmup 200)
picture_source=$data/images/$images
[ "$images" != cifar10 ] || picture_source=$picture_source/cifar10-jpeg.tar.gz

vision() {
    local only=(--size 32)
    [ "$images" = cifar10 ] || only=(--size 28 --flip 0)
    by_corvid vrwkv VRWKV "$picture_minutes" 24 --eval-pictures vision --arch vrwkv \
        "${picture_options[@]}" "${only[@]}" --augment small --data "$picture_source"
}

one_run() {
    case $1 in
    rwkv*) language "$1" ;;
    gpt-nano) peer learn --recipe nano --data "$text" --minutes "$minutes" --out "$folder/$1" ;;
    gpt-*)
        peer learn --recipe "${1#gpt-}" --layers "$layers" --dim "$dim" --context "$context" \
            --batch "$batch" --lr "$lr" --lr-final "$lr_final" --data "$text" \
            --minutes "$minutes" --out "$folder/$1" ;;
    vrwkv) vision ;;
    vit)
        peer learn-pictures --images "$images" --data "$picture_source" \
            --cache "$folder/unpacked" "${picture_options[@]}" --heads 4 \
            --minutes "$picture_minutes" --out "$folder/$1" ;;
    *)
        echo "learning.sh: $1: no such run" >&2
        exit 2 ;;
    esac
}

for run in $runs; do
    if [ -e "$folder/$run/result.json" ]; then
        echo "$run: done before" >&2
        continue
    fi
    echo "$run (load $(cut -d' ' -f1 /proc/loadavg))" >&2
    one_run "$run"
done
"$python" "$here/learning_report.py" report "$folder" "$out"
