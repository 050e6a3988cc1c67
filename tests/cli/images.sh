# images.sh - `corvid eval images`: where the classes come from, and what is counted.  The right
# answers are those that `corvid classify` gives.
. "$(dirname "$0")/check.inc"
need vrwkv-golden/published/vrwkv_t_f16.weights.safetensors images/imagenet/classes.tsv \
    vrwkv-golden/small/a_pre.weights.safetensors \
    images/photos/chelsea.png images/photos/camera.png images/photos/rocket.jpg
model=$data/vrwkv-golden/published/vrwkv_t_f16.weights.safetensors
classes=$data/images/imagenet/classes.tsv
photos=$data/images/photos

# class_of PICTURE RANK; column N of a class in the table of ImageNet.
class_of() {
    "$corvid" classify -m "$model" "$photos/$1" -k 1000 |
        awk -v r="$2" 'NR == r + 1 { print $2 }'
}
column() {
    awk -F '\t' -v c="$1" -v n="$2" '$1 == c { print $n }' "$classes"
}
camera=$(class_of camera.png 1)
chelsea=$(class_of chelsea.png 1)
rocket=$(class_of rocket.jpg 3)
[ "$camera" != "$chelsea" ] || bad "two pictures of one class"

# tree FOLDER COLUMN: camera and chelsea in their class, rocket in its third best.
tree() {
    for pair in "$camera camera.png" "$chelsea chelsea.png" "$rocket rocket.jpg"; do
        folder="$1/$(column "${pair% *}" "$2")"
        mkdir -p "$folder"
        cp "$photos/${pair#* }" "$folder"
    done
}
measured() {
    near "top-1 of $1" "$(number top1)" 0.666666667 1e-6
    near "top-5 of $1" "$(number top5)" 1 1e-9
    same "pictures of $1" "$(number pictures)" 3
    same "failures of $1" "$(number failures)" 0
}

tree "$scratch/numbers" 1
tree "$scratch/wnids" 2
tree "$scratch/names" 3
exits 0 eval images -m "$model" --data "$scratch/numbers" --json && measured numbers
exits 0 eval images -m "$model" --data "$scratch/numbers/" --json --batch 1 -v &&
    measured "numbers with a slash" && says "numbers of classes"
exits 0 eval images -m "$model" --data "$scratch/wnids" --classes "$classes" --json -v &&
    measured wnids && says "WordNet ids"
exits 0 eval images -m "$model" --data "$scratch/names" --classes "$classes" --json -v &&
    measured names && says "names of classes"
exits 4 eval images -m "$model" --data "$scratch/names" && says "no class of the model"
exits 4 eval images -m "$model" --data "$scratch/wnids" && says "no class of the model"

# A folder for each class, in the order of the names.
small=$data/vrwkv-golden/small/a_pre.weights.safetensors
best=$("$corvid" classify -m "$small" "$photos/chelsea.png" -k 1 | awk 'NR == 2 { print $2 }')
for letter in a b c d e f g h i j; do
    mkdir -p "$scratch/letters/$letter"
    cp "$photos/chelsea.png" "$scratch/letters/$letter/"
done
exits 0 eval images -m "$small" --data "$scratch/letters" --json -v
says "order of their names"
near "one class of ten" "$(number top1)" 0.1 1e-9
near "five classes of ten" "$(number top5)" 0.5 1e-9
exits 0 eval images -m "$small" --data "$scratch/letters" --json --per-class
sed 's/.*"classes": \[//' "$scratch/out" | tr '{' '\n' | tail -n 1 |
    grep -qF "\"class\": $best, \"name\": null, \"pictures\": 1, \"top1\": 1" ||
    bad "the best class is not the last one: $(cat "$scratch/out")"
exits 0 eval images -m "$small" --data "$scratch/letters" --json --limit 5
same "pictures of --limit" "$(number pictures)" 5
exits 0 eval images -m "$small" --data "$scratch/letters" --per-class --limit 2
prints "pictures    2"
prints "class 0"
prints "class 5" # --limit spreads
rm -r "$scratch/letters/j"
exits 4 eval images -m "$small" --data "$scratch/letters" && says "letters/a"

# Lists: numbers, names, WordNet ids.
printf '%s\t%s\n%s\t%s\n%s %s\n' "$photos/camera.png" "$(column "$camera" 3)" \
    "$photos/chelsea.png" "$(column "$chelsea" 2)" "$photos/rocket.jpg" "$rocket" >"$scratch/list"
exits 0 eval images -m "$model" --classes "$classes" --data "$scratch/list" --json && measured list
printf '%s\t1000\n' "$photos/camera.png" >"$scratch/bad"
exits 4 eval images -m "$model" --data "$scratch/bad" && says "bad:1"
printf '%s\t1\n%s\n' "$photos/camera.png" "$photos/chelsea.png" >"$scratch/bad"
exits 4 eval images -m "$model" --data "$scratch/bad" && says "bad:2"

# Broken pictures are told and not counted.
head -c 5000 "$photos/rocket.jpg" >"$scratch/numbers/$camera/broken.jpg"
exits 4 eval images -m "$model" --data "$scratch/numbers" --json && says broken.jpg
same "pictures beside a broken one" "$(number pictures)" 3
same "failures" "$(number failures)" 1
exits 4 eval images -m "$model" --data "$scratch/numbers" --per-class
prints "failures    1"
prints "top-1       66.6667 %"

# Mistakes.
cp "$photos/rocket.jpg" "$scratch/numbers/stray.jpg"
exits 4 eval images -m "$model" --data "$scratch/numbers" && says "stray.jpg"
exits 3 eval images -m "$model" --data "$scratch/none"
exits 2 eval images -m "$model" && says "--data"
exits 2 eval pictures -m "$model" && says "eval images"
finish
