#!/usr/bin/env bash
# Everything that has to hold before a change lands: format, lints, tests, the demonstration end to end, contracts for wasm32.
# Installs what it needs (toolchain parts by rustup, the ONNX Runtime library and the model by pip) and nothing outside the checkout
# but cargo's and rustup's own folders.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }

command -v rustup >/dev/null || { echo "scripts/test.sh needs Rust with rustup: https://rustup.rs" >&2; exit 1; }
step "toolchain"
rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
rustup target add wasm32-unknown-unknown
rustup component add clippy rustfmt

step "ONNX Runtime and the demonstration model"
scripts/models.sh

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings

step "contracts for wasm32"
scripts/build-contracts.sh

step "release build of fxn"
cargo build --quiet --release --locked -p fxn-cli

step "tests, with the demonstration as the end-to-end test"
FXN_BIN="${CARGO_TARGET_DIR:-$PWD/target}/release/fxn" cargo test --workspace --locked --no-fail-fast

step "CosmJS against the embedded chain"
if command -v npm >/dev/null && [[ $(node --version 2>/dev/null) =~ ^v([0-9]+) && ${BASH_REMATCH[1]} -ge 20 ]]; then
  npm --prefix tests/cosmjs ci --no-audit --no-fund --loglevel=error
  FXN_BIN="$(realpath "${CARGO_TARGET_DIR:-$PWD/target}/release/fxn")" npm --prefix tests/cosmjs test
else
  echo "left out: tests/cosmjs (CosmJS against fxn devnet) needs Node.js 20 or newer with npm" >&2
  [[ ${CI:-} != true ]] || exit 1
fi

step "done"
