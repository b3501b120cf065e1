#!/bin/sh
# Create or update the environment from the hash-locked requirements: `sh ci/environment.sh .venv`.
# Uses uv where it is installed, pip where not; $PYTHON may name the interpreter. Compiling to bytecode once spares
# every kernel seconds at its start, also where Python is told not to write any (pip does it unasked).
set -eu
venv=$1
python=${PYTHON:-python3}

"$python" - <<'PY' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}; name another: make PYTHON=python3.12 …")
PY

if command -v uv >/dev/null 2>&1; then
    [ -x "$venv/bin/python" ] || uv venv --quiet --seed --python "$python" "$venv"
    uv pip install --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes --requirement requirements.txt
else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # --no-deps: the lock is complete, but for what pyproject.toml overrides.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.txt
fi
# The library itself, editable, with nothing resolved again.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
