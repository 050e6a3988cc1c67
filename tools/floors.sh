#!/bin/bash
# Dependencies point down, only down: checks every #include "folder/file.h" against the floors.
# A file includes its own folder, the folders listed for it, and corvid_base.h; nothing else.
set -u
cd "$(dirname "$0")/.." || exit 2

allowed() { # the folders that a file of folder $1 may include, besides its own
    case $1 in
    base) ;;
    tensor) echo base ;;
    text | image) echo base tensor ;;
    formats) echo base tensor ;;
    kernels) echo base tensor ;;
    ops) echo base tensor kernels ;;
    models) echo base tensor kernels ops formats ;;
    engine | inspect) echo base tensor kernels ops models formats text image ;;
    train) echo base tensor kernels ops models formats text image engine ;;
    api) echo base tensor kernels ops models formats text image engine train inspect ;;
    *) return 1 ;;
    esac
}

bad=0
complain() {
    echo "floors: $1: $2" >&2
    bad=1
}

for file in src/*/*.[ch]; do
    folder=$(basename "$(dirname "$file")")
    below=$(allowed "$folder") || { complain "$file" "the folder $folder has no floor"; continue; }
    for header in $(sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$file"); do
        case $header in
        corvid_base.h) continue ;;
        corvid*.h) [ "$folder" = api ] || complain "$file" "$header is for api and programs" ;;
        */*)
            of=${header%%/*}
            [[ " $folder $below " == *" $of "* ]] || complain "$file" "$header is not below $folder" ;;
        *) [ -f "src/$folder/$header" ] || complain "$file" "$header is not in its folder" ;;
        esac
    done
done

for file in cli/*.[ch] server/*.[ch] examples/*.[ch]; do # programs see only the public headers
    [ -f "$file" ] || continue
    for header in $(sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$file"); do
        case $header in
        corvid*.h) ;;
        *) [ -f "$(dirname "$file")/$header" ] || complain "$file" "$header is not public" ;;
        esac
    done
done

twice=$(find src cli server -name '*.[ch]' 2>/dev/null | sed 's|.*/||' | sort | uniq -d)
[ -z "$twice" ] || complain "$(echo $twice)" "a file name is there twice"
exit $bad
