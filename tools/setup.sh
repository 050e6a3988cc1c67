#!/bin/bash
# Installs the Debian packages that are missing, and does nothing when none is.
# Usage: tools/setup.sh [build] [test] [extra]
set -eu

build="gcc libc6-dev cmake ninja-build pkgconf libzip-dev libjansson-dev libxxhash-dev
       libutf8proc-dev libedit-dev libturbojpeg0-dev libpng-dev libwebp-dev libarchive-dev"
test="g++ libcmocka-dev libpcre2-dev python3 python3-pil"
extra="clang libclang-rt-14-dev llvm clang-format cppcheck valgrind gcovr git
       gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user libcmocka-dev:arm64"

command -v dpkg-query >/dev/null || { echo "setup: no Debian here; see the lists in $0"; exit 0; }

wanted=""
for group in "${@:-build}"; do
    case $group in
    build) wanted+=" $build" ;;
    test) wanted+=" $test" ;;
    extra) wanted+=" $extra" ;;
    *) echo "setup: unknown group '$group'; expected build, test or extra" >&2; exit 2 ;;
    esac
done

# One query for all: names of installed packages, with and without their architecture.
installed=" $(dpkg-query -W -f '${db:Status-Status} ${Package}:${Architecture}\n' |
    sed -n 's/^installed //p' | sed -E 'h; s/:[^:]*$//; H; x' | tr '\n' ' ')"
missing=""
for package in $wanted; do
    [[ $installed == *" $package "* ]] || missing+=" $package"
done
[ -n "$missing" ] || exit 0

echo "setup: installing$missing"
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
if [[ $missing == *:arm64* ]]; then $as_root dpkg --add-architecture arm64; fi
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
    >/dev/null
