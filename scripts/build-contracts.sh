#!/usr/bin/env bash
# Builds every contract for wasm32. What a contract must not use there (threads, files, floats in storage) fails here.
set -euo pipefail
cd "$(dirname "$0")/.."

contracts=(func-token model-registry provider-staking royalty-escrow job-orchestrator)
packages=()
for contract in "${contracts[@]}"; do packages+=(-p "$contract"); done
cargo build --quiet --locked --lib --profile wasm --target wasm32-unknown-unknown "${packages[@]}"
target="${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/wasm"
for contract in "${contracts[@]}"; do
    file="$target/${contract//-/_}.wasm"
    printf '  %-18s %4d KiB\n' "$contract" $(($(stat -c %s "$file") / 1024))
done
