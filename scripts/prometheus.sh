#!/usr/bin/env bash
# Prints the path of promtool, or of the program of Prometheus that is named: the one that is installed, else the one of
# Debian's package prometheus, unpacked (and not installed) into $VECTIDE_CACHE/prometheus (VECTIDE_CACHE: ~/.cache/vectide
# unless given). Exit code 3: not to be had here.
set -euo pipefail

program=${1:-promtool}
home=${VECTIDE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vectide}/prometheus
if command -v "$program"; then
    exit 0
fi
if [ -x "$home/$program" ]; then
    echo "$home/$program"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "$program is not installed, and this is no Debian to take it from" >&2
    exit 3
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
{ apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } >log 2>&1 ||
    { tail -n 5 log >&2; exit 3; }
dpkg-deb --extract prometheus_*.deb unpacked
mkdir -p "$home"
mv unpacked/usr/bin/"$program" "$home/.new.$$"
mv "$home/.new.$$" "$home/$program"
echo "$home/$program"
