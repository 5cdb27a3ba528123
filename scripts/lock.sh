#!/usr/bin/env bash
# Writes requirements.lock anew: the newest versions that pyproject.toml allows, with hashes, for every
# supported Python and platform. uv comes from a throw-away environment. Arguments go to uv, for example
# `scripts/lock.sh --upgrade` (take new versions of everything) or `--upgrade-package NAME`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv
# All extras but those of which pyproject.toml says why they are left out.
mapfile -t extras < <("$tools/bin/python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    given = tomllib.load(file)
for extra in given["project"]["optional-dependencies"].keys() - set(given["tool"]["vectide"]["not-locked"]):
    print(f"--extra={extra}")
')
"$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-annotate --no-header --group dev "${extras[@]}" \
    "$@" pyproject.toml -o requirements.lock
echo "requirements.lock: $(grep -c '==' requirements.lock) packages"
