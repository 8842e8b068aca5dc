#!/usr/bin/env bash
# Everything that has to hold before a change lands: format, lints, tests, the demonstration end to end, contracts for wasm32, a chain of
# wasmd validators. Installs what it needs (toolchain parts by rustup, the ONNX Runtime library and the model by pip, wasmd by go, wasm-opt by
# npm) and nothing outside the checkout but the folders that these tools keep for themselves. What Go or Node.js are needed for is left out
# where they are not, and told; with CI=true that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }

command -v rustup >/dev/null || { echo "scripts/test.sh needs Rust with rustup: https://rustup.rs" >&2; exit 1; }
left_out=()
[[ $(node --version 2>/dev/null) =~ ^v([0-9]+)[.]([0-9]+) ]] && ((BASH_REMATCH[1] * 100 + BASH_REMATCH[2] >= 2014)) && command -v npm >/dev/null && node=yes || node=no
[[ $node == yes ]] || left_out+=("contracts for wasm32, deployments of them, and CosmJS (they need Node.js 20.14 or newer with npm)")
scripts/wasmd.sh --check 2>/dev/null && wasmd=yes || wasmd=no
[[ $wasmd == yes ]] || left_out+=("the chain of wasmd validators (it needs Go, https://go.dev/dl, to build wasmd once)")
tell_left_out() { [[ ${#left_out[@]} -eq 0 ]] || { printf 'left out:'; printf ' %s;' "${left_out[@]}"; printf '\n'; } >&2; }
tell_left_out
[[ ${#left_out[@]} -eq 0 || ${CI:-} != true ]] || exit 1

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
cargo clippy --quiet --workspace --test localnet --test chains --test readme --locked -- -D warnings

if [[ $node == yes ]]; then
  step "contracts for wasm32"
  scripts/build-wasm.sh --check-reproducible
fi

step "release build of fxn"
cargo build --quiet --release --locked -p fxn-cli

step "tests, with the demonstration as the end-to-end test"
fxn=$(realpath "${CARGO_TARGET_DIR:-target}/release/fxn")
FXN_BIN="$fxn" cargo test --workspace --locked --no-fail-fast

if [[ $node == yes ]]; then
  step "CosmJS on the embedded chain, and what docs/wire.md describes"
  npm --prefix tests/cosmjs ci --no-audit --no-fund --loglevel=error
  FXN_BIN="$fxn" npm --prefix tests/cosmjs test
fi

if [[ $wasmd == yes ]]; then
  step "wasmd"
  scripts/wasmd.sh
  step "a chain of wasmd validators"
  # Whatever deploys takes the artifacts of the step above.
  without=()
  [[ $node == yes ]] || without=(-- --skip deploy:: --skip cli:: --skip validators::)
  FXN_BIN="$fxn" cargo test --workspace --locked --test localnet "${without[@]}"
fi

if [[ $wasmd == yes && $node == yes ]]; then
  step "the embedded chain and wasmd tell the same"
  FXN_BIN="$fxn" cargo test --workspace --locked --test chains
  step "the README on a chain of wasmd"
  FXN_BIN="$fxn" cargo test --workspace --locked --test readme
  step "the end-to-end stories on a chain of wasmd"
  FXN_LOCALNET_HOME=$(mktemp -d)
  export FXN_LOCALNET_HOME FXN_LOCALNET_BASE_PORT=26800
  trap 'scripts/localnet.sh stop; rm -rf "$FXN_LOCALNET_HOME"' EXIT
  scripts/localnet.sh start
  FXN_BIN="$fxn" FXN_E2E_RPC=http://127.0.0.1:26800 cargo test --workspace --locked --test e2e
  step "CosmJS on the same chain"
  deployer=$(mktemp -d -p "$FXN_LOCALNET_HOME")
  "$fxn" --home "$deployer" keys import faucet --dev
  "$fxn" --home "$deployer" deploy --rpc http://127.0.0.1:26800 --profile local
  FXN_NETWORK=$deployer/network.json npm --prefix tests/cosmjs test
  scripts/localnet.sh stop
fi

step "done"
tell_left_out
