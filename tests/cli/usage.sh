# usage.sh - help, typos, exit codes, and where option values come from.  Needs no model.
. "$(dirname "$0")/check.inc"

# Without arguments: about ten lines.
exits 0
lines=$(wc -l <"$scratch/out")
[ "$lines" -le 12 ] || bad "usage has $lines lines"
prints "corvid generate"
exits 0 --version
prints "corvid "
exits 0 --help
verbs=$(sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p' "$scratch/out")
[ "$(echo "$verbs" | wc -w)" -ge 15 ] || bad "only these verbs: $verbs"
for verb in $verbs; do
    exits 0 "$verb" --help
    # Examples come before the options.
    awk '/^Examples:/ { e = NR } /^General:/ { g = NR } END { exit !(e && g && e < g) }' \
        "$scratch/out" || bad "$verb --help: no examples before the options"
    grep -q ' $' "$scratch/out" && bad "$verb --help: a line ends in a space"
    cp "$scratch/out" "$scratch/long"
    exits 0 help "$verb"
    cmp -s "$scratch/out" "$scratch/long" || bad "help $verb and $verb --help differ"
done

# Verbs: the nearest match, and what is to come later.
exits 2 genrate && says "did you mean generate"
exits 2 tokenise && says "did you mean tokenize"
exits 2 xyzzy && says "unknown verb"
for verb in serve; do
    exits 2 "$verb" && says "not part of this version"
done

# Flags.
exits 2 generate --temprature 1 && says "did you mean --temperature"
exits 2 generate --to 1 && says "several options"
exits 2 generate -Z && says "unknown option -Z"
exits 2 generate --top-p && says "--top-p needs a value"
exits 2 generate --top-p abc && says "--top-p"
exits 2 generate --top-p 1.5 && says "out of range"
exits 2 generate --top-p nan && says "--top-p"
exits 2 generate --top-k -3 && says "--top-k"
exits 2 generate --top-k 3x && says "--top-k"
exits 2 generate -n 99999999999999999999 && says "--max-tokens"
exits 2 generate --memory-limit 4Q && says "--memory-limit"
exits 2 generate --color sometimes && says "auto|always|never"
exits 2 generate --quiet=perhaps && says "--quiet"
exits 2 generate stray && says "stray"
exits 2 generate -p a --prompt-file b && says "--prompt-file"
exits 2 generate --stop "" -m x && says "--stop"
exits 2 chat --think && says "--template g1"
exits 2 chat --template g2 && says "world|g1"
exits 2 eval lambda && says "lambada"
exits 2 eval perplexity && says "--data"
exits 2 inspect infos && says "info"
exits 2 convert one && says "file to write"
exits 2 completions bsh && says "bash"
exits 2 man genrate && says "generate"
exits 2 detokenize --vocab bytes "1 x" && says "not a token id"
exits 2 tokenize --vocab bytes a b && says "one text"

# Without a model: how to point at one.
for verb in generate chat bench "inspect info" "tokenize a" "logits --tokens 1"; do
    # shellcheck disable=SC2086
    exits 2 $verb && says "CORVID_MODEL"
done

# Missing files.
exits 3 generate -m "$scratch/none.pth" -p a && says "none.pth"
exits 3 inspect info "$scratch/none.pth"
exits 3 convert "$scratch/none.pth" "$scratch/out.gguf"
[ -e "$scratch/out.gguf" ] && bad "a failed conversion left its target"
exits 3 tokenize --vocab "$scratch/none.txt" a

# Not a checkpoint.
echo "this is no checkpoint, whatever its name says" >"$scratch/junk.pth"
exits 4 generate -m "$scratch/junk.pth" -p a && says "junk.pth"

# Flag over environment over configuration file over default; seen through the range check.
CORVID_TOP_P=7 exits 2 generate && says "CORVID_TOP_P"
CORVID_TOP_P=7 exits 2 generate --top-p 0.5 && says "CORVID_TOP_P"
printf '# mine\n[chat]\ntop-p = 8\n' >"$XDG_CONFIG_HOME/corvid/config"
exits 2 generate && says "no model"
exits 2 chat && says "config:3: top-p: 8"
printf 'topp = 1\n' >"$XDG_CONFIG_HOME/corvid/config"
exits 2 generate && says 'did you mean "top-p"'
printf '[chatt]\n' >"$XDG_CONFIG_HOME/corvid/config"
exits 2 generate && says "[chatt]"
printf 'model = %s/from-config\n[generate]\nmodel = %s/from-section\n' "$scratch" "$scratch" \
    >"$XDG_CONFIG_HOME/corvid/config"
exits 3 chat && says "from-config"
exits 3 generate -p a && says "from-section"
CORVID_MODEL="$scratch/from-twin" exits 3 generate -p a && says "from-twin"
CORVID_MODEL="$scratch/from-twin" exits 3 generate -p a -m "$scratch/from-flag" && says "from-flag"
rm "$XDG_CONFIG_HOME/corvid/config"

# Colour never reaches a pipe unless asked for.
exits 0 help generate
grep -q "$(printf '\033')" "$scratch/out" && bad "colour on a pipe"
exits 0 generate --help --color always
grep -q "$(printf '\033')" "$scratch/out" || bad "no colour with --color always"

# A full disk is told, a closed pipe is not.
if [ -w /dev/full ]; then
    "$corvid" help >/dev/full 2>"$scratch/err"
    code=$?
    [ "$code" -eq 6 ] || bad "a full disk gave exit code $code"
fi
"$corvid" man generate 2>"$scratch/err" | head -n 1 >/dev/null
[ -s "$scratch/err" ] && bad "a closed pipe is not quiet: $(cat "$scratch/err")"
finish
