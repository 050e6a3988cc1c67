# logits.sh - `corvid logits` against the expected logits of the reference models.
. "$(dirname "$0")/check.inc"
need rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin rwkv-tiny/expected-logits-7v0-834K.bin \
    rwkv-tiny/tiny-rwkv-4v0-660K-FP32.bin rwkv-tiny/expected-logits-4v0-660K.bin \
    rwkv-tiny/tiny-rwkv-5v2-730K-FP32.bin rwkv-tiny/expected-logits-5v2-730K.bin
tiny=$data/rwkv-tiny

# The numbers of the last output's "logits", one a line.
numbers() {
    sed 's/.*"logits":\[//; s/\].*//' "$scratch/out" | tr ',' '\n'
}

# floats FILE [SKIP]: the floats of a file, one a line.
floats() {
    od -An -v -t f4 -w4 -j "${2:-0}" "$1" | tr -d ' '
}

# differ A B TOLERANCE: prints how two columns of numbers differ, nothing when they do not.
differ() {
    paste "$1" "$2" | awk -v t="$3" '
        NF != 2 { print "line " NR " is not a pair"; exit }
        { d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d }
        END { if (NR != 256) print NR " numbers"; else if (worst > t) print "off by " worst }'
}

# The three bytes `"in`; an exact evaluation is within 4e-6 of the file, f32 within 1e-4.
for case in "7v0-834K 0 rwkv7" "4v0-660K 0 rwkv4" "5v2-730K 1e-5 rwkv5.2"; do
    # shellcheck disable=SC2086
    set -- $case
    exits 0 logits -m "$tiny/tiny-rwkv-$1-FP32.bin" --gn-eps "$2" --tokens "34 105 110" --json ||
        continue
    prints "\"arch\":\"$3\""
    prints '"tokens":[34,105,110]'
    numbers >"$scratch/got"
    floats "$tiny/expected-logits-$1.bin" >"$scratch/expected"
    wrong=$(differ "$scratch/got" "$scratch/expected" 1e-4)
    [ -z "$wrong" ] || bad "$1: $wrong"
done

model=$tiny/tiny-rwkv-7v0-834K-FP32.bin
exits 0 logits -m "$model" --tokens "34 105 110" --json && cp "$scratch/out" "$scratch/json"
numbers >"$scratch/got"

# A text is its bytes here; commas separate ids as well.
exits 0 logits -m "$model" --text '"in' --json
cmp -s "$scratch/out" "$scratch/json" || bad "--text and --tokens differ"
exits 0 logits -m "$model" --tokens "34,105, 110" --json
cmp -s "$scratch/out" "$scratch/json" || bad "commas make a difference"

# --all: one array per token, the last one as before.
exits 0 logits -m "$model" --tokens "34 105 110" --all --json
same "arrays of --all" "$(tr -cd '[' <"$scratch/out" | wc -c)" 5
sed 's/.*\],\[//; s/\].*//' "$scratch/out" | tr ',' '\n' >"$scratch/last"
cmp -s "$scratch/last" "$scratch/got" || bad "the last row of --all is another one"

# --out: a safetensors file with the same numbers.
exits 0 logits -m "$model" --tokens "34 105 110" --out "$scratch/l.safetensors"
header=$(od -An -v -t u8 -N 8 "$scratch/l.safetensors" | tr -d ' ')
head -c $((8 + header)) "$scratch/l.safetensors" | tail -c +9 |
    grep -qF '{"logits":{"dtype":"F32","shape":[1,256],"data_offsets":[0,1024]}}' ||
    bad "the header of --out is wrong"
same "size of --out" "$(wc -c <"$scratch/l.safetensors")" $((8 + header + 1024))
floats "$scratch/l.safetensors" $((8 + header)) >"$scratch/file"
wrong=$(differ "$scratch/file" "$scratch/got" 1e-6)
[ -z "$wrong" ] || bad "--out: $wrong"
exits 0 logits -m "$model" --tokens "34 105 110" --all --out "$scratch/l.safetensors"
same "size of --all --out" "$(wc -c <"$scratch/l.safetensors")" $((8 + header + 3072))
exits 6 logits -m "$model" --tokens 1 --out "$scratch/no/such/folder.safetensors"

# The table: ten likeliest, a space (32) first.
exits 0 logits -m "$model" --tokens "34 105 110"
same "lines of the table" "$(wc -l <"$scratch/out")" 11
same "the likeliest" "$(awk 'NR == 2 { print $2 }' "$scratch/out")" 32

# Mistakes.
exits 2 logits -m "$model" --tokens "34 256" --json
exits 2 logits -m "$model" --tokens "34 -1" && says "--tokens"
exits 2 logits -m "$model" --tokens "" && says "no tokens"
exits 2 logits -m "$model" && says "--text"
exits 2 logits -m "$model" --tokens 1 --text a
exits 5 logits -m "$model" --tokens 1 --memory-limit 100K
[ -w /dev/full ] && {
    "$corvid" logits -m "$model" --tokens 1 --json >/dev/full 2>"$scratch/err"
    same "exit code on a full disk" $? 6
}
finish
