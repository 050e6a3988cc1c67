#!/bin/bash
# docs/equations.md is the register of formulas.  Fails when a [tag.like.this] cited in src/ is not
# registered there (in a heading or the first cell of a table row), or a registered one is used by
# no code and no test.
set -u
cd "$(dirname "$0")/.." || exit 2
register=docs/equations.md
[ -f $register ] || { echo "tags: $register is missing" >&2; exit 1; }

tag='\[[a-z][a-z0-9]*(\.[a-z0-9][a-z0-9-]*)+\]'
# In code a tag stands in a comment; arrays are indexed by s[a.b] too, so a letter, a digit, ) or ]
# before the bracket rules it out.
cited() { grep -rhoE "(^|[^]A-Za-z0-9_)])$tag" "$@" --include='*.[ch]' --include='*.sh' |
    grep -oE "$tag" | sort -u; }

registered=$(grep -E "^(#|\|)" $register | sed -E 's/^(\|[^|]*\|).*/\1/' | grep -oE "$tag" | sort -u)
bad=0
for t in $(comm -23 <(cited src) <(echo "$registered")); do
    echo "tags: $t is cited in $(grep -rlF "$t" src | head -n 1) and not registered in $register" >&2
    bad=1
done
for t in $(comm -13 <(cited src tests) <(echo "$registered")); do
    echo "tags: $t is registered in $register and used by no code and no test" >&2
    bad=1
done
exit $bad
