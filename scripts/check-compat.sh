#!/usr/bin/env bash
# Has this build and that of another commit take turns on one Redis: what one wrote, the other goes on with.
#
# usage: check-compat.sh [COMMIT]   the previous one, unless one is named
set -euo pipefail
cd "$(dirname "$0")/.."

program=integration-tests/src/bin/compat.rs
if ! other=$(git rev-parse --verify --quiet "${1:-HEAD~1}^{commit}"); then
    echo "there is no other commit in this clone: nothing to compare with"
    exit 0
fi
if ! git cat-file -e "$other:$program"; then
    echo "the other commit has no $program: nothing to compare with"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout . "$work/other"
git -C "$work/other" checkout --quiet "$other"

# One directory for both, so that the libraries are built once; the programs are kept apart.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
build() {
    # As for a test, which needs the programs: so that libraries that tests have built are not built again with other features.
    (cd "$1" && cargo test --quiet --workspace --all-features --no-run --test keys)
    cp "$CARGO_TARGET_DIR/debug/compat" "$2"
}
build "$work/other" "$work/old"
build . "$work/new"
"$work/new" run "$work/old"
