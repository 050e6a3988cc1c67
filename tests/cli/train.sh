# train.sh - `corvid train lm`: a small run learns, is stopped and killed, goes on, and ends with the
# same bits; what cannot be written loses nothing.
. "$(dirname "$0")/check.inc"
. "$(dirname "$0")/tensors.inc"

# A text that is easy to learn.
i=0
while [ $i -lt 2000 ]; do
    echo "the crow counts to $((i % 7)) and begins again"
    i=$((i + 1))
done >"$scratch/crow.txt"

# begin FOLDER OPTION...: in the background, as $run.
begin() {
    folder=$1
    shift
    "$corvid" train lm --data "$scratch/crow.txt" --out "$folder" --arch rwkv7 --layers 2 --dim 64 \
        -b 4 -c 32 -n 100 --save-every 5 --eval-every 20 --eval-tokens 2048 --lr 4e-3 \
        --threads 2 "$@" >"$scratch/out" 2>"$scratch/err" </dev/null &
    run=$!
}

train() {
    begin "$@"
    wait $run
}

# train_exits CODE FOLDER OPTION...
train_exits() {
    check_expected=$1
    shift
    train "$@"
    check_code=$?
    [ "$check_code" -eq "$check_expected" ] ||
        bad "train $*: exit code $check_code, expected $check_expected; $(head -n 2 "$scratch/err")"
}

# same_files A B FILE...: of two folders.
same_files() {
    check_a=$1 check_b=$2
    shift 2
    for file in "$@"; do
        cmp -s "$check_a/$file" "$check_b/$file" || bad "$file of $check_a and $check_b differ"
    done
}

# field NAME: that of the first, or last, line of a log.
first_of() { head -n 1 "$1/log.jsonl" | sed "s/.*\"$2\":\([-+0-9.e]*\).*/\1/"; }
last_of() { tail -n 1 "$1/log.jsonl" | sed "s/.*\"$2\":\([-+0-9.e]*\).*/\1/"; }

train_exits 0 "$scratch/whole"
prints "step     100"
for file in model.safetensors resume.bin log.jsonl loss.svg; do
    [ -s "$scratch/whole/$file" ] || bad "no $file"
done
[ -e "$scratch/whole/best.safetensors" ] && bad "best.safetensors, which nobody asked for"
awk -v a="$(first_of "$scratch/whole" loss)" -v b="$(last_of "$scratch/whole" loss)" \
    'BEGIN { exit !(a > 5 && b < 3) }' ||
    bad "the loss went from $(first_of "$scratch/whole" loss) to $(last_of "$scratch/whole" loss)"

# It runs like any other model.
exits 0 generate -m "$scratch/whole/model.safetensors" -p "the " -n 8 --greedy
exits 0 inspect info -m "$scratch/whole/model.safetensors"
prints "rwkv7"

# A folder with a run in it is not written over; other settings are refused.
cp "$scratch/whole/log.jsonl" "$scratch/log"
train_exits 2 "$scratch/whole"
says "--resume"
cmp -s "$scratch/log" "$scratch/whole/log.jsonl" || bad "a run that was refused changed the log"
for other in "--seed 2" "--ema 0.9" "--accumulate 2" "--schedule linear" "--lr 1e-3" "--clip 2"; do
    # shellcheck disable=SC2086
    train_exits 8 "$scratch/whole" --resume $other
    says "other settings"
done

# Killed at any moment, again and again, and gone on with: the same bits.  The delays are chance of a
# fixed seed.  The log has each step once; the line of a step that was saved and not told of is missing.
chance=12345
kills=0
killed() { # killed FOLDER OPTION...: four kills
    rm -rf "$1"
    for kill in 1 2 3 4; do
        chance=$(((chance * 1103515245 + 12345) % 2147483648))
        begin "$@" --resume
        sleep "$(awk -v ms=$((fifth / 4 + chance / 1000 % fifth)) 'BEGIN { print ms / 1000 }')"
        kill -9 $run 2>/dev/null
        wait $run 2>/dev/null
        [ $? -eq 137 ] && kills=$((kills + 1))
    done
    train_exits 0 "$@" --resume
}

everything="--ema 0.9 --accumulate 3 --keep-best --schedule linear --warmup 5 --eval-every 7"
began=$(date +%s%N)
# shellcheck disable=SC2086
train_exits 0 "$scratch/mean" $everything
fifth=$((($(date +%s%N) - began) / 5000000 + 1)) # of what the whole run took, in ms
for round in 1 2 3; do
    killed "$scratch/killed"
    same_files "$scratch/whole" "$scratch/killed" model.safetensors resume.bin
    sed 's/.*"step":\([0-9]*\).*/\1/' "$scratch/killed/log.jsonl" | awk '
        $1 <= last { print "step " $1 " comes after " last } { last = $1; n++ }
        END { if (last != 100 || n < 96) print n " steps, the last " last }' >"$scratch/log"
    [ -s "$scratch/log" ] && bad "log.jsonl: $(head -n 3 "$scratch/log")"
done
for round in 1 2; do
    # shellcheck disable=SC2086
    killed "$scratch/killed" $everything
    same_files "$scratch/mean" "$scratch/killed" model.safetensors resume.bin best.safetensors
done
[ $kills -ge 1 ] || bad "none of 20 kills met a run"

# Stopped by a signal, and by the clock; both are saved.
begin "$scratch/stopped"
tries=0
while [ ! -s "$scratch/stopped/resume.bin" ] && [ $tries -lt 200 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
kill -TERM $run 2>/dev/null
wait $run
stopped=$?
[ $stopped -eq 143 ] || [ $stopped -eq 0 ] || bad "SIGTERM: exit code $stopped"
train_exits 0 "$scratch/stopped" --resume
same_files "$scratch/whole" "$scratch/stopped" model.safetensors resume.bin
train_exits 0 "$scratch/clock" --minutes 0.0000001
prints "step       1"
prints "validation"
same "steps done" "$(last_of "$scratch/clock" step)" 1
cp -r "$scratch/clock" "$scratch/full"
train_exits 0 "$scratch/clock" --resume
same_files "$scratch/whole" "$scratch/clock" model.safetensors resume.bin

# On one thread as on two; and layers that are computed anew.
train_exits 0 "$scratch/one" --threads 1
same_files "$scratch/whole" "$scratch/one" model.safetensors resume.bin
train_exits 0 "$scratch/again" --recompute
same_files "$scratch/whole" "$scratch/again" model.safetensors resume.bin

# In parts it comes to the same but for rounding; the running mean is another model, and a good one.
train_exits 0 "$scratch/parts" --accumulate 4
near "validation in parts" "$(last_of "$scratch/parts" validation)" \
    "$(last_of "$scratch/whole" validation)" 0.02
cmp -s "$scratch/whole/model.safetensors" "$scratch/mean/model.safetensors" &&
    bad "--ema changed nothing"
near "validation of the mean" "$(last_of "$scratch/mean" validation)" \
    "$(last_of "$scratch/whole" validation)" 0.1

# No space left, which a limit on the size of files stands for (512 bytes each): the files of the last
# saving stay, the message names the one that could not be written, and nothing is left behind.
limited() { # limited BLOCKS FOLDER
    limit=$1
    shift
    (
        trap '' XFSZ
        ulimit -f "$limit"
        train "$@" --resume
        exit $?
    )
}
blocks() { echo $(($(wc -c <"$1") / 512)); }
cp -r "$scratch/full" "$scratch/before"
limited $(($(blocks "$scratch/full/model.safetensors") - 8)) "$scratch/full"
same "exit code without space for the model" $? 6
says "model.safetensors"
same_files "$scratch/before" "$scratch/full" model.safetensors resume.bin
limited $(($(blocks "$scratch/full/resume.bin") - 8)) "$scratch/full"
same "exit code without space to go on from" $? 6
says "resume.bin"
same_files "$scratch/before" "$scratch/full" resume.bin
exits 0 inspect info -m "$scratch/full/model.safetensors"
for file in "$scratch/full"/.*; do
    [ -f "$file" ] && bad "$file was left behind"
done
train_exits 0 "$scratch/full" --resume
same_files "$scratch/whole" "$scratch/full" model.safetensors resume.bin

# A number that is not finite ends the run, and the files before it stay good.
train_exits 9 "$scratch/wild" --lr 90 --lr-final 90 --warmup 3 --clip 0 --save-every 1
says "not finite"
exits 0 generate -m "$scratch/wild/model.safetensors" -p "the " -n 1
same "step of the last saving" "$(grep -c saved "$scratch/wild/log.jsonl")" \
    "$(last_of "$scratch/wild" step)"

# Products in bf16: the same bits on one thread, on three, and where it was stopped on the way, at widths
# that are no multiples of a panel.
bf16="--arch rwkv4 --type bf16 -n 12 --save-every 6"
# shellcheck disable=SC2086
{
    train_exits 0 "$scratch/half" $bf16
    train_exits 0 "$scratch/half3" $bf16 --threads 3
    "$corvid" train lm --data "$scratch/crow.txt" --arch lstm --layers 1 --dim 40 -b 3 -c 17 -n 8 \
        --type bf16 --out "$scratch/odd" --quiet >/dev/null 2>&1 || bad "an LSTM of width 40 in bf16"
    "$corvid" train lm --data "$scratch/crow.txt" --arch lstm --layers 1 --dim 40 -b 3 -c 17 -n 8 \
        --type bf16 --threads 3 --out "$scratch/odd3" --quiet >/dev/null 2>&1
    begin "$scratch/half_killed" $bf16
    while kill -0 $run 2>/dev/null && ! grep -qs saved "$scratch/half_killed/log.jsonl"; do sleep 0.01; done
    kill -9 $run 2>/dev/null
    wait $run 2>/dev/null
    train_exits 0 "$scratch/half_killed" $bf16 --resume
}
same_files "$scratch/half" "$scratch/half3" model.safetensors
same_files "$scratch/half" "$scratch/half_killed" model.safetensors
same_files "$scratch/odd" "$scratch/odd3" model.safetensors
cmp -s "$scratch/half/model.safetensors" "$scratch/odd/model.safetensors" && bad "two models are one"

# Without token shift the mixes stay where they begin, and everything else learns.
train_exits 0 "$scratch/alone" --arch rwkv4 -n 10 --token-shift off
for mix in att.time_mix_k att.time_mix_v att.time_mix_r ffn.time_mix_k ffn.time_mix_r; do
    same "$mix" "$(tensor "$scratch/alone/model.safetensors" "blocks.1.$mix" | sort -u)" 1
done
tensor "$scratch/alone/model.safetensors" blocks.1.att.time_first >"$scratch/first"
[ "$(sort -u "$scratch/first" | wc -l)" -gt 3 ] || bad "time_first has not learnt"
train_exits 8 "$scratch/alone" --arch rwkv4 -n 10 --resume
train_exits 0 "$scratch/alone7" -n 4 --token-shift off
same "ffn.x_k" "$(tensor "$scratch/alone7/model.safetensors" blocks.0.ffn.x_k | sort -u)" 0
train_exits 2 "$scratch/x" --arch gpt --token-shift off && says "no token shift"
train_exits 2 "$scratch/x" --arch rwkv6 --token-shift off && says "rwkv4, rwkv5.2 and rwkv7"

# What cannot be.
exits 2 train && says "train lm"
exits 2 train lm --out "$scratch/x" && says "--data"
exits 2 train lm --data "$scratch/crow.txt" && says "--out"
exits 3 train lm --data "$scratch/none.txt" --out "$scratch/x" && says "none.txt"
exits 2 train lm --data "$scratch/crow.txt" --out "$scratch/x" --arch vrwkv && says "rwkv4 to rwkv7"
exits 2 train lm --data "$scratch/crow.txt" --out "$scratch/x" --clip two && says "--clip"
exits 2 train lm --data "$scratch/crow.txt" --out "$scratch/x" --weight-decay -1 && says "--weight-decay"
exits 2 train lm --data "$scratch/crow.txt" --out "$scratch/x" -b 2 --accumulate 3 && says "3 parts"
finish
