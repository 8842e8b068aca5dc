#!/usr/bin/env bash
# The long seeded suites: the same tests as in scripts/test.sh, with the sizes that need an hour instead of seconds.
#
#   scripts/slow.sh               every suite, from a seed of today
#   scripts/slow.sh --seed 42     the same run again
#
# A suite reads FXN_SLOW=1 as "the long size" and FXN_SEED as where its random choices begin; a failure tells the seed that shows it.
set -euo pipefail
cd "$(dirname "$0")/.."

seed=$(date +%Y%m%d)
[[ $# -eq 0 || ( $# -eq 2 && $1 == --seed && $2 =~ ^[0-9]+$ ) ]] || { echo "usage: scripts/slow.sh [--seed N]" >&2; exit 2; }
[[ $# -eq 0 ]] || seed=$2
export FXN_SLOW=1 FXN_SEED=$seed
suite() { printf '\n== %s (seed %s, %d s)\n' "$1" "$seed" "$SECONDS"; shift; "$@"; }

scripts/models.sh
cargo build --quiet --release --locked -p fxn-cli
export FXN_BIN="${CARGO_TARGET_DIR:-$PWD/target}/release/fxn"

suite "foreign models" cargo test --locked -p inference-host --test it foreign_models -- --nocapture

printf '\n== done (%d s)\n' "$SECONDS"
