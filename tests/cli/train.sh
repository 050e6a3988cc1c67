# train.sh - `corvid train lm`: a small run learns, is killed, goes on, and ends with the same bits.
. "$(dirname "$0")/check.inc"

# A text that is easy to learn.
i=0
while [ $i -lt 2000 ]; do
    echo "the crow counts to $((i % 7)) and begins again"
    i=$((i + 1))
done >"$scratch/crow.txt"

train() { # train FOLDER OPTION...
    folder=$1
    shift
    "$corvid" train lm --data "$scratch/crow.txt" --out "$folder" --arch rwkv7 --layers 2 --dim 64 \
        -b 4 -c 32 -n 40 --save-every 5 --eval-every 20 --eval-tokens 2048 --lr 4e-3 \
        --threads 2 "$@" >"$scratch/out" 2>"$scratch/err"
}

train "$scratch/whole" || bad "train: $(cat "$scratch/err")"
prints "step      40"
for file in model.safetensors resume.bin log.jsonl loss.svg; do
    [ -s "$scratch/whole/$file" ] || bad "no $file"
done
first=$(head -1 "$scratch/whole/log.jsonl" | sed 's/.*"loss":\([0-9]*\).*/\1/')
last=$(tail -1 "$scratch/whole/log.jsonl" | sed 's/.*"loss":\([0-9]*\).*/\1/')
[ "$first" -ge 5 ] && [ "$last" -le 3 ] || bad "the loss went from $first to $last"

# It runs like any other model.
exits 0 generate -m "$scratch/whole/model.safetensors" -p "the " -n 8 --greedy
exits 0 inspect info -m "$scratch/whole/model.safetensors"
prints "rwkv7"

# A folder with a run in it is not written over; other settings are refused.
train "$scratch/whole" && bad "a second run began in the folder of the first"
says "--resume"
train "$scratch/whole" --resume --seed 2 && bad "another seed was accepted"
says "other settings"

# Killed at any moment, and gone on with: the same bits.
for delay in 0.3 0.6 1.1; do
    rm -rf "$scratch/killed"
    train "$scratch/killed" &
    sleep $delay
    kill -9 $! 2>/dev/null
    pkill -9 -f "$scratch/killed" 2>/dev/null
    wait 2>/dev/null
    train "$scratch/killed" --resume || bad "resume after $delay s: $(cat "$scratch/err")"
    for file in model.safetensors resume.bin; do
        cmp -s "$scratch/whole/$file" "$scratch/killed/$file" || bad "$file differs after a kill at $delay s"
    done
done

# On one thread as on two.
train "$scratch/one" --threads 1 || bad "one thread: $(cat "$scratch/err")"
cmp -s "$scratch/whole/model.safetensors" "$scratch/one/model.safetensors" ||
    bad "the weights depend on the number of threads"

# What cannot be.
exits 2 train && says "train lm"
exits 2 train lm --out "$scratch/x" && says "--data"
exits 2 train lm --data "$scratch/crow.txt" && says "--out"
exits 3 train lm --data "$scratch/none.txt" --out "$scratch/x" && says "none.txt"
finish
