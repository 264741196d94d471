#!/usr/bin/env bash
# Mutation testing of limiter-core's algorithms, keys and decisions: changes one expression at a time and
# expects a test to fail. Fails if a mutant is missed. Needs cargo-mutants (`cargo install cargo-mutants`) and
# an hour or two; what it examines is in .cargo/mutants.toml.
#
# usage: mutants.sh [OPTIONS OF CARGO-MUTANTS], such as --file limiter-core/src/key.rs
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo-mutants >/dev/null; then
    echo "cargo-mutants is not on PATH: cargo install cargo-mutants" >&2
    exit 1
fi
exec timeout 4h cargo mutants -p limiter-core --no-shuffle "$@"
