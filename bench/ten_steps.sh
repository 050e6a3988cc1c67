#!/bin/bash
# Ten steps of training by Corvid and by official code, from the same start on the same batches:
# the losses must be the same.
# Usage: [LM=PATH/RWKV-LM] [VISION=PATH/Vision-RWKV] [BLAS=FOLDER] [ARCHS="rwkv4 ..."] [LAYERS=4]
#        [DIM=128] [CONTEXT=128] [BATCH=4] [STEPS=10] [WARMUP=N] [TOLERANCE=1e-4] [TEXT=FILE]
#        [CIFAR=FILE] [DOUBLE=1] [CORVID=PATH] [PYTHON=PATH] bench/ten_steps.sh
#
#   LM      a checkout of BlinkDL/RWKV-LM: language models
#   VISION  a checkout of OpenGVLab/Vision-RWKV: VRWKV, on 16 pictures of CIFAR, all in each step
#   TEXT    by default tinyshakespeare of the test data ($CORVID_TEST_DATA, or ../shared/data)
#   DOUBLE  official code in double precision: what then differs is rounding in Corvid
# The start is a run of one step whose gradient is clipped to nothing. WARMUP is 0 for version 4, whose
# official warm-up begins at 0.2 where Corvid's begins at 0.01, and 4 for the others.
# Status 1 when a loss differs by more than TOLERANCE.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3}
archs=${ARCHS:-rwkv4 rwkv5.2 rwkv6 rwkv7} layers=${LAYERS:-4} dim=${DIM:-128}
context=${CONTEXT:-128} batch=${BATCH:-4} steps=${STEPS:-10} tolerance=${TOLERANCE:-1e-4}
data=${CORVID_TEST_DATA:-$here/../../shared/data}
text=${TEXT:-$data/text/tinyshakespeare/input.txt}
cifar=${CIFAR:-$data/images/cifar10/cifar10-jpeg.tar.gz}
if [ $# -gt 0 ] || [ -z "${LM:-}${VISION:-}" ]; then
    sed -n '2,16p' "$0" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1
status=0

compare() { # compare VERB OPTION...
    LD_LIBRARY_PATH=${BLAS:+$BLAS:}${LD_LIBRARY_PATH:-} \
        "$python" "$here/ten_steps.py" "$@" --steps "$steps" --tolerance "$tolerance" \
        ${DOUBLE:+--double} || status=1
}

# train FOLDER OPTION...: the start in FOLDER.start, the run in FOLDER.
train() {
    local folder=$1
    shift
    "$corvid" train "$@" -n 1 --clip 1e-300 --weight-decay 0 --out "$folder.start" --quiet \
        >/dev/null
    "$corvid" train "$@" -n "$steps" --out "$folder" --quiet >/dev/null
}

language() { # language ARCH
    local warmup=${WARMUP:-4}
    [ "$1" != rwkv4 ] || warmup=0
    echo "$1, $layers layers, width $dim, $batch sequences of $context bytes"
    train "$work/$1" lm --arch "$1" --layers "$layers" --dim "$dim" --context "$context" \
        --batch "$batch" --warmup "$warmup" --data "$text" --eval-tokens 1
    compare lm --repo "$LM" --arch "$1" --start "$work/$1.start/model.safetensors" \
        --log "$work/$1/log.jsonl" --text "$text" --context "$context" --batch "$batch" \
        --warmup "$warmup"
}

vision() {
    local folder=$work/pictures
    echo "vrwkv, $layers layers, width $dim, 16 pictures of 32 x 32"
    "$python" "$here/ten_steps.py" make-pictures --archive "$cifar" --folder "$folder"
    train "$work/vrwkv" vision --arch vrwkv --layers "$layers" --dim "$dim" --patch 4 --size 32 \
        --batch 16 --lr 1e-3 --lr-final 1e-5 --warmup 0 --data "$folder" --validation 0 \
        --norm pre --augment none --label-smoothing 0.1 --drop-path 0
    compare pictures --repo "$VISION" --start "$work/vrwkv.start/model.safetensors" \
        --log "$work/vrwkv/log.jsonl" --folder "$folder"
}

if [ -n "${LM:-}" ]; then
    for arch in $archs; do language "$arch"; done
fi
[ -z "${VISION:-}" ] || vision
exit $status
