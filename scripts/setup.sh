#!/usr/bin/env bash
# Makes .venv: Python 3.11 or newer, everything of requirements.lock, and vectide itself, editable.
# Does nothing when that is there already. PYTHON names the interpreter to use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.installed
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    local found
    found=$("${PYTHON:-python3}" --version 2>/dev/null) || found="not to be found"
    echo "vectide needs Python 3.11 or newer; ${PYTHON:-python3} is $found." >&2
    echo "Install one, or name it: make $1 PYTHON=/path/to/python3.11" >&2
    return 1
}

# A virtual environment cannot be moved, so the place is part of what it was made for.
wanted=$(cat requirements.lock pyproject.toml <(pwd) | cksum)
if new_enough "$python" && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if ! new_enough "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
    base=$(find_python "${1:-setup}")
    echo "creating $venv with $("$base" --version)"
    if ! "$base" -m venv --clear "$venv"; then
        echo "$base cannot make virtual environments: install its venv module (Debian: python3-venv)." >&2
        exit 1
    fi
fi
rm -f "$stamp"
echo "installing what requirements.lock names (the first time this takes a minute)"
"$python" -m pip install --quiet --require-hashes -r requirements.lock
"$python" -m pip install --quiet --no-deps --no-build-isolation --editable .
echo "$wanted" >"$stamp"
