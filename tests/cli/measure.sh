# measure.sh - `corvid eval` against reference numbers, and the shape of `corvid bench`.
. "$(dirname "$0")/check.inc"
need rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin rwkv-tiny/tiny-rwkv-4v0-660K-FP32.bin \
    rwkv-tiny/reference/index.tsv
model=$data/rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin
prompt='This is a port of [BlinkDL/RWKV-LM](https://github.com/BlinkDL/RWKV-LM'
printf %s "$prompt" >"$scratch/text"

# 69 predictions of 70 bytes, computed independently in double precision.
for stem in 7v0-834K 4v0-660K; do
    expected=$(sed -n "s/^$stem-FP32.*mean_nll=\([0-9.]*\).*/\1/p" \
        "$data/rwkv-tiny/reference/index.tsv")
    exits 0 eval perplexity -m "$data/rwkv-tiny/tiny-rwkv-$stem-FP32.bin" --data "$scratch/text" \
        --json
    near "nll of $stem" "$(number mean_nll)" "$expected" 1e-4
    same "scored tokens" "$(number scored_tokens)" 69
done
near "bits per byte" "$(number bits_per_byte)" \
    "$(awk -v n="$(number mean_nll)" 'BEGIN { printf "%.9f", n / log(2) }')" 1e-6
near "perplexity" "$(number perplexity)" \
    "$(awk -v n="$(number mean_nll)" 'BEGIN { printf "%.6f", exp(n) }')" 1e-3

# Contexts begin anew: twice the same text in contexts of its length scores twice the same.
cat "$scratch/text" "$scratch/text" >"$scratch/twice"
exits 0 eval perplexity -m "$model" --data "$scratch/text" --json && once=$(number mean_nll)
exits 0 eval perplexity -m "$model" --data "$scratch/twice" --context 70 --json
near "nll with --context" "$(number mean_nll)" "$once" 1e-9
same "scored tokens with --context" "$(number scored_tokens)" 138
exits 0 eval perplexity -m "$model" --data "$scratch/twice" --json
same "scored tokens of one stream" "$(number scored_tokens)" 139
# A start token lets the first byte be scored.
exits 0 eval perplexity -m "$model" --data "$scratch/text" --start 0 --json
same "scored tokens with --start" "$(number scored_tokens)" 70
"$corvid" eval perplexity -m "$model" --data - --json <"$scratch/text" >"$scratch/out"
near "nll from standard input" "$(number mean_nll)" "$once" 1e-9
exits 4 eval perplexity -m "$model" --data /dev/null
exits 3 eval perplexity -m "$model" --data "$scratch/none"

# LAMBADA: the last word's probability from the logits themselves.
printf '{"text": "a cat on"}\n' >"$scratch/one.jsonl"
exits 0 logits -m "$model" --text "a cat on" --all --json
# The rows after "a cat", "a cat ", "a cat o" predict " ", "o", "n".
tr -d '{}"' <"$scratch/out" | sed 's/.*logits:\[\[//; s/\]\]//' | awk '
    { rows = split($0, row, /\],\[/)
      ids[5] = 32; ids[6] = 111; ids[7] = 110
      for (r = 5; r <= 7; r++) {
          n = split(row[r], x, ","); sum = 0; top = 1
          for (i = 1; i <= n; i++) { sum += exp(x[i]); if (x[i] > x[top]) top = i }
          nll += log(sum) - x[ids[r] + 1]
          right += top == ids[r] + 1
      }
      printf "%.9g %d\n", exp(nll), right == 3 }' >"$scratch/expected"
read -r perplexity right <"$scratch/expected"
exits 0 eval lambada -m "$model" --data "$scratch/one.jsonl" --json
near "LAMBADA perplexity" "$(awk -v a="$(number perplexity)" -v b="$perplexity" \
    'BEGIN { print a / b }')" 1 1e-3
same "LAMBADA accuracy" "$(number accuracy | sed 's/\.0$//')" "$right"
same "LAMBADA items" "$(number items)" 1
printf '{"text": "one"}\n' >"$scratch/bad.jsonl"
exits 4 eval lambada -m "$model" --data "$scratch/bad.jsonl" && says "bad.jsonl:1"
printf '{"text": "a b"}\nnot json\n' >"$scratch/bad.jsonl"
exits 4 eval lambada -m "$model" --data "$scratch/bad.jsonl" && says "bad.jsonl:2"
exits 0 eval lambada -m "$model" --data "$scratch/bad.jsonl" --limit 1

# bench: the keys scripts rely on.
exits 0 bench -m "$model" --prompt 32 --tokens 4 --repeat 2 --no-probe --json
for key in model arch type threads load_s decode prefill memory probe; do
    prints "\"$key\":"
done
awk -v n="$(sed 's/.*"decode": {"tokens_per_s": \([0-9.e+]*\).*/\1/' "$scratch/out")" \
    'BEGIN { exit !(n > 0) }' || bad "no speed of decoding"
exits 0 bench --shape list
prints "rwkv7-0.1b"
exits 2 bench --shape rwkv7-9000b
finish
