#!/usr/bin/env bash
# The long seeded suites: the same tests as in scripts/test.sh, with the sizes that need an hour instead of seconds. Sets up what it needs
# from a clean clone, runs every suite even if one has failed, and says at the end which ones did.
#
#   scripts/slow.sh               every suite, from a seed of today
#   scripts/slow.sh --seed 42     the same run again
#
# A suite reads FXN_SLOW=1 as "the long size" and FXN_SEED as where its random choices begin; a failure tells the seed that shows it.
# FXN_FUZZ_SECONDS is the time of each door that hostile bytes knock at.
set -euo pipefail
cd "$(dirname "$0")/.."

seed=$(date +%Y%m%d)
[[ $# -eq 0 || ( $# -eq 2 && $1 == --seed && $2 =~ ^[0-9]+$ ) ]] || { echo "usage: scripts/slow.sh [--seed N]" >&2; exit 2; }
[[ $# -eq 0 ]] || seed=$2
command -v cargo >/dev/null || { echo "scripts/slow.sh needs Rust: https://rustup.rs" >&2; exit 1; }
export FXN_SLOW=1 FXN_SEED=$seed FXN_FUZZ_SECONDS=${FXN_FUZZ_SECONDS:-60}
failed=()
suite() {
  local name=$1 began=$SECONDS
  shift
  printf '\n== %s (seed %s, %d s)\n' "$name" "$seed" "$SECONDS"
  "$@" || failed+=("$name")
  printf -- '-- %s took %d s\n' "$name" $((SECONDS - began))
}

scripts/models.sh
cargo build --quiet --release --locked -p fxn-cli
export FXN_BIN="${CARGO_TARGET_DIR:-$PWD/target}/release/fxn"

state=$(mktemp -d)
trap 'scripts/localnet.sh stop --home "$state/localnet" >/dev/null; rm -rf "$state"' EXIT

# Runs a command with FXN_CHAOS_NETWORK naming a new chain of wasmd with the contracts. Anybody may have the same:
#   scripts/localnet.sh start --fresh && fxn keys import faucet --dev && fxn deploy --rpc http://127.0.0.1:26700 --profile local --out FILE
on_wasmd() {
  local port=26600
  scripts/build-wasm.sh || return 1
  scripts/localnet.sh start --home "$state/localnet" --base-port "$port" || return 1
  "$FXN_BIN" --home "$state/deployer" keys import faucet --dev || return 1
  "$FXN_BIN" --home "$state/deployer" deploy --rpc "http://127.0.0.1:$port" --profile local --out "$state/network.json" || return 1
  local ended=0
  FXN_CHAOS_NETWORK=$state/network.json "$@" || ended=$?
  scripts/localnet.sh stop --home "$state/localnet"
  return "$ended"
}
suite "laws: every message of every contract in 20 000 stories" cargo test --quiet --locked -p fxn-tests --test it laws
suite "garbage: disturbed messages and queries" cargo test --quiet --locked -p fxn-tests --test it garbage
suite "foreign models" cargo test --locked -p inference-host --test it foreign_models -- --nocapture
suite "devnet: restarts at any point" cargo test --locked -p fxn-devnet --test it -- state:: kill:: --nocapture
suite "devnet: 2 000 transactions/s for five minutes, with the log" cargo run --quiet --release --locked -p fxn-devnet --example load -- \
  --seconds 300 --state "$state/devnet"
suite "relayer processes killed at 500 random moments" cargo test --locked -p fxn-relayer --test it processes::moments -- --nocapture
suite "relayer processes in chaos, 200 seeds" cargo test --locked -p fxn-relayer --test it chaos -- --nocapture
suite "relayer processes in chaos on a chain of wasmd, 30 seeds" on_wasmd cargo test --locked -p fxn-relayer --test it chaos -- --nocapture
suite "hosts killed at every place and 100 moments" cargo test --quiet --locked -p inference-host --test it crash::
suite "sessions: hosts killed at every place and 100 moments" cargo test --quiet --locked -p inference-host --test it lane::kill
suite "sessions: what being paid costs" cargo test --quiet --release --locked -p inference-host --test it lane::cost -- --nocapture
suite "sessions: a million vouchers pass the host and one settlement pays them" cargo test --quiet --locked -p fxn-tests --test it lane::
suite "sessions: a client among hosts that die and lie, and a host's acceptor" cargo test --quiet --locked -p fxn-lane
suite "deployments killed anywhere, 3 000 stories" cargo test --quiet --locked -p fxn-cli --bin fxn deploy::run_tests
suite "hostile bytes" cargo test --quiet --locked -p fxn-tests --test fuzz -- --nocapture
suite "networks of processes" cargo test --quiet --locked -p fxn-tests --test stress -- --nocapture

printf '\n== done (seed %s, %d s)\n' "$seed" "$SECONDS"
[[ ${#failed[@]} -eq 0 ]] || { printf 'failed: %s\n' "${failed[@]}" >&2; exit 1; }
