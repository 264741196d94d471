#!/usr/bin/env bash
# Installs what the tests need (a Redis server, Prometheus, Chromium) and runs all of them.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
    echo "cargo is not on PATH: install Rust from https://rustup.rs, then run this again." >&2
    exit 1
fi
./scripts/install-redis.sh
./scripts/install-prometheus.sh
./scripts/install-browser.sh
cargo test --workspace --all-features --locked
./scripts/interleavings.sh
