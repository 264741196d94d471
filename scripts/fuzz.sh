#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (20 by default) on random and mutated inputs, and fails if one
# of them fails: ./scripts/fuzz.sh [SECONDS]. LIMITER_SEED repeats a run. FUZZ_PROFILE=dev builds less and finds less in that time.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-20}
if ! [[ $seconds =~ ^[1-9][0-9]{0,4}$ ]]; then
    echo "usage: $0 [SECONDS], a whole number from 1 to 99999" >&2
    exit 2
fi

profile=${FUZZ_PROFILE:-release}
cargo build --profile "$profile" --locked --manifest-path fuzz/Cargo.toml --bin drive
drive=${CARGO_TARGET_DIR:-fuzz/target}/${profile/#dev/debug}/drive

# A target that hangs is stopped, and is a failure too.
targets=$(grep -c '^        name: "' fuzz/src/lib.rs)
timeout --kill-after=5 $((seconds * targets + 60)) "$drive" "$seconds"
