#!/usr/bin/env bash
# Makes a Python environment in the cache, if it is not there, and prints the path of its interpreter. No package of
# the system's Python is touched.
#
#   python-environment.sh                       that of the second reader (format-spec/reader.py)
#   python-environment.sh FOLDER REQUIREMENTS   another: its folder in the cache, and what is installed
#   python-environment.sh FOLDER REQUIREMENTS PYTHON OPTIONS   the same, made by another interpreter, with options of venv
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

environment="$GRADIX_CACHE/${1:-python}"
requirements="${2:-$GRADIX_ROOT/scripts/reader-requirements.txt}"
base="${3:-python3}"
options=("${@:4}")
shown="${options[*]-}"
python="$environment/bin/python"
stamp="$environment/made-for"
wanted="$("$base" -c 'import platform; print(platform.python_version())') ${options[*]-} $(tr '\n' ' ' <"$requirements")"

if [ ! -x "$python" ] || [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    say "making the Python environment $environment" >&2
    "$base" -m venv --clear ${options[@]+"${options[@]}"} "$environment" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --prefer-binary \
        --requirement "$requirements" >&2 </dev/null
    printf '%s\n' "$wanted" >"$stamp"
fi
printf '%s\n' "$python"
