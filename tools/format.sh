#!/bin/bash
# Lays out all C files with clang-format, or with --check says which are not laid out.
set -eu
cd "$(dirname "$0")/.."
# Headers keep hand-aligned comments beside their fields, which clang-format would move.
files=$(find src cli server tests bench examples -name '*.c' 2>/dev/null | sort || true)
if [ "${1:-}" = --check ]; then
    clang-format --dry-run --Werror $files
else
    clang-format -i $files
fi
