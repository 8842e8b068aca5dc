#!/usr/bin/env bash
# The whole network on this machine, from a fresh clone: fetches ONNX Runtime and the model, builds `fxn`, and runs `fxn demo` with whatever
# arguments are given here. Everything it makes lies in .runtime/ and target/; a second run only runs the demonstration.
set -euo pipefail

# Arguments may name files, so the demonstration itself runs in the caller's folder.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

command -v cargo >/dev/null || die "Rust is needed: https://rustup.rs installs it"
command -v cc >/dev/null || die "a C compiler is needed as linker (on Debian and Ubuntu: apt install build-essential)"
"$root/scripts/models.sh"
export CARGO_TARGET_DIR
CARGO_TARGET_DIR=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
[[ -x $CARGO_TARGET_DIR/release/fxn ]] || printf 'demo: building fxn; the first time takes some minutes\n' >&2
(cd "$root" && cargo build --release --locked -p fxn-cli 2>&1) | sed '/^ *Finished /d' >&2 || die "fxn could not be built; the messages above say why"
FXN_ONNXRUNTIME=${FXN_ONNXRUNTIME:-$root/.runtime/onnxruntime/libonnxruntime.so} \
  exec "$CARGO_TARGET_DIR/release/fxn" demo --source "$root/.runtime/models/all-minilm-l6-v2" "$@"
