#!/usr/bin/env bash
# `cargo check` of every crate with no feature and with every single feature alone, warnings denied.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="${RUSTFLAGS:-} -D warnings"
# A directory of its own: other flags would rebuild everything here and in the next step.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/features"

# A crate a line: its name and its features.
crates=$(sed -n 's/^    "\(.*\)",$/\1/p' Cargo.toml | grep -Ev '^(examples/|integration-tests$)')
for crate in $crates; do
    features=$(sed -n '/^\[features\]/,/^\[/s/^\([a-z][a-z0-9-]*\) = .*/\1/p' "$crate/Cargo.toml" | grep -v '^default$' || true)
    for feature in "" $features; do
        echo "$crate: ${feature:-no feature}"
        cargo check --quiet --locked -p "$crate" --no-default-features --features "$feature"
    done
done
