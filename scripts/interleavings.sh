#!/usr/bin/env bash
# Hand-written synchronisation under many interleavings: the unit tests named `interleavings`, with
# shuttle's locks and tasks in the place of the real ones. A failure prints its schedule.
set -euo pipefail
cd "$(dirname "$0")/.."

# No feature, because `--all-features` would switch every other test over too. A directory of its own:
# other flags would rebuild everything here and in the next step.
export RUSTFLAGS="${RUSTFLAGS:-} --cfg shuttle"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/shuttle"
exec cargo test --locked -p limiter-core -p limiter-memory -p ai-cache --lib interleavings
