#!/usr/bin/env bash
# Makes the digits, models and retrainings of tests/fixtures/digits again, which `gradix::eval`, tests/quality.rs and
# `make quality` judge with. They are committed: this is for those who want to check or change them.
#
#   digits.sh [FOLDER]    where the arrays go; without one they replace those of the checkout
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python=$("$GRADIX_ROOT/scripts/python-environment.sh" digits-python "$GRADIX_ROOT/scripts/digits-requirements.txt")
"$python" "$GRADIX_ROOT/tests/fixtures/digits/make.py" "${1:-$GRADIX_ROOT/tests/fixtures/digits}"
