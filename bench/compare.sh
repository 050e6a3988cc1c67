#!/bin/bash
# Corvid beside another engine on the same random weights, in turns, in one run.
# Usage: bench/compare.sh --llama-bench PATH [--rwkv "COMMAND MODEL.bin"] [--types "bf16 f16 f32"]
#        [--shape rwkv7-0.1b] [--threads 2] [--rounds 5] [--folder DIR] [--corvid PATH]
#
#   --llama-bench  llama.cpp's own benchmark program
#   --rwkv         a command for a model in rwkv.cpp's format that prints lines with
#                  "prefill X decode Y" (tokens per second); %T in it stands for the type
# Prints the median of each side and the ratio, after a probe of the memory bandwidth.
set -eu
corvid=build/release/corvid folder=${TMPDIR:-/tmp} types="bf16 f16 f32" shape=rwkv7-0.1b
threads=2 rounds=5 llama="" rwkv=""
while [ $# -gt 0 ]; do
    case $1 in
    --llama-bench) llama=$2 ;;
    --rwkv) rwkv=$2 ;;
    --types) types=$2 ;;
    --shape) shape=$2 ;;
    --threads) threads=$2 ;;
    --rounds) rounds=$2 ;;
    --folder) folder=$2 ;;
    --corvid) corvid=$2 ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# field NAME < corvid's JSON: the tokens_per_s of that part
field() { tr -d ' \n' | grep -o "\"$1\":{\"tokens_per_s\":[0-9.eE+-]*" | sed 's/.*://'; }

echo "bandwidth before: $("$corvid" bench --shape rwkv7-tiny --threads "$threads" --repeat 1 |
    sed -n 's/^bandwidth .* of \([0-9.]* GB.s\).*/\1/p')"
printf '%-6s %-8s %10s %10s %10s %8s\n' type work corvid llama.cpp rwkv.cpp ratio
for type in $types; do
    model=$folder/$shape-$type.gguf
    [ -f "$model" ] || "$corvid" convert -q "random:$shape" "$model" --type "$type"
    work=$(mktemp -d)
    for ((round = 0; round < rounds; round++)); do
        "$corvid" bench -m "$model" --threads "$threads" --prompt 512 --tokens 64 --repeat 1 \
            --no-probe --json >"$work/json"
        for part in prefill decode; do field $part <"$work/json" >>"$work/corvid.$part"; done
        if [ -n "$llama" ]; then
            "$llama" -m "$model" -t "$threads" -p 512 -n 64 -r 1 -o csv 2>/dev/null |
                awk -F'","' 'NR == 1 { gsub(/"/, ""); n = split($0, name, ",") }
                    NR > 1 { gsub(/"/, "", $NF)
                             for (i = 1; i <= n; i++) { if (name[i] == "n_prompt") p = $i
                                                        if (name[i] == "avg_ts") t = $i }
                             print (p > 0 ? "prefill" : "decode"), t }' >"$work/csv"
            for part in prefill decode; do
                awk -v p=$part '$1 == p { print $2 }' "$work/csv" >>"$work/llama.$part"
            done
        fi
        if [ -n "$rwkv" ]; then
            ${rwkv//%T/$type} 2>/dev/null >"$work/rwkv" || true
            for part in prefill decode; do
                grep -o "$part [0-9.]*" "$work/rwkv" | awk '{ print $2 }' | median >>"$work/rwkv.$part"
            done
        fi
    done
    for part in prefill decode; do
        ours=$(median <"$work/corvid.$part")
        theirs=$( [ -s "$work/llama.$part" ] && median <"$work/llama.$part" || echo -)
        other=$( [ -s "$work/rwkv.$part" ] && grep . "$work/rwkv.$part" | median || echo -)
        awk -v t="$type" -v p=$part -v a="$ours" -v b="$theirs" -v c="${other:--}" 'BEGIN {
            best = b == "-" || (c != "-" && c > b + 0) ? c : b
            printf "%-6s %-8s %10.1f %10s %10s %8s\n", t, p, a, b == "-" ? b : sprintf("%.1f", b),
                c == "-" ? c : sprintf("%.1f", c), best == "-" ? best : sprintf("%.2f", a / best) }'
    done
    rm -rf "$work"
done
echo "bandwidth after:  $("$corvid" bench --shape rwkv7-tiny --threads "$threads" --repeat 1 |
    sed -n 's/^bandwidth .* of \([0-9.]* GB.s\).*/\1/p')"
