# tokenize.sh - `corvid tokenize` and `detokenize` with the official vocabularies.
. "$(dirname "$0")/check.inc"
need tokenizer/rwkv_vocab_v20230424.txt tokenizer/20B_tokenizer.json
world=$data/tokenizer/rwkv_vocab_v20230424.txt
text="The Eiffel tower is in the city of"
ids="6699 304 25740 109 39990 4600 4596 22590 30449 4706"

exits 0 tokenize --vocab "$world" --ids "$text"
same "World ids" "$(cat "$scratch/out")" "$ids"
exits 0 tokenize --vocab "$world" "User"
same "one token a line" "$(cat "$scratch/out")" "24281	\"User\""
exits 0 tokenize --vocab "$world" --json "User"
same "JSON" "$(cat "$scratch/out")" '{"ids": [24281], "pieces": ["User"]}'
exits 0 tokenize --vocab "$data/tokenizer/20B_tokenizer.json" --ids "
"
same "20B newline" "$(cat "$scratch/out")" 187
exits 0 tokenize --vocab bytes --ids "hi"
same "bytes" "$(cat "$scratch/out")" "104 105"

# shellcheck disable=SC2086
exits 0 detokenize --vocab "$world" $ids
same "text from ids" "$(cat "$scratch/out")" "$text"
exits 0 detokenize --vocab "$world" --ids "$ids"
same "text from one argument" "$(cat "$scratch/out")" "$text"
exits 0 detokenize --vocab "$world" --json 24281
same "JSON text" "$(cat "$scratch/out")" '{"text": "User"}'

# Any bytes come back as they were.
head -c 3000 "$corvid" >"$scratch/bytes"
"$corvid" tokenize --vocab "$world" --ids - <"$scratch/bytes" |
    "$corvid" detokenize --vocab "$world" - >"$scratch/back"
cmp -s "$scratch/bytes" "$scratch/back" || bad "bytes do not survive the round trip"

exits 2 detokenize --vocab "$world" 99999999 && says "not in the vocabulary"
exits 2 tokenize --vocab "$world"
echo "no vocabulary" >"$scratch/junk.txt"
exits 4 tokenize --vocab "$scratch/junk.txt" a
finish
