#!/bin/bash
# The one static analyser that is a gate: cppcheck, at zero findings.
set -eu
cd "$(dirname "$0")/.."
folders=$(find src cli server -maxdepth 0 2>/dev/null || true)
mkdir -p build/cppcheck
cppcheck --quiet --error-exitcode=1 --std=c11 --language=c --enable=warning,performance,portability \
    --inline-suppr --suppress=missingIncludeSystem --suppress=unknownMacro -D_GNU_SOURCE \
    -D__x86_64__ -D__GNUC__=12 -Iinclude -Isrc --cppcheck-build-dir=build/cppcheck -j 2 $folders
