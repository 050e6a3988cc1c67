#!/bin/bash
# Tokens per second of training steps: Corvid beside PyTorch on the processor, in turns, in one run.
# Usage: [BLAS=FOLDER] [ROUNDS=3] [THREADS="1 2"] [MODELS="rwkv4 rwkv7 gpt"] [TYPES="f32 bf16"]
#        [LAYERS=6] [DIM=256] [CONTEXT=256] [BATCH=8] [STEPS=10] [GOLDEN=FOLDER] [CORVID=PATH]
#        [PYTHON=PATH] bench/train_speed.sh
#
#   BLAS    folder of the libblas.so.3 that PyTorch shall use, where the system's is a slow one
#   STEPS   of a round; the first three of Corvid and two of PyTorch are not counted
#   GOLDEN  folder of lm_v4.safetensors: PyTorch's models are first held against it
#   PYTHON  one with PyTorch; /usr/bin/python3 with Debian's python3-torch by default
# The models are over bytes, the weights initial, the text random. PyTorch runs in f32; the ratio of a
# bf16 row is over that too. What Corvid does not train (gpt) shows PyTorch alone, and a type that it
# does not have is left out. Prints medians over all steps of a round, then over the rounds; the peak
# is that of the whole process. Status 1 when the rounds lie too far apart to be believed.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3} rounds=${ROUNDS:-3}
all_threads=${THREADS:-1 2} models=${MODELS:-rwkv4 rwkv7 gpt} types=${TYPES:-f32 bf16}
layers=${LAYERS:-6} dim=${DIM:-256} context=${CONTEXT:-256} batch=${BATCH:-8} steps=${STEPS:-10}
golden=${GOLDEN:-${CORVID_TEST_DATA:-$here/../../shared/data}/rwkv-tiny/reference}
if [ $# -gt 0 ]; then
    sed -n '2,15p' "$0" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1

median() { sort -n | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2)
    print NR == 0 ? "-" : NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'; }

peer() { # peer VERB OPTION...
    LD_LIBRARY_PATH=${BLAS:+$BLAS:}${LD_LIBRARY_PATH:-} \
        "$python" "$here/train_peers.py" "$@" --json
}

field() { "$python" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

help=$("$corvid" train lm --help)
has_arch() { grep -Eq -- "--arch .*\<$1\>" <<<"$help"; }
has_type() { [ "$1" = f32 ] || grep -Eq -- "--type .*\<$1\>" <<<"$help"; }

# One round of Corvid: a line "tokens/s peak-KiB" from its lines of JSON, each of which has a step's
# tokens and seconds since the start.
ours() { # ours MODEL TYPE THREADS
    local option=()
    [ "$2" = f32 ] || option=(--type "$2")
    rm -rf "$work/run"
    /usr/bin/time -f %M -o "$work/peak" "$corvid" train lm --arch "$1" --layers "$layers" \
        --dim "$dim" --context "$context" --batch "$batch" -n "$steps" --threads "$3" \
        --data "$work/text.txt" --out "$work/run" --eval-every 1000000 --save-every 1000000 \
        --eval-tokens 1 --json --quiet "${option[@]}" >"$work/lines"
    "$python" - "$work/lines" "$(cat "$work/peak")" <<'END'
import json, statistics, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
pairs = [p for p in zip(lines[2:], lines[3:]) if "validation" not in p[1] and "saved" not in p[1]]
rates = [(b["tokens"] - a["tokens"]) / (b["seconds"] - a["seconds"]) for a, b in pairs]
print(statistics.median(rates), sys.argv[2])
END
}

one_turn() { # one_turn MODEL THREADS
    local type
    for type in $types; do
        if has_arch "$1" && has_type "$type"; then
            ours "$1" "$type" "$2" >>"$work/corvid.$1.$type.$2"
        fi
    done
    peer speed --model "$1" --layers "$layers" --dim "$dim" --context "$context" --batch "$batch" \
        --threads "$2" --steps $((steps > 4 ? steps - 2 : 2)) >"$work/json"
    echo "$(field tokens_per_s <"$work/json") $(($(field peak_bytes <"$work/json") / 1024))" \
        >>"$work/torch.$1.f32.$2"
}

rate() { if [ -s "$work/$1" ]; then cut -d' ' -f1 "$work/$1" | median; else echo -; fi; }
peak() { if [ -s "$work/$1" ]; then cut -d' ' -f2 "$work/$1" | median; else echo -; fi; }

row() { # row MODEL TYPE THREADS
    awk -v model="$1" -v type="$2" -v threads="$3" -v ours="$(rate "corvid.$1.$2.$3")" \
        -v theirs="$(rate "torch.$1.f32.$3")" -v kib="$(peak "corvid.$1.$2.$3")" \
        -v their_kib="$(peak "torch.$1.f32.$3")" '
        function number(x) { return x == "-" ? x : sprintf("%.0f", x) }
        function mib(x) { return x == "-" ? x : sprintf("%.0f", x / 1024) }
        BEGIN { printf "%-7s %-5s %7d %9s %9s %7s %11s %11s\n", model, type, threads, number(ours),
            number(theirs), ours == "-" ? "-" : sprintf("%.2f", ours / theirs), mib(kib),
            mib(their_kib) }'
}

unsteady() { # the files whose rounds lie far apart
    for file in "$work"/{corvid,torch}.*; do
        [ -e "$file" ] || continue
        sort -n "$file" | awk -v name="${file##*/}" 'NR == 1 { least = $1 } { most = $1 }
            END { if (most > 1.5 * least) printf "not steady: %s, %.0f to %.0f; measure again\n",
                name, least, most }'
    done
}

load=$(cut -d' ' -f1 /proc/loadavg)
if awk -v load="$load" 'BEGIN { exit !(load > 0.5) }'; then
    echo "train_speed.sh: the machine is not idle (load $load): PyTorch's threads wait for each" \
        "other and suffer most, so these ratios will flatter Corvid" >&2
fi
head -c 400000 /dev/urandom | base64 >"$work/text.txt"
for model in $models; do
    case $model in rwkv4 | rwkv7)
        if [ -f "$golden/lm_v${model#rwkv}.safetensors" ]; then
            peer check --model "$model" --golden "$golden" >"$work/json"
            echo "PyTorch's $model against the reference: largest difference of a gradient" \
                "$(field gradients <"$work/json")"
        fi ;;
    esac
done
for ((round = 0; round < rounds; round++)); do
    for threads in $all_threads; do
        for model in $models; do one_turn "$model" "$threads"; done
    done
done
peer speed --model gpt --layers 1 --dim 64 --context 16 --batch 1 --steps 1 >"$work/json"
echo "PyTorch $(field torch <"$work/json"), $(field blas <"$work/json"); $rounds rounds;" \
    "$layers layers, width $dim, $batch sequences of $context bytes; tokens per second"
printf '%-7s %-5s %7s %9s %9s %7s %11s %11s\n' model type threads corvid pytorch ratio \
    'corvid MiB' 'torch MiB'
for model in $models; do
    for threads in $all_threads; do
        for type in $types; do
            if [ "$type" = f32 ] || [ -s "$work/corvid.$model.$type.$threads" ]; then
                row "$model" "$type" "$threads"
            fi
        done
    done
done
shaken=$(unsteady)
echo "load before: $load; at the end: $(cut -d' ' -f1 /proc/loadavg), of which this made part"
if [ -n "$shaken" ]; then
    echo "$shaken"
    exit 1
fi
