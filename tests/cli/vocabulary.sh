# vocabulary.sh - `corvid train vocabulary`: the file, its tokens, a model that is trained with it, and
# texts that come from standard input.
. "$(dirname "$0")/check.inc"

# A text of which the words come again, and some bytes that are no text.
i=0
while [ $i -lt 3000 ]; do
    echo "the crow counts to $((i % 7)), naïvely, and begins again: 烏"
    i=$((i + 1))
done >"$scratch/crow.txt"
text=$scratch/crow.txt vocab=$scratch/crow.vocab

exits 0 train vocabulary --data "$text" --tokens 300 --out "$vocab" --json
same "tokens" "$(number tokens)" 300
bytes=$(wc -c <"$text")
near "bytes of text" "$(($(number text_bytes) + $(number held_out_bytes)))" "$bytes" 0
each=$(number bytes_per_token)
near "bytes per token" "$each" "$(awk "BEGIN { print $(number held_out_bytes) / $(number held_out_tokens) }")" 1e-4
awk "BEGIN { exit !($each > 3.2) }" || bad "only $each bytes per token of a text with few words"

# What was measured is what the tokenizer does, and any bytes come back.
head -c 3000 "$corvid" >"$scratch/bytes"
cat "$text" >>"$scratch/bytes"
"$corvid" tokenize --vocab "$vocab" --ids - <"$text" >"$scratch/ids"
near "bytes per token of the whole text" "$(awk "BEGIN { print $bytes / $(wc -w <"$scratch/ids") }")" "$each" 0.2
"$corvid" tokenize --vocab "$vocab" --ids - <"$scratch/bytes" |
    "$corvid" detokenize --vocab "$vocab" - >"$scratch/back"
cmp -s "$scratch/bytes" "$scratch/back" || bad "bytes do not survive the round trip"

# From standard input the same file; it may be made again in its place.
"$corvid" train vocabulary --data - --tokens 300 --out "$scratch/piped.vocab" <"$text" >"$scratch/out" 2>"$scratch/err" ||
    bad "from standard input: $(cat "$scratch/err")"
prints "300 tokens"
prints "bytes per token"
cmp -s "$vocab" "$scratch/piped.vocab" || bad "the vocabulary differs when the text is piped in"
exits 0 train vocabulary --data "$text" --tokens 300 --out "$vocab" --validation 0
same "no text kept aside" "$(grep -c "kept aside" "$scratch/out")" 0
exits 0 train vocabulary --data "$text" --tokens 60000 --out "$scratch/large.vocab" && says "repeats too little"
exits 0 train vocabulary --data "$text" --tokens 300 --out "$vocab"

# A model with it: the vocabulary is inside, and needed beside the model no more.
train() { # train FOLDER DATA OPTION...
    folder=$1 from=$2
    shift 2
    "$corvid" train lm --data "$from" --vocab "$scratch/used.vocab" --out "$folder" --arch rwkv7 \
        --layers 1 --dim 64 -b 4 -c 32 --save-every 5 --eval-every 30 --eval-tokens 1024 --lr 4e-3 \
        --threads 2 -n 30 "$@" >"$scratch/out" 2>"$scratch/err"
}
cp "$vocab" "$scratch/used.vocab"
train "$scratch/run" "$text" || bad "train lm: $(cat "$scratch/err")"
rm "$scratch/used.vocab"
model=$scratch/run/model.safetensors
exits 0 inspect info -m "$model"
prints "300"
exits 0 tokenize -m "$model" --ids "the crow counts to 3"
"$corvid" tokenize --vocab "$vocab" --ids "the crow counts to 3" >"$scratch/expected"
cmp -s "$scratch/expected" "$scratch/out" || bad "the model's own vocabulary gives other ids"
exits 0 generate -m "$model" -p "the crow counts to 3" -n 20 --greedy
grep -q "[a-z][a-z]" "$scratch/out" || bad "generated without words: $(cat "$scratch/out")"
exits 0 convert "$model" "$scratch/model.gguf"
exits 0 tokenize -m "$scratch/model.gguf" --ids "the crow counts to 3"
cmp -s "$scratch/expected" "$scratch/out" || bad "the vocabulary is another one in GGUF"

# A text that is piped in: the same weights; and a run goes on without the pipe.
cp "$vocab" "$scratch/used.vocab"
train "$scratch/piped" - <"$text" || bad "train lm from standard input: $(cat "$scratch/err")"
cmp -s "$model" "$scratch/piped/model.safetensors" || bad "the weights differ when the text is piped in"
mkdir "$scratch/again"
cp "$scratch/piped/tokens.bin" "$scratch/again" # as a run that was killed before it was saved
train "$scratch/again" - <"$text" && bad "the tokens of another run were written over"
says "--resume"
cmp -s "$scratch/piped/tokens.bin" "$scratch/again/tokens.bin" || bad "the tokens of a run are lost"
train "$scratch/again" - --resume </dev/null || bad "resume without the pipe: $(cat "$scratch/err")"
cmp -s "$model" "$scratch/again/model.safetensors" || bad "the weights differ after going on without the pipe"
train "$scratch/piped" - --resume </dev/null || bad "resume at the end: $(cat "$scratch/err")"
train "$scratch/empty" - </dev/null && bad "nothing was piped in, and it was trained on"
says "standard input: there is no text in it"

# What cannot be.
cp "$text" "$scratch/precious.txt"
exits 2 train vocabulary --data "$text" --tokens 300 --out "$scratch/precious.txt" && says "will not be replaced"
cmp -s "$text" "$scratch/precious.txt" || bad "a text was replaced by a vocabulary"
exits 2 train vocabulary --out "$scratch/x" && says "--data"
exits 2 train vocabulary --data "$text" && says "--out"
exits 2 train vocabulary --data "$text" --tokens 256 --out "$scratch/x" && says "257"
exits 2 train vocabulary --data - --data - --out "$scratch/x" && says "twice"
exits 2 train vocabulary --data - --out "$scratch/x" && says "no text"
exits 3 train vocabulary --data "$scratch/none.txt" --out "$scratch/x" && says "none.txt"
exits 6 train vocabulary --data "$text" --out "$scratch/none/x" && says "none/x"
[ -e "$scratch/x" ] && bad "a failure left a file"

# Books: about the same on one it has not seen.
if [ -r "$data/text/gutenberg/train/pride-and-prejudice.txt" ] &&
    [ -r "$data/text/gutenberg/valid/great-expectations.txt" ]; then
    unseen=$data/text/gutenberg/valid/great-expectations.txt
    exits 0 train vocabulary --data "$data/text/gutenberg/train" --tokens 4096 --out "$scratch/books" --json
    each=$(number bytes_per_token)
    "$corvid" tokenize --vocab "$scratch/books" --ids - <"$unseen" >"$scratch/ids"
    "$corvid" detokenize --vocab "$scratch/books" - <"$scratch/ids" | cmp -s - "$unseen" ||
        bad "a book does not survive the round trip"
    there=$(awk "BEGIN { print $(wc -c <"$unseen") / $(wc -w <"$scratch/ids") }")
    awk "BEGIN { exit !($each > 3.3) }" || bad "only $each bytes per token of books"
    near "bytes per token of an unseen book" "$there" "$each" 0.3
else
    echo "SKIP: the part on books, for the reference data lacks text/gutenberg"
fi
finish
