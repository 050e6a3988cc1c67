#!/bin/bash
# An experiment of the specification on small language models: runs, table, figure and verdict.
# Usage: [SEEDS="1 2 3"] [MODELS="..."] [STEPS=2000] [LR=1e-3] [EVAL_EVERY=200] [THREADS=N]
#        [TEXT=FILE] [CORVID=PATH] [PYTHON=PATH] [RUN_FOLDER=build/experiments] [OUT=docs/results]
#        bench/experiment.sh e1|e7
#
#   e1  the same data for models of about the same size: rwkv4 rwkv7 gpt lstm aft-full aft-local
#       aft-simple
#   e7  RWKV-4 with and without token shift: rwkv4 rwkv4-no-shift; takes the runs of rwkv4 that e1 made
#
#   MODELS      some of those, for a part of the experiment
#   LR          learning rate of every model; it ends at a tenth of it
#   TEXT        by default tinyshakespeare of the test data ($CORVID_TEST_DATA, or ../shared/data); its
#               characters are the tokens, and a tenth at its end is not learnt from but measured whole
#   RUN_FOLDER  where the runs go, one folder for each model and seed. One that has the file `done` is
#               not made again, one that was broken off goes on from what it had saved
# At a seed every model learns from the same bytes in the same order. Writes e1.csv, e1.json, e1.md and
# e1.svg (or e7) into OUT. A mark that is not reached is written down as failed; the exit code is 0.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3}
seeds=${SEEDS:-1 2 3} steps=${STEPS:-2000} lr=${LR:-1e-3} every=${EVAL_EVERY:-200}
threads=${THREADS:-$(nproc)}
text=${TEXT:-${CORVID_TEST_DATA:-$here/../../shared/data}/text/tinyshakespeare/input.txt}
folder=${RUN_FOLDER:-build/experiments} out=${OUT:-$here/../docs/results}
usage() {
    sed -n '2,18p' "$0"
}
case ${1:-} in
e1) models=${MODELS:-rwkv4 rwkv7 gpt lstm aft-full aft-local aft-simple} ;;
e7) models=${MODELS:-rwkv4 rwkv4-no-shift} ;;
--help | -h)
    usage
    exit 0 ;;
*)
    usage >&2
    exit 2 ;;
esac
experiment=$1
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$folder" "$out"

# Of every model: "S form" of the experiments, and the micro budget that the marks were set for.
recipe=(--context 64 --batch 12 --steps "$steps" --lr "$lr"
    --lr-final "$(awk -v lr="$lr" 'BEGIN { print lr / 10 }')" --schedule cosine --warmup 100
    --beta1 0.9 --beta2 0.99 --weight-decay 0.1 --clip 1 --type f32
    --validation 0.1 --eval-every "$every" --eval-tokens 0)

# The characters of the text as a vocabulary of the World form: the marks were set for the 65 of
# tinyshakespeare, and with 256 bytes a model has to learn first that most of them never come.
vocab=$folder/characters.vocab
"$python" - "$text" "$vocab" <<'END'
import sys
characters = sorted(set(open(sys.argv[1], encoding="utf-8", newline="").read()))
with open(sys.argv[2], "w", encoding="utf-8") as f:
    for i, c in enumerate(characters):
        f.write(f"{i + 1} {c!r} {len(c.encode())}\n")
END

# architecture MODEL: its options. 2 layers of 232 have as many numbers as RWKV-4 with 4 of 128.
architecture() {
    case $1 in
    rwkv4-no-shift) echo --arch rwkv4 --layers 4 --dim 128 --token-shift off ;;
    lstm) echo --arch lstm --layers 2 --dim 232 ;;
    *) echo --arch "$1" --layers 4 --dim 128 ;;
    esac
}

# one_run MODEL SEED
one_run() {
    local run=$folder/$1-s$2 options settings
    read -r -a options < <(architecture "$1")
    settings="${options[*]} ${recipe[*]}, $(wc -c <"$text") bytes of text"
    if [ -e "$run/settings" ] && [ "$(cat "$run/settings")" != "$settings" ]; then
        echo "experiment.sh: $run is of a run with other settings; remove it, or give another" \
            "RUN_FOLDER" >&2
        exit 1
    fi
    if [ -e "$run/done" ]; then
        echo "$1, seed $2: done before" >&2
        return
    fi
    echo "$1, seed $2 (load $(cut -d' ' -f1 /proc/loadavg))" >&2
    mkdir -p "$run"
    echo "$settings" >"$run/settings"
    "$corvid" train lm "${options[@]}" "${recipe[@]}" --vocab "$vocab" --seed "$2" --save-every 500 \
        --threads "$threads" --data "$text" --out "$run" --resume --quiet >/dev/null
    "$python" "$here/experiment_report.py" note "$run" --model "$1" --seed "$2" \
        --threads "$threads" --steps "$steps" --lr "$lr" \
        --commit "$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)"
    rm -f "$run/resume.bin" "$run/tokens.bin"
}

for seed in $seeds; do
    for model in $models; do
        one_run "$model" "$seed"
    done
done
"$python" "$here/experiment_report.py" report "$experiment" "$folder" "$out" --seeds "$seeds" \
    --models "$models"
