# first_minute.sh - the models that come with the sources: what the first commands after a clone give.
. "$(dirname "$0")/check.inc"
sources=$(cd "$(dirname "$0")/../.." && pwd)
models=$sources/models
export CORVID_MODELS="$models"
for model in story pictures; do
    [ -r "$models/$model.gguf" ] || bad "no models/$model.gguf"
done
bytes=$(cat "$models"/*.gguf | wc -c)
[ "$bytes" -le 16777216 ] || bad "the models take $bytes bytes, more than 16 MiB"

# ---- text ----------------------------------------------------------------------------------------

# English words make up nearly all of what it writes: these are words of the language, and of others.
exits 0 generate -p "The old man" -n 200 --temperature 0.8 --top-p 0.7 --seed 1
words=$(tr -cs 'A-Za-z' '\n' <"$scratch/out" | grep -c .)
[ "$words" -ge 80 ] || bad "200 tokens are only $words words: $(cat "$scratch/out")"
common=$(tr -cs 'A-Za-z' '\n' <"$scratch/out" | grep -ciwE \
    'the|and|of|to|a|in|that|he|she|it|was|had|his|her|him|i|you|not|with|as|for|at|on|is|be|my|but|they|have|said')
[ $((common * 100)) -ge $((words * 30)) ] || bad "$common common words of $words: $(cat "$scratch/out")"
cp "$scratch/out" "$scratch/first"
exits 0 generate -m story -p "The old man" -n 200 --temperature 0.8 --top-p 0.7 --seed 1 --threads 1
cmp -s "$scratch/out" "$scratch/first" || bad "the same seed wrote another text on one thread"

# It knows a sentence from its words in a row, and from another language.
surprise() { # surprise TEXT: bits per byte
    printf '%s' "$1" >"$scratch/text.txt"
    exits 0 eval perplexity -m story --data "$scratch/text.txt" --json
    sed -n 's/.*"bits_per_byte": *\([0-9.]*\).*/\1/p' "$scratch/out"
}
less() { # less WHAT A B
    awk -v a="$2" -v b="$3" 'BEGIN { exit !(a != "" && b != "" && a + 0 < b + 0) }' || bad "$1: $2 and $3"
}
sentence=$(surprise "She did not answer him at once, but went to the window and looked out into the garden.")
turned=$(surprise "garden the into out looked and window the to went but once at him answer not did She.")
german=$(surprise "Sie antwortete ihm nicht gleich, sondern ging ans Fenster und sah in den Garten hinaus.")
less "a sentence and its words turned round" "$sentence" "$turned"
less "English and German" "$sentence" "$german"
less "a plain sentence" "$sentence" 2.2

printf 'Good evening, sir.\n' | "$corvid" chat --seed 3 -n 40 >"$scratch/out" 2>"$scratch/err" ||
    bad "chat: $(cat "$scratch/err")"
[ -s "$scratch/out" ] || bad "chat answered nothing"

# ---- pictures ------------------------------------------------------------------------------------

for picture in "$sources"/examples/pictures/*.jpg "$sources"/examples/pictures/*.png \
    "$sources"/examples/pictures/*.webp; do
    name=$(basename "$picture")
    exits 0 classify --top 1 "$picture" && prints "${name%.*}"
done
exits 0 inspect info -m pictures && prints "classes      10"

# A photograph of a cat, where there is one.
if [ -r "$data/images/photos/chelsea.png" ]; then
    exits 0 classify --top 1 "$data/images/photos/chelsea.png" && prints cat
else
    echo "SKIP: no photograph in the reference data"
fi
finish
