#!/usr/bin/env bash
# Builds wasmd, the chain's node, from the Go module in chain/ and prints where the program lies. It is built once: go.mod and go.sum pin
# every line of it, so a program made from the same two files is taken as it is, even where Go is not installed.
#
#   scripts/wasmd.sh           builds if needed, prints the path
#   scripts/wasmd.sh --check   builds nothing; exit code 1, with a sentence, if it is not built and cannot be
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
die() { printf 'wasmd: %s\n' "$*" >&2; exit 1; }

module=github.com/CosmWasm/wasmd
sdk=github.com/cosmos/cosmos-sdk/version
version=$(sed -n "s|^.*$module v\([0-9][^ ]*\).*|\1|p" chain/go.mod | head -n 1)
[[ -n $version ]] || die "chain/go.mod names no version of $module"
place=$root/.runtime/wasmd/$version

# Version and names are what the SDK's own build files pass: abci_info answers with the version. The library lies beside the program, which
# looks for it there, so that it runs when Go's module cache is gone.
flags=(-mod=readonly -trimpath -buildvcs=false -tags netgo -ldflags "-s -w -X $sdk.Name=wasm -X $sdk.AppName=wasmd -X $sdk.Version=$version \
  -X $sdk.BuildTags=netgo -extldflags=-Wl,-rpath,\$ORIGIN")
case $(uname -s) in
  Darwin) library=libwasmvm.dylib ;;
  *) library=libwasmvm.$(uname -m).so ;;
esac

# What decides the program: the module's pins, the flags, the machine.
key=$({ cat chain/go.mod chain/go.sum; printf '%s\n' "${flags[@]}" "$library"; } | sha256sum | cut -d' ' -f1)
current() { [[ -x $place/wasmd && -f $place/key && $(<"$place/key") == "$key" ]]; }

build() {
  command -v go >/dev/null || die "Go is needed to build wasmd: https://go.dev/dl"
  command -v "${CC:-cc}" >/dev/null || die "a C compiler is needed as linker (on Debian and Ubuntu: apt install build-essential)"
  printf 'wasmd: building wasmd %s; this once takes some minutes\n' "$version" >&2
  work=$(mktemp -d "$root/.runtime/wasmd/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  (
    cd chain
    CGO_ENABLED=1 go build "${flags[@]}" -o "$work/wasmd" "$module/cmd/wasmd"
    install -m 0644 "$(go list -m -f '{{.Dir}}' github.com/CosmWasm/wasmvm/v3)/internal/api/$library" "$work/"
  ) >&2 || die "wasmd could not be built; the messages above say why"
  "$work/wasmd" version >/dev/null 2>&1 || die "the wasmd that was built does not run on this machine"
  printf '%s\n' "$key" >"$work/key"
  rm -rf "$place"
  mv "$work" "$place"
  trap - EXIT
}

[[ $# -eq 0 || ( $# -eq 1 && $1 == --check ) ]] || die "usage: scripts/wasmd.sh [--check]"
if ! current; then
  if [[ ${1:-} == --check ]]; then
    command -v go >/dev/null || die "wasmd is not built, and Go is needed to build it: https://go.dev/dl"
  else
    mkdir -p "$root/.runtime/wasmd"
    exec 8>"$root/.runtime/wasmd/.lock"
    flock 8 # Two at once would take each other's folder away.
    current || build
    exec 8>&-
  fi
fi
[[ ${1:-} == --check ]] || printf '%s\n' "$place/wasmd"
