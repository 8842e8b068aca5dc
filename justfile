# Recipes of one to five lines; longer things live in scripts/.

# list recipes
default:
    @just --list

# format everything
fmt:
    cargo fmt --all

# formatting and lints as CI sees them
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --workspace --test localnet --test chains --test readme --locked -- -D warnings

# unit tests, stories and laws, without the end-to-end run
test:
    cargo test --workspace --locked --exclude fxn-tests
    cargo test -p fxn-tests --locked --test it --test workspace

# contracts for the chain: artifacts/*.wasm
wasm *ARGS:
    scripts/build-wasm.sh {{ARGS}}

# a chain of wasmd validators; `just localnet start --validators 4`
localnet *ARGS:
    scripts/localnet.sh {{ARGS}}

# what everything costs on wasmd: docs/gas.md
gas:
    scripts/gas.sh

# write the golden JSON schemas and signed digests anew
schema:
    UPDATE_EXPECT=1 cargo test -p fxn-schema

# the whole network on this machine
demo *ARGS:
    scripts/demo.sh {{ARGS}}

# the long seeded suites; `just slow --seed 42` is the same run again
slow *ARGS:
    scripts/slow.sh {{ARGS}}

# everything that has to be green before a change lands
ci:
    scripts/test.sh
