# generate.sh - `corvid generate`: greedy text against the reference, stops, states, streams.
. "$(dirname "$0")/check.inc"
need rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin rwkv-tiny/tiny-rwkv-4v0-660K-FP32.bin \
    rwkv-tiny/reference/index.tsv
model=$data/rwkv-tiny/tiny-rwkv-7v0-834K-FP32.bin
prompt='This is a port of [BlinkDL/RWKV-LM](https://github.com/BlinkDL/RWKV-LM'

# write NAME ARGUMENT...: the greedy continuation of the prompt into a file.
write() {
    name=$1
    shift
    exits 0 generate -m "$model" -p "$prompt" --greedy "$@" && cp "$scratch/out" "$scratch/$name"
}

# Sixteen greedy bytes of two models, computed independently.
for stem in 7v0-834K 4v0-660K; do
    expected=$(sed -n "s/^$stem-FP32.*greedy16=//p" "$data/rwkv-tiny/reference/index.tsv")
    exits 0 generate -m "$data/rwkv-tiny/tiny-rwkv-$stem-FP32.bin" -p "$prompt" -n 16 --greedy --ids
    same "greedy ids of $stem" "$(cat "$scratch/out")" "$expected"
done

# The same on any number of threads, chunks and runs, from standard input and from a file.
write one -n 64 --threads 1
write two -n 64 --threads 2
write chunked -n 64 --chunk 3
printf %s "$prompt" >"$scratch/prompt"
exits 0 generate -m "$model" --prompt-file "$scratch/prompt" --greedy -n 64
cp "$scratch/out" "$scratch/from-file"
"$corvid" generate -m "$model" -p - --greedy -n 64 <"$scratch/prompt" >"$scratch/from-stdin"
exits 0 generate -m "$model" --temperature 0 -p "$prompt" -n 64
cp "$scratch/out" "$scratch/cold"
for other in two chunked from-file from-stdin cold; do
    cmp -s "$scratch/one" "$scratch/$other" || bad "the text differs: $other"
done
same "bytes written" "$(wc -c <"$scratch/one")" 64

# A seed decides.
for seed in 1 1 2; do
    exits 0 generate -m "$model" -p "$prompt" -n 64 --seed $seed --top-p 1 --ids
    cp "$scratch/out" "$scratch/seed.$seed.$((n = ${n:-0} + 1))"
done
cmp -s "$scratch/seed.1.1" "$scratch/seed.1.2" || bad "one seed wrote two texts"
cmp -s "$scratch/seed.1.1" "$scratch/seed.2.3" && bad "two seeds wrote one text"

# Stop strings end the text before them, also across tokens; the first to appear counts.
exits 0 generate -m "$model" -p "$prompt" -n 64 --greedy --stop "the "
before=$(cat "$scratch/one"; echo .)
before=${before%.}
same "text before the stop" "$(cat "$scratch/out"; echo .)" "${before%%the *}."
exits 0 generate -m "$model" -p "$prompt" -n 64 --greedy --stop "no such text" --stop "he" --json
prints '"finish": "stop"'
exits 0 generate -m "$model" -p "$prompt" -n 5 --greedy --stop "er thee" --json
prints '"finish": "length"'
prints '"text": "er th"' # held back to the end, then shown after all

# JSON has the same text and ids.
exits 0 generate -m "$model" -p "$prompt" -n 16 --greedy --json
prints '"tokens": [101, 114, 32, 116, 104, 101, 32'
prints '"prompt_tokens": 70'
prints '"finish": "length"'

# A bias bans a token; the likeliest one first is e (101).
exits 0 generate -m "$model" -p "$prompt" -n 1 --greedy --ids --logit-bias "101=-inf"
grep -qx 101 "$scratch/out" && bad "a banned token was written"
exits 0 generate -m "$model" -p "$prompt" -n 3 --greedy --ids --logit-bias "65=1000"
same "a forced token" "$(cat "$scratch/out")" "65 65 65"
exits 2 generate -m "$model" -p a --logit-bias "256=1" && says "--logit-bias"
exits 2 generate -m "$model" -p a --logit-bias "a" && says "--logit-bias"

# Token 0 ends a text, unless told otherwise.
exits 0 generate -m "$model" -p "$prompt" -n 3 --greedy --logit-bias "0=1000" --json
prints '"finish": "end"'
prints '"tokens": []'
exits 0 generate -m "$model" -p "$prompt" -n 3 --greedy --logit-bias "0=1000" --ids --ignore-eos
same "ignored ends" "$(cat "$scratch/out")" "0 0 0"

# A state saved in the middle goes on as if nothing had been.
half='This is a port of [BlinkDL/'
exits 0 generate -m "$model" -p "$half" -n 0 --save-state "$scratch/half.state"
same "text of -n 0" "$(wc -c <"$scratch/out")" 0
exits 0 generate -m "$model" --state "$scratch/half.state" -p "${prompt#"$half"}" -n 64 --greedy
cmp -s "$scratch/out" "$scratch/one" || bad "a saved state went on differently"
# It has read what was written, too, and nothing behind a stop.
write first -n 20 --save-state "$scratch/a.state"
first=$(cat "$scratch/first"; echo .)
exits 0 generate -m "$model" -p "$prompt${first%.}" -n 0 --save-state "$scratch/b.state"
cmp -s "$scratch/a.state" "$scratch/b.state" || bad "the saved state has read something else"
write stopped -n 64 --stop " the t" --save-state "$scratch/a.state"
stopped=$(cat "$scratch/stopped"; echo .)
exits 0 generate -m "$model" -p "$prompt${stopped%.}" -n 0 --save-state "$scratch/b.state"
cmp -s "$scratch/a.state" "$scratch/b.state" || bad "the state has read the stop string"
# A state of another model is refused, a missing one too; a state alone has no scores.
exits 8 generate -m "$data/rwkv-tiny/tiny-rwkv-4v0-660K-FP32.bin" --state "$scratch/a.state" -p a
exits 3 generate -m "$model" --state "$scratch/none.state" -p a
exits 2 generate -m "$model" --state "$scratch/a.state" && says "-p"

# An empty prompt begins a text; -v tells the seed and the speed; -q is quiet.
exits 0 generate -m "$model" -n 4
exits 0 generate -m "$model" -n 4 -v && says "seed " && says "wrote 4"
exits 0 generate -m "$model" -n 4 -q
[ -s "$scratch/err" ] && bad "-q is not quiet"

# A reader that leaves early is no error to talk about.
"$corvid" generate -m "$model" -p "$prompt" -n 100000 --ignore-eos 2>"$scratch/err" |
    head -c 10 >/dev/null
[ -s "$scratch/err" ] && bad "a closed pipe is not quiet: $(cat "$scratch/err")"

# Ctrl-C: 130, at once, and what was to be saved is not.  Started through sh because a background
# job of a script ignores SIGINT.
rm -f "$scratch/c.state"
if command -v timeout >/dev/null 2>&1; then
    timeout --preserve-status -s INT 1 "$corvid" generate -m "$model" -p a -n 100000000 \
        --ignore-eos --save-state "$scratch/c.state" >/dev/null 2>"$scratch/err"
    same "exit code of Ctrl-C" $? 130
    [ -e "$scratch/c.state" ] && bad "an interrupted run wrote its state"
fi
finish
