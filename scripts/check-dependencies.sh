#!/usr/bin/env bash
# cargo-deny over the whole dependency tree: licences, bans, sources and, where the advisory
# database can be fetched, known vulnerabilities.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

tools=$("$GRADIX_ROOT/scripts/install-tool.sh" cargo-deny 0.20.2)
PATH="$tools:$PATH"
# With cuda: it is only looked at here, not built.
deny() { cargo deny --locked --workspace --all-features "$@"; }

deny check --hide-inclusion-graph licenses bans sources

# The database lies in a git repository elsewhere, and not every machine reaches it. That is no
# fault of the code, so it is said loudly and does not fail, unless CI_REQUIRE_ADVISORIES=1.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if timeout 180 cargo deny fetch db >"$log" 2>&1; then
    deny check --hide-inclusion-graph advisories
elif [ "${CI_REQUIRE_ADVISORIES:-0}" = 1 ]; then
    cat "$log" >&2
    die "the advisory database could not be fetched"
else
    shout "Security advisories were NOT CHECKED: the advisory database could not be fetched." \
        "$(grep -v '^ *$' "$log" | tail -n 1 | cut -c 1-200)" \
        "Licences, bans and sources were checked."
fi
