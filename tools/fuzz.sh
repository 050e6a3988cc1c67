#!/bin/bash
# Runs every fuzz target of a folder for some seconds, two at a time, from the saved corpus.
# New inputs and findings stay in the build folder.  Usage: tools/fuzz.sh FOLDER SECONDS
set -eu
folder=$1 seconds=$2 root=$(cd "$(dirname "$0")/.." && pwd)

fuzz_one() {
    local target=$1 name topic work
    name=$(basename "$target") topic=${name#fuzz_}
    work=$folder/found/$topic
    mkdir -p "$work/new"
    local seeds=()
    for corpus in "$root/tests/fuzz/corpus/$topic" "$root/tests/fuzz/corpus/$name"; do
        [ -d "$corpus" ] && seeds+=("$corpus")
    done
    if "$target" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$work/" "$work/new" "${seeds[@]}" >"$work/log" 2>&1; then
        echo "fuzz: $topic: no finding, $(sed -n 's/.*executed_units: *//p' "$work/log") runs"
    else
        tail -n 60 "$work/log"
        echo "fuzz: $topic: FINDING, see $work"
        return 1
    fi
}
export -f fuzz_one
export folder seconds root

targets=$(find "$folder" -maxdepth 1 -name 'fuzz_*' -type f -executable | sort)
[ -n "$targets" ] || { echo "fuzz: no targets in $folder" >&2; exit 1; }
xargs -P 2 -I{} bash -c 'fuzz_one {}' <<<"$targets"
