#!/usr/bin/env bash
# Makes the Python environment of the second reader (format-spec/reader.py) in the cache, if it is
# not there, and prints the path of its interpreter. No package of the system's Python is touched.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

requirements="$GRADIX_ROOT/scripts/reader-requirements.txt"
environment="$GRADIX_CACHE/python"
python="$environment/bin/python"
stamp="$environment/made-for"
wanted="$(python3 -c 'import platform; print(platform.python_version())') $(tr '\n' ' ' <"$requirements")"

if [ ! -x "$python" ] || [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    say "making the second reader's Python environment in $environment" >&2
    python3 -m venv --clear "$environment" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --prefer-binary \
        --requirement "$requirements" >&2 </dev/null
    printf '%s\n' "$wanted" >"$stamp"
fi
printf '%s\n' "$python"
