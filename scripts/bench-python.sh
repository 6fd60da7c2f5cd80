#!/usr/bin/env bash
# Makes the Python environment of the benchmark's peers in the cache, if it is not there, and prints
# the path of its interpreter. No package of the system's Python is touched.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

requirements="$GRADIX_ROOT/scripts/bench-requirements.txt"
torch="$GRADIX_ROOT/scripts/bench-torch-requirements.txt"
cpu_wheels=https://download.pytorch.org/whl/cpu
environment="$GRADIX_CACHE/bench-python"
python="$environment/bin/python"
stamp="$environment/made-for"
wanted="$(python3 -c 'import platform; print(platform.python_version())') $(cat "$requirements" "$torch" | tr '\n' ' ')"

if [ ! -x "$python" ] || [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    say "making the peers' Python environment in $environment" >&2
    python3 -m venv --clear "$environment" >&2
    install() { "$python" -m pip install --quiet --disable-pip-version-check --prefer-binary "$@" >&2 </dev/null; }
    install --requirement "$requirements"
    # PyPI's wheel for Linux wants CUDA's libraries, 5 GB of them, to be there even where there is no
    # GPU; the CPU wheel does not, and computes the same.
    if ! install --retries 0 --timeout 10 --index-url "$cpu_wheels" --requirement "$torch" 2>/dev/null; then
        say "no CPU wheel of torch from $cpu_wheels: taking PyPI's, with CUDA's libraries (5 GB)" >&2
        install --requirement "$torch"
    fi
    printf '%s\n' "$wanted" >"$stamp"
fi
printf '%s\n' "$python"
