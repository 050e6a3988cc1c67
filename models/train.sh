#!/bin/bash
# How the models of this folder were made, from data to the files that are shipped.
# Usage: [DATA=FOLDER] [CORVID=PATH] [THREADS=N] [RUN_FOLDER=build/models] [OUT=models]
#        models/train.sh story|pictures
#
#   DATA        the test data ($CORVID_TEST_DATA, or ../shared/data): text/gutenberg, images/cifar10
#   RUN_FOLDER  where the runs go; one that was broken off goes on, and ends with the same bits
# An hour or more of a core each; more THREADS change no bit. Writes OUT/story.gguf or pictures.gguf, and
# what was evaluated on the way as OUT/story.jsonl or pictures.jsonl.
set -eu
here=$(dirname "$0")
corvid=${CORVID:-build/release/corvid} threads=${THREADS:-$(nproc)}
data=${DATA:-${CORVID_TEST_DATA:-$here/../../shared/data}}
folder=${RUN_FOLDER:-build/models} out=${OUT:-$here}
mkdir -p "$folder"

story() {
    local books=$data/text/gutenberg/train
    [ -e "$folder/story.vocab" ] ||
        "$corvid" train vocabulary --data "$books" --tokens 4096 --out "$folder/story.vocab"
    "$corvid" train lm --data "$books" --vocab "$folder/story.vocab" --arch rwkv7 --layers 6 --dim 256 \
        --context 512 --batch 4 -n 11500 --lr 1.2e-3 --lr-final 2e-5 --warmup 200 --weight-decay 0.1 \
        --type bf16 --validation 0.01 --eval-every 500 --eval-tokens 0 --save-every 500 --seed 1 \
        --threads "$threads" --out "$folder/story" --resume
}

pictures() {
    "$corvid" train vision --data "$data/images/cifar10/cifar10-jpeg.tar.gz" --size 32 --patch 4 \
        --augment small --cutmix 0.4 --drop-path 0.05 --layers 6 --dim 128 --batch 128 -n 18000 \
        --lr 1.5e-3 --lr-final 1e-5 --warmup 500 --ema 0.998 --type bf16 --eval-every 1000 \
        --eval-pictures 0 --save-every 500 --seed 1 --threads "$threads" --out "$folder/pictures" --resume
}

case ${1:-} in
story | pictures) "$1" ;;
*)
    sed -n '2,9p' "$0" >&2
    exit 2 ;;
esac
"$corvid" convert "$folder/$1/model.safetensors" "$out/$1.gguf" --type q8_0
grep '"validation"' "$folder/$1/log.jsonl" >"$out/$1.jsonl"
