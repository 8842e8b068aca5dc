#!/usr/bin/env bash
# What the network can do on this machine, and what bounds it: tables on stdout, all figures as JSON in .runtime/bench.json. Takes less than ten
# minutes once everything is built; whatever else runs meanwhile is in the figures.
#
#   scripts/bench.sh               every section
#   scripts/bench.sh settlement    attestations settled a second on one wasmd validator, and from `job_assigned` to the settlement
#   scripts/bench.sh --write ...   also puts the sections into docs/performance.md
#   scripts/bench.sh --json FILE   JSON somewhere else
#
# FXN_BIN names an fxn that is built already. It is measured as it is: docs/performance.md tells whether it was a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/models.sh >&2
scripts/build-wasm.sh >&2
scripts/wasmd.sh >/dev/null
if [[ -z ${FXN_BIN:-} ]]; then
  cargo build --quiet --release --locked -p fxn-cli
  FXN_BIN=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release/fxn
  export FXN_BIN
fi
[[ " $* " == *" --json "* ]] || set -- --json .runtime/bench.json "$@"
cargo run --quiet --locked -p fxn-tests --example bench -- --date "$(date -u +%F)" "$@"
