#!/bin/bash
# How well the shipped language model predicts novels that it has never seen, in bits per byte.
# Usage: [MODEL=story] [VOCAB=FILE] [DATA=FOLDER] [CORVID=PATH] [PYTHON=PATH] [OUT=docs/results]
#        bench/story.sh
#
#   MODEL  a language model, by name or file, that has learnt from DATA/train. Its vocabulary may
#          have 4,096 tokens at most, so that five of them fit in 64 bits
#   VOCAB  its vocabulary, where corvid does not find it by itself
#   DATA   by default the novels of the test data ($CORVID_TEST_DATA or ../shared/data:
#          text/gutenberg); what is measured is test/*.txt and valid/*.txt
# Beside it: 5-gram models of the same tokens and of bytes, from the same novels; xz after the
# training text; xz and gzip of each file alone. The n-gram models need numpy and, as xz
# does, up to 700 MiB. Takes some ten minutes on one core. Writes story.md and story.json into OUT.
set -eu
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} python=${PYTHON:-/usr/bin/python3}
model=${MODEL:-story} vocab=${VOCAB:-}
data=${DATA:-${CORVID_TEST_DATA:-$here/../../shared/data}/text/gutenberg}
out=${OUT:-$here/../docs/results}
if [ $# -gt 0 ]; then
    sed -n '2,13p' "$0" >&2
    exit 2
fi
of_model=(-m "$model" ${vocab:+--vocab "$vocab"} --quiet)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "$* (load $(cut -d' ' -f1 /proc/loadavg))" >&2; }
size() { wc -c | tr -d ' '; }
xz_size() { cat "$@" | xz -9e -T1 -c | size; }

shopt -s nullglob
train=("$data"/train/*.txt) texts=("$data"/test/*.txt "$data"/valid/*.txt)
if [ ${#train[@]} = 0 ] || [ ${#texts[@]} = 0 ]; then
    echo "story.sh: $data has no train/*.txt, or no test/*.txt and valid/*.txt" >&2
    exit 3
fi

# ---- The model -----------------------------------------------------------------------------------

"$corvid" inspect info -m "$model" --quiet --json >"$work/model.json"
mkdir "$work/train" "$work/test" "$work/valid"
for file in "${train[@]}" "${texts[@]}"; do
    ids=$work/$(basename "$(dirname "$file")")/$(basename "$file").ids
    "$corvid" tokenize "${of_model[@]}" --ids - <"$file" >"$ids"
done
for file in "${texts[@]}"; do
    name=$(basename "$(dirname "$file")")/$(basename "$file")
    say "$model reads $name"
    "$corvid" eval perplexity "${of_model[@]}" --data "$file" --context 0 --json >"$work/$name.eval"
done

# ---- What it is compared with --------------------------------------------------------------------

symbols=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["n_vocab"])' \
    "$work/model.json")
say "5-grams of tokens"
"$python" "$here/story_report.py" ngram tokens --symbols "$symbols" --train "$work"/train/*.ids \
    --texts "$work"/test/*.ids "$work"/valid/*.ids >"$work/tokens.json"
say "5-grams of bytes"
"$python" "$here/story_report.py" ngram bytes --train "${train[@]}" --texts "${texts[@]}" \
    >"$work/bytes.json"
say "xz of the training text"
trained=$(xz_size "${train[@]}")
printf 'train\t%s\t%s\n' "$(cat "${train[@]}" | size)" "$trained" >"$work/sizes"
for file in "${texts[@]}"; do
    name=$(basename "$(dirname "$file")")/$(basename "$file")
    say "xz and gzip of $name"
    printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$(size <"$file")" \
        "$(($(xz_size "${train[@]}" "$file") - trained))" "$(xz_size "$file")" \
        "$(gzip -9 -c <"$file" | size)" >>"$work/sizes"
done

# ---- The report ----------------------------------------------------------------------------------

mkdir -p "$out"
"$python" "$here/story_report.py" report "$work" "$out" --model "$model"
