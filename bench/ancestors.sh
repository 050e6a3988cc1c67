#!/bin/bash
# Corvid's GPT, LSTM and AFT beside plain PyTorch: the same logits and losses, the time of a step.
# Usage: [ARCHS="gpt lstm ..."] [LAYERS=4] [DIM=128] [CONTEXT=64] [BATCH=4] [STEPS=10] [WARMUP=4]
#        [DECAY=0.1] [TOLERANCE=1e-4] [BLAS=FOLDER] [TEXT=FILE] [CORVID=PATH] [PYTHON=PATH]
#        bench/ancestors.sh [check]
#        [MODELS="rwkv4 gpt ..."] [ROUNDS=3] [BLAS=FOLDER] [TEXT=FILE] [CORVID=PATH] [PYTHON=PATH]
#        bench/ancestors.sh speed
#
#   check  logits of the same weights, and ten steps from the same start on the same batches; status
#          1 when logits differ by more than TOLERANCE of the largest one, a loss or the norm of a
#          gradient by more than it, or weights by more than ten times it of the way they went
#   speed  milliseconds of a training step of the models of experiment E1 (bench/experiment.sh), in
#          f32, on one thread, Corvid and PyTorch in turns; nothing is judged
#
#   BLAS   folder of the libblas.so.3 that PyTorch shall use, where the system's is a slow one
#   TEXT   by default tinyshakespeare of the test data ($CORVID_TEST_DATA, or ../shared/data)
# The start is a run of one step whose gradient is clipped to nothing.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3}
archs=${ARCHS:-gpt lstm aft-full aft-local aft-simple} layers=${LAYERS:-4} dim=${DIM:-128}
context=${CONTEXT:-64} batch=${BATCH:-4} steps=${STEPS:-10} warmup=${WARMUP:-4}
decay=${DECAY:-0.1} tolerance=${TOLERANCE:-1e-4}
text=${TEXT:-${CORVID_TEST_DATA:-$here/../../shared/data}/text/tinyshakespeare/input.txt}
usage() {
    sed -n '2,17p' "$0"
}
case ${1:-check} in
check | speed) verb=${1:-check} ;;
--help | -h)
    usage
    exit 0 ;;
*)
    usage >&2
    exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1 TMPDIR=$work
status=0

peer() { # peer VERB OPTION...
    LD_LIBRARY_PATH=${BLAS:+$BLAS:}${LD_LIBRARY_PATH:-} \
        "$python" "$here/ancestors.py" "$@" --corvid "$corvid" --text "$text"
}

train() { # train FOLDER OPTION...
    local folder=$1
    shift
    "$corvid" train lm "$@" --layers "$layers" --dim "$dim" --context "$context" --batch "$batch" \
        --type f32 --threads 1 --data "$text" --eval-tokens 1 --out "$folder" --quiet >/dev/null
}

one_check() { # one_check ARCH
    local run=$work/$1
    train "$run.start" --arch "$1" -n 1 --clip 1e-300 --weight-decay 0
    train "$run" --arch "$1" -n "$steps" --warmup "$warmup" --weight-decay "$decay"
    peer check --start "$run.start/model.safetensors" --trained "$run/model.safetensors" \
        --log "$run/log.jsonl" --steps "$steps" --context "$context" --batch "$batch" \
        --warmup "$warmup" --weight-decay "$decay" --tolerance "$tolerance" || status=1
}

if [ "$verb" = check ]; then
    for arch in $archs; do one_check "$arch"; done
    exit $status
fi
peer speed --rounds "${ROUNDS:-3}" ${MODELS:+--models "$MODELS"}
