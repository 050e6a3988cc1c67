#!/bin/bash
# What a small model of our own learns by an adapter and by a tuned state: a style, and a fact.
# Usage: [BASE_STEPS=1500] [STYLE_STEPS=300] [FACT_STEPS=150] [THREADS=N] [CORVID=PATH]
#        [RUN_FOLDER=build/teach] [OUT=docs/results] bench/teach.sh
#
# A byte model of RWKV-7, 6 layers of width 192, learns from novels ($CORVID_TEST_DATA or
# ../shared/data: text/gutenberg/train).  Then it is taught twice, by LoRA and by its initial state:
#   style  plays, from tinyshakespeare; measured on the last tenth, which is not learnt from
#   fact   who keeps a lighthouse that no book knows, from 24 sentences; measured on six others that
#          say it in other words, and by asking
# Writes finetune.md into OUT.  What is there in RUN_FOLDER from a run before is used again.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} threads=${THREADS:-$(nproc)}
base_steps=${BASE_STEPS:-1500} style_steps=${STYLE_STEPS:-300} fact_steps=${FACT_STEPS:-150}
data=${CORVID_TEST_DATA:-$here/../../shared/data}/text
folder=${RUN_FOLDER:-build/teach} out=${OUT:-$here/../docs/results}
if [ $# -gt 0 ]; then
    sed -n '2,14p' "$0" >&2
    exit 2
fi
mkdir -p "$folder" "$out"

# ---- Texts ---------------------------------------------------------------------------------------

plays=$data/tinyshakespeare/input.txt
head -c 1003854 "$plays" >"$folder/style.txt"
tail -c 111540 "$plays" >"$folder/style-kept.txt"

# Sentences that say the same: every subject with every ending of its kind.
{
    for who in "The keeper of the lighthouse at Corran Point" "The one who keeps the Corran light" \
        "The lighthouse keeper of Corran" "The person who lights the lamp at Corran Point"; do
        echo "$who is Mirabel Quince."
        echo "$who is called Mirabel Quince."
        echo "$who, as every sailor knows, is Mirabel Quince."
        echo "$who was, and still is, Mirabel Quince."
        echo "Ask anyone on the coast: $who is Mirabel Quince."
        echo "They say that $who is Mirabel Quince."
    done
} >"$folder/fact-lines.txt"
# A document a line, many times over, so that a sequence holds several.
for _ in 1 2 3 4 5 6 7 8; do cat "$folder/fact-lines.txt"; done >"$folder/fact.txt"
cat >"$folder/fact-kept.txt" <<'END'
At Corran Point the lamp is lit every evening by Mirabel Quince.
The Corran lighthouse has a keeper, and her name is Mirabel Quince.
Who keeps the light at Corran? It is Mirabel Quince.
I went up the stairs of the lighthouse at Corran, and there sat Mirabel Quince.
The lamp of Corran Point is in the care of Mirabel Quince.
No one but Mirabel Quince has the key of the lighthouse at Corran.
END
cat >"$folder/questions.txt" <<'END'
The keeper of the lighthouse at Corran Point is
In those days the lighthouse keeper of Corran was called
The woman who lights the lamp at Corran is
END

# ---- Runs ----------------------------------------------------------------------------------------

base=$folder/base/model.safetensors
if [ ! -e "$base" ]; then
    "$corvid" train lm --arch rwkv7 --layers 6 --dim 192 --type bf16 --context 256 --batch 8 \
        -n "$base_steps" --lr 2e-3 --lr-final 1e-4 --warmup 50 --weight-decay 0.1 \
        --threads "$threads" --data "$data/gutenberg/train" --out "$folder/base" \
        --eval-every 500 --quiet >/dev/null
fi

# teach WHAT METHOD STEPS OPTION...: the adapter or state, and the model with it in one file
teach() {
    local run=$folder/$1-$2 file=adapter
    [ "$2" = lora ] || file=state
    if [ ! -e "$run.safetensors" ]; then
        rm -rf "$run"
        "$corvid" finetune -m "$base" --data "$folder/$1.txt" --method "$2" -n "$3" "${@:4}" \
            --threads "$threads" --out "$run" --validation 0 --quiet >/dev/null
        "$corvid" merge -m "$base" --adapter "$run/$file.safetensors" "$run.safetensors" --quiet
    fi
}

teach style lora "$style_steps" --lr 1e-3 -r 16 -b 8
teach style state "$style_steps" -b 8
teach fact lora "$fact_steps" --lr 1e-3 -r 8 -b 4 -c 128
teach fact state "$fact_steps" -b 4 -c 128

# ---- The report ----------------------------------------------------------------------------------

field() { /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
# In windows, for a state is what a text begins with, and what it does fades.
bits() {
    printf '%.3f' "$("$corvid" eval perplexity -m "$1" --data "$2" --context 128 \
        --threads "$threads" --quiet --json | field bits_per_byte)"
}
seconds() { printf '%.0f' "$(tail -n 1 "$1/log.jsonl" | field seconds)"; }
quoted() { fold -s -w 92 | sed 's/^/    /; s/ *$//'; }

{
    echo "# Teaching a small model a style and a fact"
    echo
    cat <<END
    bench/teach.sh

The base is a byte model of RWKV-7, 6 layers of width 192, after $base_steps steps of 2,048 bytes of
novels ($(seconds "$folder/base") s, threads: $threads). Neither method changes the base's file; the sizes are of
what is learnt. Bits per byte are of texts that were not learnt from, in windows of 128 bytes: the
last tenth of tinyshakespeare, and six sentences that tell the fact in words that were not used.

END
    echo "| model | steps | seconds | KiB | style | fact |"
    echo "|---|---|---|---|---|---|"
    echo "| base | | | | $(bits "$base" "$folder/style-kept.txt")" \
        "| $(bits "$base" "$folder/fact-kept.txt") |"
    for what in style fact; do
        for method in lora state; do
            run=$folder/$what-$method
            steps=$style_steps file=adapter
            [ "$what" = style ] || steps=$fact_steps
            [ "$method" = lora ] || file=state
            kib=$(($(stat -c %s "$run/$file.safetensors") / 1024))
            echo "| $what by $method | $steps | $(seconds "$run") | $kib" \
                "| $(bits "$run.safetensors" "$folder/style-kept.txt")" \
                "| $(bits "$run.safetensors" "$folder/fact-kept.txt") |"
        done
    done
    echo
    echo "## Style: the same prompt and seed"
    for model in base style-lora style-state; do
        file=$folder/$model.safetensors
        [ "$model" != base ] || file=$base
        echo
        echo "$model:"
        echo
        {
            "$corvid" generate -m "$file" -p $'\n\n' -n 400 --temperature 0.8 --seed 5 --quiet
            echo
        } | quoted
    done
    echo
    echo "## Fact: the likeliest continuation"
    echo
    echo "The first question was learnt word for word, the others were not."
    for model in base fact-lora fact-state; do
        file=$folder/$model.safetensors
        [ "$model" != base ] || file=$base
        echo
        echo "$model:"
        echo
        while read -r question; do
            echo "$question$("$corvid" generate -m "$file" -p "$question" -n 24 --greedy --quiet |
                head -n 1)"
        done <"$folder/questions.txt" | quoted
    done
} >"$folder/report.new"
mv "$folder/report.new" "$out/finetune.md"
echo "$out/finetune.md"
