# features.sh - `corvid features`, and `corvid logits` of pictures given as numbers, against the
# reference models.
. "$(dirname "$0")/check.inc"
. "$(dirname "$0")/tensors.inc"
small=vrwkv-golden/small
for name in a_pre b2_pre_gamma e_v6_post_cls_keynorm f_variants; do
    need $small/$name.weights.safetensors $small/$name.io.safetensors
done
need images/photos/chelsea.png images/photos/coffee.png images/photos/rocket.jpg
small=$data/$small

# Logits and pooled vectors of every case; an exact evaluation is within 1e-6.
for case in "a_pre auto sq 2" "a_pre auto rect 1" "a_pre auto odd 1" "b2_pre_gamma pre sq 2" \
    "e_v6_post_cls_keynorm auto rect 1"; do
    # shellcheck disable=SC2086
    set -- $case
    model=$small/$1.weights.safetensors
    io=$small/$1.io.safetensors
    exits 0 logits -m "$model" --norm "$2" --input "$io:$3.image" --json || continue
    json_rows >"$scratch/got"
    tensor "$io" "$3.logits" >"$scratch/expected"
    alike "logits of $1 $3" "$scratch/got" "$scratch/expected" 1e-5
    same "arrays of $1 $3" "$(tr -cd '[' <"$scratch/out" | wc -c)" $(($4 + 1))
    exits 0 logits -m "$model" --norm "$2" --input "$io:$3.image" --out "$scratch/l.safetensors"
    [ -s "$scratch/out" ] && bad "--out prints something"
    same "shape of --out" "$(shape "$scratch/l.safetensors" logits)" "$4,10"
    tensor "$scratch/l.safetensors" logits >"$scratch/file"
    alike "--out of $1 $3" "$scratch/file" "$scratch/got" 1e-7
done
model=$small/a_pre.weights.safetensors
io=$small/a_pre.io.safetensors
exits 0 logits -m "$model" --input "$io:sq.image" --json
prints '{"arch":"vrwkv","logits":[['
grep -qE 'tokens|files' "$scratch/out" && bad "tokens or files of numbers: $(cat "$scratch/out")"
cp "$scratch/out" "$scratch/formula"
exits 0 logits -m "$model" --input "$io:sq.image" --json --batch 1
cmp -s "$scratch/out" "$scratch/formula" || bad "the batch changes logits"
for kernel in cuda32 cuda16; do
    exits 0 logits -m "$model" --input "$io:sq.image" --json --bi-wkv $kernel
    cmp -s "$scratch/out" "$scratch/formula" && bad "--bi-wkv $kernel changes nothing"
    json_rows >"$scratch/got"
    tensor "$io" sq.logits_$kernel >"$scratch/expected"
    alike "logits of $kernel" "$scratch/got" "$scratch/expected" 1e-5
done

# Feature maps: stacked, a layer by a layer, class tokens beside them.
features=$scratch/f.safetensors
exits 0 features -m "$model" --input "$io:sq.image" --out "$features"
same "shape of the last layer" "$(shape "$features" features.2)" "2,48,4,4"
tensor "$features" features.2 >"$scratch/got"
tensor "$io" sq.feat0 >"$scratch/expected"
alike "the last layer" "$scratch/got" "$scratch/expected" 1e-5
exits 0 features -m "$model" --input "$io:odd.image" --pool --out "$features"
tensor "$features" pooled >"$scratch/got"
tensor "$io" odd.pooled >"$scratch/expected"
alike "pooled" "$scratch/got" "$scratch/expected" 1e-5
grep -aq features "$features" && bad "--pool alone writes feature maps"

f=$small/f_variants
exits 0 features -m "$f.weights.safetensors" --input "$f.io.safetensors:rect.image" --layers -1,0 \
    --pool --out "$features"
for pair in "features.0 feat0" "features.2 feat1" "pooled pooled"; do
    tensor "$features" "${pair% *}" >"$scratch/got"
    tensor "$f.io.safetensors" "rect.${pair#* }" >"$scratch/expected"
    alike "$pair of f_variants" "$scratch/got" "$scratch/expected" 1e-5
done
e=$small/e_v6_post_cls_keynorm
exits 0 features -m "$e.weights.safetensors" --input "$e.io.safetensors:sq.image" --layers all \
    --out "$features"
same "shape of a class token" "$(shape "$features" class_token.0)" "2,64"
tensor "$features" class_token.1 >"$scratch/got"
tensor "$e.io.safetensors" sq.feat0.cls >"$scratch/expected"
alike "class token" "$scratch/got" "$scratch/expected" 1e-5

# Pictures: every size has its grid; a broken one leaves no gap.
mkdir "$scratch/p"
cp "$data/images/photos/chelsea.png" "$data/images/photos/coffee.png" \
    "$data/images/photos/rocket.jpg" "$scratch/p"
exits 0 features -m "$model" "$scratch/p" --size 100x60 --layers all --pool --out "$features"
same "shape at 100x60" "$(shape "$features" features.0)" "3,48,8,13"
for name in features.0 features.2 pooled; do
    tensor "$features" $name >"$scratch/whole.$name"
done
head -c 20000 "$data/images/photos/coffee.png" >"$scratch/p/broken.png"
exits 4 features -m "$model" "$scratch/p" --size 100x60 --layers all --pool --batch 1 \
    --out "$features" && says broken.png
for name in features.0 features.2 pooled; do
    tensor "$features" $name >"$scratch/got"
    cmp -s "$scratch/got" "$scratch/whole.$name" || bad "$name changed beside a broken picture"
done
same "shape beside a broken picture" "$(shape "$features" features.0)" "3,48,8,13"
grep -aqF 'chelsea.png\",\"' "$features" || bad "the metadata has no names of files"
grep -aqF broken.png "$features" && bad "the metadata names a broken picture"
rm "$scratch/p/broken.png"

exits 0 features -m "$model" "$scratch/p" --size native --layers -1 --pool --out "$features"
same "native shape of chelsea" "$(shape "$features" 0.features.2)" "48,38,57"
same "native shape of rocket" "$(shape "$features" 2.features.2)" "48,54,80"
same "pooled of three" "$(shape "$features" pooled)" "3,48"
tensor "$features" 1.features.2 >"$scratch/got"
exits 0 features -m "$model" "$scratch/p/coffee.png" --size 600x400 --out "$features"
tensor "$features" features.2 >"$scratch/expected"
cmp -s "$scratch/got" "$scratch/expected" || bad "native is another size than 600x400"
exits 0 inspect info -v -m "$model"
prints "native size"

# A model without a head has features all the same, and no logits.
LC_ALL=C sed 's/"head\./"xead./g' "$model" >"$scratch/headless.safetensors"
exits 0 features -m "$scratch/headless.safetensors" --input "$io:sq.image" --out "$features"
exits 2 logits -m "$scratch/headless.safetensors" --input "$io:sq.image" && says "no head"
exits 2 classify -m "$scratch/headless.safetensors" "$scratch/p" && says "no head"

# Mistakes.
exits 2 features -m "$model" "$scratch/p" && says "--out"
exits 2 features -m "$model" "$scratch/p" --input "$io" --out "$features" && says "--input"
for layers in 3 -4 0,0 2,-1 1, x; do
    exits 2 features -m "$model" "$scratch/p" --layers=$layers --out "$features" && says "--layers"
done
exits 6 features -m "$model" "$scratch/p" --out "$scratch/no/such/folder.safetensors"
exits 2 logits -m "$model" --input "$io" --json && says 'no tensor "image"' && says "sq.image [2, 3"
exits 2 logits -m "$model" --input "$io:nothing" && says '"nothing"'
exits 4 logits -m "$model" --input "$io:sq.logits" && says "[pictures, 3, height, width]"
exits 4 logits -m "$model" --input "$io:sq.labels" && says "expected F32"
exits 3 logits -m "$model" --input "$scratch/none.safetensors:x"
exits 2 logits -m "$model" --input "$io:sq.image" --all && says "--all"
exits 2 logits -m "$model" --input "$io:sq.image" --tokens 1

# Files that lie: too short for the header, for a tensor, of no JSON, with wrong sizes.
head -c 100 "$io" >"$scratch/bad.safetensors"
exits 4 logits -m "$model" --input "$scratch/bad.safetensors:x" && says "bad.safetensors"
lie() {
    printf "\\$(printf %03o ${#1})\0\0\0\0\0\0\0%s" "$1" >"$scratch/bad.safetensors"
    head -c 12 /dev/zero >>"$scratch/bad.safetensors"
    exits 4 logits -m "$model" --input "$scratch/bad.safetensors:x" && says "bad.safetensors"
}
lie '{"x":{"dtype":"F32","shape":[3,1,1],"data_offsets":[0,16]}}'
lie '{"x":{"dtype":"F32","shape":[3,1,1],"data_offsets":[-4,8]}}'
lie '{"x":{"dtype":"F32","shape":[3,1,2],"data_offsets":[0,12]}}'
lie '{"x":{"dtype":"F32","shape":[3,4294967296,4294967296],"data_offsets":[0,0]}}'
lie '{"x":{"dtype":"F32","shape":[3,-1,-1],"data_offsets":[0,12]}}'
lie '{"x":{"dtype":"F32","shape":[3,0,1],"data_offsets":[0,0]}}'
lie '{"x":{"dtype":"F32","shape":"3","data_offsets":[0,12]}}'
lie '{"x":{"dtype":"F16","shape":[3,2,1],"data_offsets":[0,12]}}'
lie '{"x":{"dtype":"F32","shape":[3,1,1],"data_offsets":[0,12]}, "x":1}'
lie '["x"]'
lie '{"x":'
finish
