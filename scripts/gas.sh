#!/usr/bin/env bash
# Writes docs/gas.md: what storing, instantiating and every message costs on wasmd, in a small market and in one with 2 000 further models,
# deployments and jobs. Takes some minutes, most of them to fill the market.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/build-wasm.sh >&2
scripts/wasmd.sh >/dev/null
cargo run --quiet --locked -p fxn-tests --example gas -- docs/gas.md
printf 'gas: docs/gas.md is written\n'
