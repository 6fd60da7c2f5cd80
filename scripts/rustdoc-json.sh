#!/usr/bin/env bash
# rustdoc, but with JSON for scripts/public-api.py instead of pages. The format is not stable yet; only this
# call is allowed to use it, so that nothing else is built anew.
exec env RUSTC_BOOTSTRAP=1 rustdoc "$@" -Zunstable-options --output-format json
