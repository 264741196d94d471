#!/usr/bin/env bash
# `cargo clippy` of every crate with no feature and with every single feature alone, warnings denied.
set -euo pipefail
cd "$(dirname "$0")/.."

# A crate a line: its name and its features.
crates=$(sed -n 's/^    "\(.*\)",$/\1/p' Cargo.toml | grep -Ev '^(examples/|integration-tests$)')
for crate in $crates; do
    features=$(sed -n '/^\[features\]/,/^\[/s/^\([a-z][a-z0-9-]*\) = .*/\1/p' "$crate/Cargo.toml" | grep -v '^default$' || true)
    for feature in "" $features; do
        echo "$crate: ${feature:-no feature}"
        # Its flags are for our crates alone, so that dependencies that other steps have checked are not checked again.
        cargo clippy --quiet --locked -p "$crate" --no-default-features --features "$feature" -- -D warnings
    done
done
