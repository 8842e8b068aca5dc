#!/usr/bin/env bash
# Builds every contract as the chain takes it: artifacts/*.wasm and artifacts/checksums.txt (for `sha256sum --check`).
#
#   scripts/build-wasm.sh                        build, optimise, check
#   scripts/build-wasm.sh --check-reproducible   the same, then once more from a copy in another folder: the checksums must be equal
#
# The bytes depend on the sources, Cargo.lock, rust-toolchain.toml, the profile `wasm` in Cargo.toml, and on wasm-opt, which
# scripts/wasm-opt/package-lock.json pins, with the passes below. They do not depend on the folder of the checkout, of cargo or of the
# target, nor on compiler settings in the environment.
set -euo pipefail

contracts=(func-token model-registry provider-staking royalty-escrow job-orchestrator randomness-beacon)
cosmwasm_check=3.0.10
# The compiler uses wasm features that chains refuse; the three lowerings rewrite them, and a feature has to be enabled to be rewritten.
# A function that is called once stays a function: put into its caller, the variables of both pass the 100 that a chain allows.
passes=(
  --enable-bulk-memory --enable-bulk-memory-opt --enable-sign-ext --enable-nontrapping-float-to-int --enable-mutable-globals
  --enable-reference-types --enable-multivalue
  --one-caller-inline-max-function-size 0
  -Os --signext-lowering --llvm-memory-copy-fill-lowering --llvm-nontrapping-fptoint-lowering
  --strip-debug --strip-producers --strip-target-features
)

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
tools=$root/.runtime
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
die() { printf 'build-wasm: %s\n' "$*" >&2; exit 1; }
digest() { sha256sum "$@" | cut -d' ' -f1; }

# Locked: two builds at once would install into each other's folders.
install_tools() {
  mkdir -p "$tools"
  exec 8>"$tools/.tools.lock"
  flock 8
  install_wasm_opt
  install_cosmwasm_check
  exec 8>&-
}

install_wasm_opt() {
  local key
  key=$(digest <scripts/wasm-opt/package-lock.json)
  wasm_opt=$tools/wasm-opt/$key/node_modules/.bin/wasm-opt
  [[ ! -x $wasm_opt ]] || return 0
  local work
  work=$(mktemp -d "$tools/wasm-opt.XXXXXX")
  cp scripts/wasm-opt/package{,-lock}.json "$work/"
  (cd "$work" && npm ci --no-audit --no-fund --loglevel=error) >&2 || die "npm could not install wasm-opt"
  mkdir -p "$tools/wasm-opt"
  rm -rf "$tools/wasm-opt/$key"
  mv "$work" "$tools/wasm-opt/$key"
}

install_cosmwasm_check() {
  local folder=$tools/cosmwasm-check/$cosmwasm_check
  checker=$folder/bin/cosmwasm-check
  [[ ! -x $checker ]] || return 0
  printf 'build-wasm: building cosmwasm-check %s; this once takes some minutes\n' "$cosmwasm_check" >&2
  plainly env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$folder" --version "$cosmwasm_check" cosmwasm-check \
    || die "cosmwasm-check could not be installed"
}

# Runs a command without anybody's compiler settings: they would make other bytes.
plainly() {
  local unset=() name
  for name in $(compgen -e); do
    case $name in
      RUSTFLAGS | RUSTC | RUSTC_* | RUSTUP_TOOLCHAIN | CARGO_ENCODED_RUSTFLAGS | CARGO_INCREMENTAL | CARGO_BUILD_* | CARGO_PROFILE_* | CARGO_TARGET_WASM32_*)
        unset+=(-u "$name")
        ;;
    esac
  done
  env "${unset[@]}" "$@"
}

# Folders of this machine get the same names everywhere: panics tell the file they happened in, and that text is in the artifact.
# The later of two that match wins.
remaps() {
  local sysroot commit registry flags=()
  sysroot=$(plainly rustc --print sysroot)
  commit=$(plainly rustc --version --verbose | sed -n 's/^commit-hash: //p')
  flags+=("--remap-path-prefix=$root=/function-network" "--remap-path-prefix=$target=/target")
  flags+=("--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit")
  for registry in "$cargo_home"/registry/src/*/; do
    flags+=("--remap-path-prefix=${registry%/}=/crates")
  done
  local IFS=$'\x1f'
  printf '%s' "${flags[*]}"
}

compile() {
  local contract packages=()
  for contract in "${contracts[@]}"; do packages+=(-p "$contract"); done
  # The folders of the registry have to be there before they can be named.
  plainly cargo fetch --quiet --locked --target wasm32-unknown-unknown
  plainly env CARGO_ENCODED_RUSTFLAGS="$(remaps)" CARGO_TARGET_DIR="$target" \
    cargo build --quiet --locked --lib --profile wasm --target wasm32-unknown-unknown "${packages[@]}"
}

# Optimised and checked files are kept by the digest of what they were made from: an unchanged contract costs nothing.
optimise() {
  local raw=$1 made=$2 work=$2.$$
  [[ ! -f $made ]] || return 0
  mkdir -p "$(dirname "$made")"
  "$wasm_opt" "${passes[@]}" "$raw" -o "$work" || die "wasm-opt failed on $raw"
  for private in "$root" "$cargo_home" "$target" "${HOME:-/root}"; do
    [[ ${#private} -gt 1 ]] || continue
    ! grep --quiet --text --fixed-strings "$private" "$work" || die "$raw names $private, a folder of this machine"
  done
  "$checker" "$work" >"$work.log" 2>&1 || { cat "$work.log" >&2; die "a chain would refuse $raw"; }
  rm "$work.log"
  mv "$work" "$made"
}

build() {
  install_tools
  compile
  local contract name raw made settings
  settings=$(printf '%s\n' "${passes[@]}" "$cosmwasm_check" "$wasm_opt" | sed "s|$tools||" | digest)
  mkdir -p artifacts
  rm -f artifacts/checksums.txt
  printf '%-20s %12s %12s\n' contract "raw bytes" "optimised"
  for contract in "${contracts[@]}"; do
    name=${contract//-/_}.wasm
    raw=$target/wasm32-unknown-unknown/wasm/$name
    made=$target/wasm32-unknown-unknown/optimised/$(digest "$raw")-${settings:0:16}.wasm
    optimise "$raw" "$made"
    cp "$made" "artifacts/.$name" && mv "artifacts/.$name" "artifacts/$name"
    printf '%-20s %12d %12d\n' "$contract" "$(stat -c %s "$raw")" "$(stat -c %s "$made")"
  done
  checksums
}

checksums() {
  local names=("${contracts[@]//-/_}")
  (cd artifacts && sha256sum "${names[@]/%/.wasm}" >.checksums.txt && mv .checksums.txt checksums.txt)
}

# What git would commit, in a folder with another name, another depth and a space, with settings that must not matter.
check_reproducible() {
  command -v git >/dev/null && git rev-parse --is-inside-work-tree >/dev/null 2>&1 || die "--check-reproducible needs git and a checkout"
  local copy
  elsewhere=$(mktemp -d)
  trap 'rm -rf "$elsewhere"' EXIT
  copy="$elsewhere/some where/else"
  mkdir -p "$copy"
  git ls-files -z --cached --others --exclude-standard -- ':!:.runtime' | while IFS= read -r -d '' file; do
    [[ ! -f $file ]] || printf '%s\0' "$file"
  done | tar --create --null --files-from=- | tar --extract --directory "$copy"
  ln -s "$tools" "$copy/.runtime"
  printf 'build-wasm: building once more in %s\n' "$copy" >&2
  RUSTFLAGS="-C target-cpu=generic -C debuginfo=2" CARGO_PROFILE_WASM_OPT_LEVEL=1 CARGO_INCREMENTAL=1 CARGO_TARGET_DIR="$elsewhere/target" \
    "$copy/scripts/build-wasm.sh" >&2
  diff artifacts/checksums.txt "$copy/artifacts/checksums.txt" >&2 || die "the same sources in another folder make other artifacts"
  printf 'reproducible: %s contracts have the same checksums when they are built in another folder\n' "${#contracts[@]}"
}

[[ $# -eq 0 || ( $# -eq 1 && $1 == --check-reproducible ) ]] || die "usage: scripts/build-wasm.sh [--check-reproducible]"
command -v cargo >/dev/null || die "Rust is needed: https://rustup.rs installs it"
command -v node >/dev/null && command -v npm >/dev/null || die "Node.js with npm is needed: wasm-opt comes as an npm package"
cargo_home=$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")
build
[[ $# -eq 0 ]] || check_reproducible
