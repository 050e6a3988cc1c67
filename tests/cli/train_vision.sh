# train_vision.sh - `corvid train vision`: a small model learns where the light is, is killed, goes on,
# and ends with the same bits; what it has learnt is a file that is used like any other.
. "$(dirname "$0")/check.inc"

# bytes: octal numbers on standard input, a byte each.
bytes() {
    # shellcheck disable=SC2059
    printf "$(sed 's/^/\\/' | tr -d '\n')"
}

# idx PART N: N pictures of 12 x 12 in the files of MNIST, of which the quarter of their class (0 to 3)
# is bright; the rest looks like noise.
idx() {
    awk -v n="$2" 'BEGIN { printf "0\n0\n010\n003\n0\n0\n%03o\n%03o\n0\n0\n0\n014\n0\n0\n0\n014\n", int(n / 256), n % 256
        x = n
        for (i = 0; i < n; i++)
            for (p = 0; p < 144; p++) {
                x = (x * 16807) % 2147483647
                quarter = 2 * (p >= 72) + (p % 12 >= 6)
                printf "%03o\n", x % 90 + (quarter == i % 4 ? 150 : 0)
            } }' | bytes >"$scratch/light/$1-images-idx3-ubyte"
    awk -v n="$2" 'BEGIN { printf "0\n0\n010\n001\n0\n0\n%03o\n%03o\n", int(n / 256), n % 256
        for (i = 0; i < n; i++) printf "%03o\n", i % 4 }' | bytes >"$scratch/light/$1-labels-idx1-ubyte"
}
mkdir "$scratch/light"
idx train 240
idx t10k 60

# begin FOLDER OPTION...: in the background, as $run.
begin() {
    folder=$1
    shift
    "$corvid" train vision --data "$scratch/light" --out "$folder" --size 12 --patch 3 --layers 2 \
        --dim 64 -n 60 -b 16 --lr 3e-3 --save-every 4 --eval-every 20 --threads 2 \
        --augment none "$@" >"$scratch/out" 2>"$scratch/err" </dev/null &
    run=$!
}

train_exits() { # train_exits CODE FOLDER OPTION...
    check_expected=$1
    shift
    begin "$@"
    wait $run
    check_code=$?
    [ "$check_code" -eq "$check_expected" ] ||
        bad "train $*: exit code $check_code, expected $check_expected; $(head -n 2 "$scratch/err")"
}

same_files() { # same_files A B FILE...
    check_a=$1 check_b=$2
    shift 2
    for file in "$@"; do
        cmp -s "$check_a/$file" "$check_b/$file" || bad "$file of $check_a and $check_b differ"
    done
}

last_of() { tail -n 1 "$1/log.jsonl" | sed "s/.*\"$2\":\([-+0-9.e]*\).*/\1/"; }

train_exits 0 "$scratch/whole"
prints "step      60"
prints "accuracy"
for file in model.safetensors resume.bin classes.txt log.jsonl loss.svg accuracy.svg; do
    [ -s "$scratch/whole/$file" ] || bad "no $file"
done
accuracy=$(last_of "$scratch/whole" accuracy)
awk -v a="$accuracy" 'BEGIN { exit !(a > 0.9) }' || bad "accuracy $accuracy, expected nearly 1"
same "pictures seen" "$(last_of "$scratch/whole" pictures)" 960
exits 0 inspect info -m "$scratch/whole/model.safetensors"
prints "vrwkv"
prints "12 x 12 pixels"

# The other architecture, norms behind the branches, all pictures twice.
train_exits 0 "$scratch/v6" --arch vrwkv6 --norm post --epochs 2
same "steps of two epochs" "$(last_of "$scratch/v6" step)" 30
exits 0 inspect info -m "$scratch/v6/model.safetensors"
prints "vrwkv6"

# Other settings, and other pictures, are refused.
for other in "--seed 2" "--mixup 0.5" "--flip 0.5" "--drop-path 0.1" "--augment small" "-b 15"; do
    # shellcheck disable=SC2086
    train_exits 8 "$scratch/whole" --resume $other
    says "other settings"
done
train_exits 2 "$scratch/whole"
says "--resume"

# Killed, and gone on with: the same bits, with everything that is left to chance.
everything="--augment small --mixup 0.4 --cutmix 0.4 --drop-path 0.2 --ema 0.9 --accumulate 3 --keep-best"
chance=54321
kills=0
began=$(date +%s%N)
# shellcheck disable=SC2086
train_exits 0 "$scratch/chance" $everything
fifth=$((($(date +%s%N) - began) / 5000000 + 1)) # of what the whole run took, in ms
for round in 1 2; do
    rm -rf "$scratch/killed"
    for kill in 1 2 3 4; do
        chance=$(((chance * 1103515245 + 12345) % 2147483648))
        # shellcheck disable=SC2086
        begin "$scratch/killed" $everything --resume
        sleep "$(awk -v ms=$((fifth / 4 + chance / 1000 % fifth)) 'BEGIN { print ms / 1000 }')"
        kill -9 $run 2>/dev/null
        wait $run 2>/dev/null
        [ $? -eq 137 ] && kills=$((kills + 1))
    done
    # shellcheck disable=SC2086
    train_exits 0 "$scratch/killed" $everything --resume
    same_files "$scratch/chance" "$scratch/killed" model.safetensors resume.bin best.safetensors classes.txt
done
[ $kills -ge 1 ] || bad "none of 8 kills met a run"

# Stopped by the clock; on one thread as on two; layers computed anew; in parts.
train_exits 0 "$scratch/clock" --minutes 0.0000001
prints "step       1"
train_exits 0 "$scratch/clock" --resume
same_files "$scratch/whole" "$scratch/clock" model.safetensors resume.bin
train_exits 0 "$scratch/one" --threads 1
same_files "$scratch/whole" "$scratch/one" model.safetensors resume.bin
train_exits 0 "$scratch/again" --recompute
same_files "$scratch/whole" "$scratch/again" model.safetensors resume.bin
train_exits 0 "$scratch/parts" --accumulate 5
near "validation in parts" "$(last_of "$scratch/parts" validation)" \
    "$(last_of "$scratch/whole" validation)" 0.02

# What cannot be.
exits 2 train vision --out "$scratch/x" && says "--data"
exits 2 train vision --data "$scratch/light" && says "--out"
exits 2 train vision --data "$scratch/light" --out "$scratch/x" --arch rwkv7 && says "vrwkv"
exits 2 train vision --data "$scratch/light" --out "$scratch/x" --size 30 --patch 4 && says "patches"
exits 2 train vision --data "$scratch/light" --out "$scratch/x" --flip 2 && says "--flip"
exits 2 train vision --data "$scratch/light" --out "$scratch/x" --mixup 0.6 --cutmix 0.6 && says "mix"
exits 3 train vision --data "$scratch/none" --out "$scratch/x" && says "none"

# Pictures of files in folders; the names of these are in the model, without another file.
[ -r "$data/images/photos/chelsea.png" ] || finish
mkdir -p "$scratch/photos/the cat" "$scratch/photos/rocket" "$scratch/alone"
for i in 1 2 3 4; do
    cp "$data/images/photos/chelsea.png" "$scratch/photos/the cat/$i.png"
    cp "$data/images/photos/rocket.jpg" "$scratch/photos/rocket/$i.jpg"
done
exits 0 train vision --data "$scratch/photos" --out "$scratch/cats" --size 32 --patch 8 --layers 2 \
    --dim 64 -n 12 -b 8 --lr 3e-3 --warmup 2 --validation 0 --threads 2
cp "$scratch/cats/model.safetensors" "$scratch/alone"
for picture in "chelsea.png the cat" "rocket.jpg rocket"; do
    exits 0 classify -m "$scratch/alone/model.safetensors" "$data/images/photos/${picture%% *}"
    grep -q "^ *1 .*  ${picture#* }$" "$scratch/out" ||
        bad "expected ${picture#* } first in: $(cat "$scratch/out")"
done
finish
