# shipped.sh - the models that come with the command: where they are looked for, what they are called,
# and that what was trained here becomes such a file.
. "$(dirname "$0")/check.inc"
unset CORVID_MODELS
export XDG_DATA_DIRS="$scratch/dirs/one:$scratch/dirs/two/"

# Copies of the command, away from the models of the source tree: what is shipped lies relative to it.
mkdir -p "$scratch/x/bin" "$scratch/tree/build/release"
cp "$corvid" "$scratch/x/bin/corvid"
cp "$corvid" "$scratch/tree/build/release/corvid"
built=$scratch/tree/build/release/corvid
corvid=$scratch/x/bin/corvid

# ---- nothing is there ----------------------------------------------------------------------------

for verb in generate chat; do
    exits 2 $verb && says "no model: story.gguf"
    says "CORVID_MODELS"
    says "CORVID_MODEL."
    for folder in "$scratch/x/share/corvid/models" "$XDG_DATA_HOME/corvid/models" \
        "$scratch/dirs/one/corvid/models" "$scratch/dirs/two/corvid/models"; do
        says "  $folder"
    done
done
same "folders told" "$(grep -c '^  /' "$scratch/err")" 4
CORVID_MODELS=$scratch/own exits 2 classify "$scratch/none.png" && says "no model: pictures.gguf"
same "the first folder" "$(grep -m 1 '^  /' "$scratch/err")" "  $scratch/own"
(unset XDG_DATA_DIRS XDG_DATA_HOME && "$built" generate -m nothing) 2>"$scratch/err"
for folder in "$scratch/tree/build/share/corvid/models" "$scratch/tree/models" \
    "$HOME/.local/share/corvid/models" /usr/local/share/corvid/models /usr/share/corvid/models; do
    says "  $folder"
done
exits 3 generate -m story && says "no such file, nor a model story.gguf"
says "  $scratch/x/share/corvid/models"
exits 3 generate -m nothing -p a && says "nor a model nothing.gguf"
exits 3 generate -m "$scratch/story" -p a && says "$scratch/story"
exits 3 generate -m story.gguf -p a
grep -q "nor a model" "$scratch/err" && bad "a name with an ending is no name of a shipped model"
for verb in bench "inspect info" "eval perplexity --data x" "features --out x.safetensors"; do
    # shellcheck disable=SC2086
    exits 2 $verb && says "no model"
done

# ---- two models ----------------------------------------------------------------------------------

# A text of which the words come again, and tiny pictures, dark ones and bright ones.
awk 'BEGIN { for (i = 0; i < 2000; i++)
    printf "The owl called %d times, and the wood was still.\n\nThen it flew.%s", i % 9, i % 3 ? "\n\n" : " " }' \
    >"$scratch/owl.txt"
exits 0 train vocabulary --data "$scratch/owl.txt" --tokens 280 --out "$scratch/owl.vocab"
exits 0 train lm --data "$scratch/owl.txt" --vocab "$scratch/owl.vocab" --out "$scratch/lm" --layers 1 \
    --dim 64 -b 4 -c 32 -n 20 --eval-every 20 --eval-tokens 256 --lr 4e-3 --threads 2

# idx PART N: N pictures of 12 x 12 in the files of MNIST, every other one bright.
light=$scratch/light
mkdir "$light"
idx() { # idx PART N
    awk -v n="$2" 'BEGIN { printf "\\000\\000\\010\\003\\000\\000\\%03o\\%03o\\000\\000\\000\\014\\000\\000\\000\\014", int(n / 256), n % 256
        x = n
        for (i = 0; i < n * 144; i++) {
            x = (x * 16807) % 2147483647
            printf "\\%03o", x % 60 + 180 * (int(i / 144) % 2)
        } }' >"$scratch/escapes"
    # shellcheck disable=SC2059
    printf "$(cat "$scratch/escapes")" >"$light/$1-images-idx3-ubyte"
    awk -v n="$2" 'BEGIN { printf "\\000\\000\\010\\001\\000\\000\\%03o\\%03o", int(n / 256), n % 256
        for (i = 0; i < n; i++) printf "\\%03o", i % 2 }' >"$scratch/escapes"
    # shellcheck disable=SC2059
    printf "$(cat "$scratch/escapes")" >"$light/$1-labels-idx1-ubyte"
}
idx train 100
idx t10k 20
exits 0 train vision --data "$light" --out "$scratch/vision" --size 12 --patch 3 --layers 1 --dim 64 \
    -n 20 -b 10 --eval-every 20 --lr 3e-3 --augment none --threads 2
printf 'the dark one\nthe bright one\n' >"$scratch/names.txt"

# Shipped models are files in 8 bits that hold all they need.
models=$scratch/x/share/corvid/models
mkdir -p "$models"
exits 0 convert "$scratch/lm/model.safetensors" "$models/story.gguf" --type q8_0
exits 0 convert "$scratch/vision/model.safetensors" "$models/pictures.gguf" --type q8_0 \
    --classes "$scratch/names.txt"
rm "$scratch/owl.vocab" "$scratch/names.txt"
exits 0 inspect info "$models/story.gguf" && prints "type         q8_0"
prints "vocabulary   280"
prints "tokenizer    world"
exits 0 inspect info "$models/pictures.gguf" && prints "native size  12 x 12 pixels"
prints "classes      2"
# Token 261 ends the turns of the World models; here it is a word like others.
grep -qaF tokenizer.ggml.eos_token_id "$models/story.gguf" || bad "no end of a text in the GGUF file"
grep -qaF eot_token_id "$models/story.gguf" && bad "the end of a turn of another vocabulary"
grep -qaF rwkv-world "$models/story.gguf" && bad "the conversation of another vocabulary"

# ---- found ---------------------------------------------------------------------------------------

# Each of these is what generate -m FILE and classify -m FILE say.
exits 0 generate -m "$models/story.gguf" -p "The owl" -n 12 --greedy
cp "$scratch/out" "$scratch/text"
[ -s "$scratch/text" ] || bad "the model wrote nothing"
# A PNG of 3 x 2 white pixels.
{
    printf '\211PNG\015\012\032\012\000\000\000\015IHDR\000\000\000\003\000\000\000\002\010\002\000\000\000\022\026\361M\000'
    printf '\000\000\016IDATx\332c\370\017\003\014p\026\000\263\140\021\357\053\337W\044\000\000\000\000IEND\256B\140\202'
} >"$scratch/white.png"
exits 0 classify -m "$models/pictures.gguf" "$scratch/white.png" && cp "$scratch/out" "$scratch/classes"
prints "the bright one"
prints "the dark one"

# found WHAT: the models are found without -m, and by their names.
found() {
    exits 0 generate -p "The owl" -n 12 --greedy
    cmp -s "$scratch/out" "$scratch/text" || bad "generate, $1: $(cat "$scratch/out")"
    exits 0 generate -m story -p "The owl" -n 12 --greedy
    cmp -s "$scratch/out" "$scratch/text" || bad "generate -m story, $1: $(cat "$scratch/out")"
    exits 0 classify "$scratch/white.png"
    cmp -s "$scratch/out" "$scratch/classes" || bad "classify, $1: $(cat "$scratch/out")"
    exits 0 classify -m pictures "$scratch/white.png"
    cmp -s "$scratch/out" "$scratch/classes" || bad "classify -m pictures, $1: $(cat "$scratch/out")"
}
found "installed"
exits 0 logits -m pictures --image "$scratch/white.png" && prints "the bright one"
exits 0 tokenize -m story --ids "The owl"
exits 2 generate -m pictures -p a && says "$models/pictures.gguf is a vision model"
exits 2 classify -m story "$scratch/white.png" && says "$models/story.gguf is a language model"
CORVID_MODEL=story exits 0 generate -p "The owl" -n 12 --greedy
cmp -s "$scratch/out" "$scratch/text" || bad "CORVID_MODEL=story is another text"

# A model that is given is the one that is taken, and a file is stronger than a name.
exits 3 generate -m "$scratch/none.gguf" -p a && says "none.gguf"
CORVID_MODEL=$scratch/none.gguf exits 3 generate -p a && says "none.gguf"
printf 'model = %s/none.pth\n' "$scratch" >"$XDG_CONFIG_HOME/corvid/config"
exits 3 generate -p a && says "none.pth"
rm "$XDG_CONFIG_HOME/corvid/config"
echo "no checkpoint" >"$scratch/story"
(cd "$scratch" && "$corvid" generate -m story -p a) 2>"$scratch/err" && bad "a file is weaker than a name"
says "corvid generate: story: "
(cd "$scratch" && "$corvid" generate -p "The owl" -n 12 --greedy) >"$scratch/out" 2>"$scratch/err"
cmp -s "$scratch/out" "$scratch/text" || bad "without -m a file in the folder was taken"
rm "$scratch/story"

# move FOLDER: the models are only there.
move() {
    mkdir -p "$1"
    mv "$models/story.gguf" "$models/pictures.gguf" "$1"
    models=$1
}
move "$XDG_DATA_HOME/corvid/models" && found "in XDG_DATA_HOME"
move "$HOME/.local/share/corvid/models" && exits 2 generate -p a
unset XDG_DATA_HOME
found "in ~/.local/share"
export XDG_DATA_HOME="$scratch/data"
move "$scratch/dirs/two/corvid/models" && found "in XDG_DATA_DIRS"
move "$scratch/own" && exits 2 generate -p a
export CORVID_MODELS="$scratch/own"
found "in CORVID_MODELS"
mkdir -p "$scratch/x/share/corvid/models" # which comes later
echo "no checkpoint" >"$scratch/x/share/corvid/models/story.gguf"
found "in CORVID_MODELS first"
rm -r "$scratch/x/share"
unset CORVID_MODELS
move "$scratch/tree/models"
corvid=$built
found "in a build tree"
corvid=$scratch/x/bin/corvid
ln -s "$built" "$scratch/link"
"$scratch/link" generate -p "The owl" -n 12 --greedy >"$scratch/out" 2>"$scratch/err"
cmp -s "$scratch/out" "$scratch/text" || bad "a link to the command: $(cat "$scratch/err")"

# ---- a conversation with a model of prose --------------------------------------------------------

# Paragraphs in turns: no names are put into the text.
corvid=$built
printf 'The owl\n/params\n/save %s\n' "$scratch/chat.state" |
    "$corvid" chat --greedy -n 12 >"$scratch/out" 2>"$scratch/err" || bad "chat: $(cat "$scratch/err")"
prints "template paragraphs"
answer=$(sed '/^template/,$d' "$scratch/out")
exits 0 generate -p 'The owl

' -n 12 --greedy --stop '

'
same "the answer" "$answer" "$(sed '1s/^ *//' "$scratch/out")"
printf 'The owl\n/params\n' | "$corvid" chat --template world --greedy -n 4 >"$scratch/out" 2>"$scratch/err"
prints "template world"
printf 'The owl\n/params\n' | "$corvid" chat --template g1 --no-think --greedy -n 4 >"$scratch/out" 2>"$scratch/err"
prints "template g1"
finish
