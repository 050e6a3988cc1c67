# classify.sh - `corvid classify` and `corvid logits --image`: which pictures, how they are framed,
# what is printed.
. "$(dirname "$0")/check.inc"
. "$(dirname "$0")/tensors.inc"
need vrwkv-golden/published/vrwkv_t_f16.weights.safetensors images/imagenet/classes.tsv \
    images/photos/chelsea.png images/photos/coffee.png images/photos/rocket.jpg \
    rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin
model=$data/vrwkv-golden/published/vrwkv_t_f16.weights.safetensors
classes=$data/images/imagenet/classes.tsv
photos=$data/images/photos

# One picture: a table that agrees with the logits.
exits 0 classify -m "$model" "$photos/chelsea.png"
[ -s "$scratch/err" ] && bad "classify is not quiet: $(cat "$scratch/err")"
same "lines of the table" "$(wc -l <"$scratch/out")" 6
best=$(awk 'NR == 2 { print $2 }' "$scratch/out")
prints "class $best"
exits 0 logits -m "$model" --image "$photos/chelsea.png" --json
prints '{"arch":"vrwkv","logits":[['
prints "]],\"files\":[\"$photos/chelsea.png\"]}"
json_rows >"$scratch/logits"
same "number of logits" "$(wc -l <"$scratch/logits")" 1000
same "the likeliest" "$(awk 'NR == 1 || $1 > top { top = $1; at = NR } END { print at - 1 }' \
    "$scratch/logits")" "$best"
probability=$(awk '{ sum += exp($1); if (NR == 1 || $1 > top) top = $1 } END { print exp(top) / sum }' \
    "$scratch/logits")

# JSON: names, null without them, probabilities that add up to one.
exits 0 classify -m "$model" "$photos/chelsea.png" --top 1000 --json
prints "{\"file\": \"$photos/chelsea.png\", \"top\": [{\"class\": $best, \"name\": null, \"probability\":"
near "the sum of probabilities" "$(tr ',' '\n' <"$scratch/out" |
    awk '/probability/ { sum += $NF } END { printf "%.9f", sum }')" 1 1e-6
near "the probability" "$(tr ',' '\n' <"$scratch/out" | awk '/probability/ { print $NF; exit }')" \
    "$probability" 1e-6
if command -v python3 >/dev/null 2>&1; then
    python3 -c 'import json, sys; [json.loads(line) for line in sys.stdin]' <"$scratch/out" ||
        bad "classify --json is not JSON"
fi
name=$(awk -F '\t' -v c="$best" '$1 == c { print $3 }' "$classes")
exits 0 classify -m "$model" --classes "$classes" "$photos/chelsea.png" --top 1 --json
prints "\"name\": \"$name\""
mkdir -p "$XDG_DATA_HOME/corvid"
cp "$classes" "$XDG_DATA_HOME/corvid/classes.tsv"
exits 0 classify -m "$model" "$photos/chelsea.png" && prints "$name"
rm "$XDG_DATA_HOME/corvid/classes.tsv"
exits 8 classify -m "$data/vrwkv-golden/small/a_pre.weights.safetensors" --classes "$classes" \
    "$photos/chelsea.png"

# Folders: all pictures below, by name, hidden ones and others left out.
p=$scratch/p
mkdir -p "$p/b/c" "$p/.hidden"
cp "$photos/coffee.png" "$p/b/c/1.PNG"
cp "$photos/rocket.jpg" "$p/b/a.JPeG"
cp "$photos/chelsea.png" "$p/z.png"
cp "$photos/chelsea.png" "$p/.hidden/x.png"
cp "$photos/chelsea.png" "$p/.y.png"
echo "no picture" >"$p/notes.txt"
exits 0 classify -m "$model" --top 1 "$p/"
same "pictures of a folder" "$(cut -f 1 "$scratch/out" | tr '\n' ' ')" \
    "$p/b/a.JPeG $p/b/c/1.PNG $p/z.png "
same "the last class" "$(tail -n 1 "$scratch/out" | cut -f 2)" "class $best"
exits 0 classify -m "$model" "$p"
same "lines of three tables" "$(wc -l <"$scratch/out")" 23
mkdir "$scratch/empty"
exits 3 classify -m "$model" "$scratch/empty" && says "no pictures"

# The batch, the threads, the kernels of one level and the company of others change nothing.
exits 0 classify -m "$model" --json "$p" && cp "$scratch/out" "$scratch/json"
exits 0 classify -m "$model" --json --batch 1 --threads 1 "$p"
cmp -s "$scratch/out" "$scratch/json" || bad "--batch 1 is another result"
exits 0 classify -m "$model" --json "$p/b/a.JPeG"
[ "$(cat "$scratch/out")" = "$(head -n 1 "$scratch/json")" ] || bad "alone is another result"

# Standard input, a picture or a list of them.
"$corvid" classify -m "$model" --json - <"$p/b/a.JPeG" >"$scratch/out" 2>"$scratch/err" ||
    bad "standard input: $(cat "$scratch/err")"
[ "$(sed 's/"file": "-"//' "$scratch/out")" = \
    "$(head -n 1 "$scratch/json" | sed 's/"file": "[^"]*"//')" ] ||
    bad "standard input is another result"
find "$p/b" -name '*.*' | sort | "$corvid" classify -m "$model" --json --list - >"$scratch/out"
head -n 2 "$scratch/json" | cmp -s - "$scratch/out" || bad "a list is another result"
exits 2 classify -m "$model" - --list - && says "only once"
exits 4 classify -m "$model" - && says "standard input"

# Lists: labels behind a tab or a space, paths beside the list, Windows line ends.
cp "$photos/rocket.jpg" "$p/my rocket.jpg"
printf 'b/a.JPeG\ttabby cat\r\n\nb/c/1.PNG 7\n%s\nmy rocket.jpg 3 kinds\n' "$p/z.png" >"$p/list"
exits 0 classify -m "$model" --top 1 --list "$p/list"
same "pictures of a list" "$(cut -f 1 "$scratch/out" | tr '\n' ' ')" \
    "$p/b/a.JPeG $p/b/c/1.PNG $p/z.png $p/my rocket.jpg "
rm "$p/my rocket.jpg"

# Broken and missing pictures: told, the others go on, the first one's code is the code.
head -c 5000 "$photos/rocket.jpg" >"$p/b/broken.jpg"
exits 4 classify -m "$model" --json "$p" && says "broken.jpg"
cmp -s "$scratch/out" "$scratch/json" || bad "a broken picture changed others"
exits 3 classify -m "$model" --json "$p" "$scratch/none.png" && says "none.png" && says "broken.jpg"
cmp -s "$scratch/out" "$scratch/json" || bad "a missing picture changed others"
exits 4 classify -m "$model" "$p/b/broken.jpg"
[ -s "$scratch/out" ] && bad "a broken picture has classes"
exits 4 logits -m "$model" --image "$p" --json
same "arrays beside a broken picture" "$(tr -cd '[' <"$scratch/out" | wc -c)" 5
rm "$p/b/broken.jpg"
exits 4 classify -m "$model" "$p/notes.txt" && says "notes.txt"
exits 4 classify -m "$model" --max-pixels 1000 "$p/z.png" && says "z.png"

# Sizes.  256 then 224 x 224 is how this model was evaluated.
exits 0 classify -m "$model" --json "$p/z.png" && cp "$scratch/out" "$scratch/model"
for size in 224 100x60 native; do
    exits 0 classify -m "$model" --json --size $size "$p/z.png"
    cmp -s "$scratch/out" "$scratch/model" && bad "--size $size changes nothing"
done
for size in 0 -1 x 10x 10x0 10x10x10 99999999 big; do
    exits 2 classify -m "$model" --size=$size "$p/z.png" && says "--size"
done

# How the camera was held: the same JPEG with an EXIF block that says "turned by 90 degrees".
printf '\377\330\377\341\000\042Exif\000\000II*\000\010\000\000\000\001\000\022\001\003\000\001\000\000\000\006\000\000\000\000\000\000\000' \
    >"$p/turned.jpg"
tail -c +3 "$photos/rocket.jpg" >>"$p/turned.jpg"
cp "$photos/rocket.jpg" "$p/plain.jpg"
exits 0 logits -m "$model" --image "$p/plain.jpg" --json && json_rows >"$scratch/plain"
exits 0 logits -m "$model" --image "$p/turned.jpg" --orient no --json
json_rows | cmp -s - "$scratch/plain" || bad "--orient no turns a picture"
exits 0 logits -m "$model" --image "$p/turned.jpg" --orient yes --json
json_rows | cmp -s - "$scratch/plain" && bad "--orient yes does not turn a picture"

# The wrong kind of model.
tiny=$data/rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin
exits 2 classify -m "$tiny" "$p/z.png" && says "language model"
exits 2 logits -m "$tiny" --image "$p/z.png" && says "language model"
for verb in "generate -p a" chat "tokenize a" "logits --tokens 1" "logits --text a" \
    "eval perplexity --data $p/notes.txt"; do
    # shellcheck disable=SC2086
    exits 2 $verb -m "$model" && says "vision model"
done
exits 2 classify -m "$model" && says "give pictures"
exits 2 classify "$p/z.png" && says "CORVID_MODEL"

# What a vision model is.
exits 0 inspect info -m "$model"
for words in "vision model" "classes      1000, names not found" "patch        16 x 16" \
    "native size  224 x 224" "class token  no"; do
    prints "$words"
done
grep -qE 'vocabulary|tokenizer|state' "$scratch/out" && bad "a vocabulary of a vision model"
exits 0 inspect info -m "$model" --json
prints '"vision": true'
same "classes" "$(number n_classes)" 1000
finish
