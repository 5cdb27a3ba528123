#!/usr/bin/env bash
# Builds the image without a container engine, and unpacks it: $VECTIDE_CACHE/image/root is its root file system,
# $VECTIDE_CACHE/image/config.json what it says about itself (VECTIDE_CACHE: ~/.cache/vectide unless given).
#
# buildah runs the steps of deploy/Dockerfile in a plain chroot, on a small Debian with Python that mmdebstrap makes: no
# registry of images is asked. Needs root and Debian; installs both tools where they are missing.
# Arguments go to buildah, for example --build-arg EXTRAS=openai,pgvector.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=${VECTIDE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vectide}/image
release=bookworm
base=localhost/vectide-base:$release
build_base=localhost/vectide-build-base:$release
image=localhost/vectide:built

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "building the image without an engine needs root on Debian; with one: docker build -f deploy/Dockerfile ." >&2
    exit 3
fi
if ! command -v buildah >/dev/null || ! command -v mmdebstrap >/dev/null; then
    echo "installing buildah and mmdebstrap"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah mmdebstrap >/dev/null
fi

mkdir -p "$home"
exec 9>"$home/.lock"
flock 9
cat >"$home/storage.conf" <<EOF
[storage]
driver = "${VECTIDE_IMAGE_DRIVER:-overlay}"
graphroot = "$home/storage"
runroot = "$home/run"
EOF
export CONTAINERS_STORAGE_CONF=$home/storage.conf BUILDAH_ISOLATION=chroot
container=
scratch=$(mktemp -d)
cleanup() {
    [ -z "$container" ] || buildah rm "$container" >/dev/null
    rm -rf "$scratch"
}
trap cleanup EXIT

# debian IMAGE PACKAGES: a small Debian with these packages, made once.
debian() {
    if buildah inspect --type image "$1" >/dev/null 2>&1; then
        return
    fi
    echo "making $1"
    mmdebstrap --quiet --variant=minbase --include="$2" "$release" "$scratch/base.tar"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$scratch/base.tar" / >/dev/null
    buildah commit --quiet "$container" "$1" >/dev/null
    buildah rm "$container" >/dev/null
    container=
}

debian "$base" ca-certificates,python3
debian "$build_base" ca-certificates,python3,python3-venv,python3-pip

# The index and the certificates that pip uses here, where they are not the usual ones.
{
    echo "[global]"
    python3 -m pip config list 2>/dev/null | sed -nE "s/^(global|:env:)\.(index-url|extra-index-url|cert)='(.*)'$/\2 = \3/p" | sort -u || true
} >"$scratch/pip.conf"
certificates=()
[ ! -d /etc/ssl/certs ] || certificates=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)

version=$(sed -nE 's/^__version__ = "(.*)"/\1/p' src/vectide/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
buildah build --quiet --pull=never --layers --format docker --timestamp 315532800 --secret "id=pip,src=$scratch/pip.conf" \
    "${certificates[@]}" --build-arg BASE="$base" --build-arg BUILD_BASE="$build_base" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    "$@" --tag "$image" --file deploy/Dockerfile . >/dev/null

container=$(buildah from --pull-never "$image")
rm -rf "$home/root"
cp -a "$(buildah mount "$container")" "$home/root"
buildah inspect --type image --format '{{.Config}}' "$image" >"$home/config.json"
echo "$home"
