# finetune.sh - `corvid finetune` and `corvid merge`: adapters, states and whole models learn from a
# text, go on after a stop with the same bits, and give what the measured loss promised when they are
# merged or loaded; what fits no model is refused with exit code 8.
. "$(dirname "$0")/check.inc"

# Two texts: one for the model to begin with, and one that is new to it.
write_text() {
    i=0
    while [ $i -lt 1500 ]; do
        echo "$1 $((i % 7)) $2"
        i=$((i + 1))
    done
}
write_text "the crow counts to" "and begins again" >"$scratch/crow.txt"
write_text "a raven sings" "songs at noon" >"$scratch/raven.txt"

"$corvid" train lm --data "$scratch/crow.txt" --out "$scratch/base" --arch rwkv7 --layers 2 --dim 64 \
    -b 4 -c 32 -n 60 --lr 4e-3 --eval-tokens 1024 --threads 2 >/dev/null 2>"$scratch/err" ||
    bad "train: $(cat "$scratch/err")"
base=$scratch/base/model.safetensors
sum=$(cksum <"$base")

# tune FOLDER OPTION...
tune() {
    folder=$1
    shift
    "$corvid" finetune -m "$base" --data "$scratch/raven.txt" --out "$folder" -b 4 -c 32 -n 40 \
        --save-every 10 --eval-every 20 --eval-tokens 1024 --threads 2 "$@" \
        >"$scratch/out" 2>"$scratch/err" </dev/null
}

# field FILE LINE NAME: a number of a line of the log.
field() {
    sed -n "$2s/.*\"$3\":\([-+0-9.eE]*\).*/\1/p" "$1"
}

# learned FOLDER SHARE: the loss fell below that share of the first.
learned() {
    first=$(field "$1/log.jsonl" 1 loss)
    last=$(field "$1/log.jsonl" '$' loss)
    awk -v a="$first" -v b="$last" -v s="$2" 'BEGIN { exit !(b < s * a) }' ||
        bad "$1: the loss went from $first to $last"
}

# Adapters.
tune "$scratch/lora" --lr 1e-2 -r 8 --targets att,ffn || bad "lora: $(cat "$scratch/err")"
learned "$scratch/lora" 0.7
for file in adapter.safetensors resume.bin log.jsonl loss.svg; do
    [ -s "$scratch/lora/$file" ] || bad "lora: no $file"
done
[ -e "$scratch/lora/model.safetensors" ] && bad "lora: wrote a model"
same "the base" "$sum" "$(cksum <"$base")"
exits 0 merge -m "$base" --adapter "$scratch/lora/adapter.safetensors" "$scratch/merged.safetensors"

# The merged model has the loss that was measured, on the tail of the text that was kept aside.
size=$(wc -c <"$scratch/raven.txt")
tail -c $((size - size * 9 / 10)) "$scratch/raven.txt" >"$scratch/tail.txt"
exits 0 eval perplexity -m "$scratch/merged.safetensors" --data "$scratch/tail.txt" --json
merged=$(number mean_nll)
exits 0 eval perplexity -m "$base" --data "$scratch/tail.txt" --json
plain=$(number mean_nll)
awk -v a="$merged" -v b="$plain" 'BEGIN { exit !(a != "" && a < 0.7 * b) }' ||
    bad "loss of the merged model $merged, of the base $plain"

# A quantized model is merged in its own types: what the adapter changes is rounded once more, and what it
# does not change keeps every bit.
exits 0 convert "$base" "$scratch/q8.gguf" --type q8
exits 0 merge -m "$scratch/q8.gguf" --adapter "$scratch/lora/adapter.safetensors" "$scratch/q8merged.gguf"
exits 0 eval perplexity -m "$scratch/q8merged.gguf" --data "$scratch/tail.txt" --json
rounded=$(number mean_nll)
awk -v a="$merged" -v b="$rounded" 'BEGIN { exit !(b != "" && b < 1.05 * a && b > 0.95 * a) }' ||
    bad "loss of the model merged in 8 bits $rounded, in f32 $merged"
"$corvid" finetune -m "$base" --data "$scratch/raven.txt" --out "$scratch/idle" -b 1 -c 8 -n 1 --lr 1e-30 \
    --eval-tokens 64 >/dev/null 2>"$scratch/err" || bad "idle: $(cat "$scratch/err")"
for type in q8 bf16; do # whose rounding, done twice, is that done once
    exits 0 convert "$base" "$scratch/plain.gguf" --type $type
    exits 0 merge -m "$scratch/plain.gguf" --adapter "$scratch/idle/adapter.safetensors" "$scratch/idle.gguf"
    cmp -s "$scratch/plain.gguf" "$scratch/idle.gguf" || bad "$type: an adapter of zeros changed the model"
done
exits 2 merge -m "$scratch/q8.gguf" --adapter "$scratch/lora/adapter.safetensors" \
    "$scratch/none.safetensors" && says "--type"

# Stopped and gone on with, and on one thread: the same bits.
tune "$scratch/whole" --lr 1e-2 -r 4 --vectors || bad "$(cat "$scratch/err")"
tune "$scratch/part" --lr 1e-2 -r 4 --vectors --minutes 0.0005 || bad "$(cat "$scratch/err")"
tune "$scratch/part" --lr 1e-2 -r 4 --vectors --resume --threads 1 || bad "$(cat "$scratch/err")"
for file in adapter.safetensors resume.bin; do
    cmp -s "$scratch/whole/$file" "$scratch/part/$file" || bad "$file depends on a stop"
done
tune "$scratch/part" --lr 1e-2 -r 8 --vectors --resume && bad "another rank was accepted"
tune "$scratch/whole" --lr 1e-2 -r 4 --vectors && bad "a second run began in the folder of the first"
says "--resume"

# An adapter to begin with: its first loss is about the last of the other.
tune "$scratch/more" --lr 1e-3 --from "$scratch/lora/adapter.safetensors" || bad "$(cat "$scratch/err")"
awk -v a="$(field "$scratch/more/log.jsonl" 1 loss)" -v b="$first" 'BEGIN { exit !(a < 0.7 * b) }' ||
    bad "--from begins anew"

# A state: the model's own file, and a file to load.
tune "$scratch/state" --method state || bad "state: $(cat "$scratch/err")"
learned "$scratch/state" 0.99
[ -s "$scratch/state/state.safetensors" ] || bad "no state.safetensors"
exits 0 generate -m "$base" --state "$scratch/state/state.safetensors" -p "a " -n 12 --greedy
cp "$scratch/out" "$scratch/loaded"
exits 0 merge -m "$base" --adapter "$scratch/state/state.safetensors" "$scratch/with.safetensors"
exits 0 generate -m "$scratch/with.safetensors" -p "a " -n 12 --greedy
cmp -s "$scratch/out" "$scratch/loaded" || bad "a merged state gives another text"
exits 2 merge -m "$base" --adapter "$scratch/state/state.safetensors" "$scratch/none.gguf" && says "--state"
[ -e "$scratch/none.gguf" ] && bad "a model without its state was written"
exits 2 finetune -m "$scratch/with.safetensors" --data "$scratch/raven.txt" --out "$scratch/x" \
    --method full && says "initial state"

# The whole model.
tune "$scratch/full" --method full --lr 3e-3 --keep-best || bad "full: $(cat "$scratch/err")"
learned "$scratch/full" 0.7
[ -s "$scratch/full/best.safetensors" ] || bad "no best.safetensors"
exits 0 generate -m "$scratch/full/model.safetensors" -p "a " -n 8 --greedy

# A model with a vocabulary of its own is tuned with that, and a whole one keeps it.
"$corvid" train vocabulary --data "$scratch/crow.txt" --size 300 --out "$scratch/vocab.txt" \
    >/dev/null 2>"$scratch/err" || bad "vocabulary: $(cat "$scratch/err")"
"$corvid" train lm --data "$scratch/crow.txt" --out "$scratch/words" --vocab "$scratch/vocab.txt" \
    --arch rwkv6 --layers 1 --dim 64 -b 2 -c 16 -n 5 --eval-tokens 256 >/dev/null 2>"$scratch/err" ||
    bad "words: $(cat "$scratch/err")"
exits 0 finetune -m "$scratch/words/model.safetensors" --data "$scratch/raven.txt" \
    --out "$scratch/words2" --method full -b 2 -c 16 -n 3 --eval-tokens 256
rm "$scratch/vocab.txt"
exits 0 tokenize --vocab "$scratch/words/model.safetensors" "the crow counts"
cp "$scratch/out" "$scratch/ids"
exits 0 tokenize --vocab "$scratch/words2/model.safetensors" "the crow counts"
cmp -s "$scratch/out" "$scratch/ids" || bad "the vocabulary changed"

# What does not fit: exit code 8, and nothing is written.
exits 8 merge -m "$scratch/words/model.safetensors" --adapter "$scratch/lora/adapter.safetensors" \
    "$scratch/none.safetensors" && says "rwkv6"
exits 8 merge -m "$scratch/words/model.safetensors" --adapter "$scratch/state/state.safetensors" \
    "$scratch/none.safetensors"
exits 8 finetune -m "$base" --data "$scratch/raven.txt" --out "$scratch/x" --method state \
    --from "$scratch/lora/adapter.safetensors"
exits 4 merge -m "$base" --adapter "$base" "$scratch/none.safetensors" && says "whole model"
exits 4 merge -m "$scratch/lora/adapter.safetensors" --adapter "$base" "$scratch/none.safetensors"
[ -e "$scratch/none.safetensors" ] && bad "a file was written"

# What cannot be.
exits 2 finetune --data x --out y && says "no model"
exits 2 finetune -m "$base" --out y && says "--data"
exits 2 finetune -m "$base" --data "$scratch/raven.txt" && says "--out"
exits 2 finetune -m "$base" --data "$scratch/raven.txt" --out "$scratch/y" --targets att.kye &&
    says "att.key"
exits 2 finetune -m "$base" --data "$scratch/raven.txt" --out "$scratch/z" -r 4000 && says "rank"
exits 2 finetune -m "$base" --data "$scratch/raven.txt" --out "$scratch/z" --method full --from x &&
    says "--from"
exits 3 finetune -m "$base" --data "$scratch/nothing.txt" --out "$scratch/z" && says "nothing.txt"
exits 2 merge -m "$base" "$scratch/x.safetensors" && says "--adapter"
exits 2 merge -m "$base" --adapter "$scratch/lora/adapter.safetensors" && says "file to write"
exits 2 merge -m "$base" --adapter "$scratch/lora/adapter.safetensors" "$scratch/x.safetensors" \
    --type q99 && says "q99"
finish
