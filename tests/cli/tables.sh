# tables.sh - completions and manual pages know every flag that --help knows.  Needs no model.
. "$(dirname "$0")/check.inc"

for shell in bash zsh fish; do
    exits 0 completions $shell
    cp "$scratch/out" "$scratch/$shell"
    command -v $shell >/dev/null 2>&1 || continue
    $shell -n "$scratch/$shell" || bad "$shell cannot read its completions"
done

exits 0 help
verbs=$(sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p' "$scratch/out")
for verb in $verbs; do
    exits 0 "$verb" --help
    flags=$(sed -n 's/^  \(-[a-zA-Z], \|    \)--\([a-z0-9-]*\).*/\2/p' "$scratch/out")
    [ "$(echo "$flags" | wc -w)" -ge 4 ] || bad "$verb --help shows no flags"
    exits 0 man "$verb"
    sed 's/\\-/-/g' "$scratch/out" >"$scratch/page"
    sed -n "/^    $verb)/,/^        esac/p" "$scratch/bash" >"$scratch/bash.verb"
    sed -n "/^    $verb)/,/;;/p" "$scratch/zsh" >"$scratch/zsh.verb"
    grep "from $verb'" "$scratch/fish" >"$scratch/fish.verb"
    for flag in $flags; do
        grep -qE -e "--$flag( |\\\\f)" "$scratch/page" || bad "man $verb lacks --$flag"
        grep -qF -e "--$flag " "$scratch/bash.verb" || bad "bash lacks $verb --$flag"
        grep -qE -e "--${flag}[]=,[}]" "$scratch/zsh.verb" || bad "zsh lacks $verb --$flag"
        grep -qE -e "-l $flag( |\$)" "$scratch/fish.verb" || bad "fish lacks $verb --$flag"
        [ "$flag" = help ] && continue
        twin=CORVID_$(echo "$flag" | tr 'a-z-' 'A-Z_')
        grep -qF "$twin" "$scratch/page" || bad "man $verb lacks $twin"
    done
    if command -v groff >/dev/null 2>&1; then
        noise=$(groff -man -Tutf8 -ww <"$scratch/page" 2>&1 >/dev/null)
        [ -z "$noise" ] || bad "man $verb: groff says $noise"
    fi
done

exits 0 man
prints "corvid\\-generate"

# bash really completes.
if command -v bash >/dev/null 2>&1; then
    got=$(bash -c '. "$1"; COMP_WORDS=(corvid generate --temp); COMP_CWORD=2; _corvid; echo "${COMPREPLY[*]}"' _ "$scratch/bash")
    same "completion of --temp" "$got" "--temperature"
    got=$(bash -c '. "$1"; COMP_WORDS=(corvid chat --template ""); COMP_CWORD=3; _corvid; echo "${COMPREPLY[*]}"' _ "$scratch/bash")
    same "completion of --template" "$got" "world g1"
    got=$(bash -c '. "$1"; COMP_WORDS=(corvid detok); COMP_CWORD=1; _corvid; echo "${COMPREPLY[*]}"' _ "$scratch/bash")
    same "completion of a verb" "$got" "detokenize"
fi
finish
