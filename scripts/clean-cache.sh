#!/usr/bin/env bash
# Removes what the scripts keep in the cache, folder by folder: a GRADIX_CACHE that points to a
# folder with other things in it loses none of them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

shopt -s nullglob
for entry in "$GRADIX_CACHE"/{target,fuzz-target,fuzz-corpus,sanitize-target,mutants,rocksdb-build,tools,tools-build,maturin} \
    "$GRADIX_CACHE"/rocksdb-[0-9]* "$GRADIX_CACHE"/python "$GRADIX_CACHE"/python-* "$GRADIX_CACHE"/*-python; do
    [ -e "$entry" ] || continue
    say "removing $entry"
    rm -rf "$entry"
done
