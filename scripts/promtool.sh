#!/usr/bin/env bash
# Prints the path of promtool: the one that is installed, else the one of Debian's package prometheus, unpacked (and not
# installed) into $VECTIDE_CACHE/promtool (VECTIDE_CACHE: ~/.cache/vectide unless given). Exit code 3: not to be had here.
set -euo pipefail

home=${VECTIDE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vectide}/promtool
if command -v promtool; then
    exit 0
fi
if [ -x "$home/promtool" ]; then
    echo "$home/promtool"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "promtool is not installed, and this is no Debian to take it from" >&2
    exit 3
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
{ apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } >log 2>&1 ||
    { tail -n 5 log >&2; exit 3; }
dpkg-deb --extract prometheus_*.deb unpacked
mkdir -p "$home"
mv unpacked/usr/bin/promtool "$home/.new.$$"
mv "$home/.new.$$" "$home/promtool"
echo "$home/promtool"
