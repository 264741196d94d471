#!/usr/bin/env bash
# Makes each deliberate fault of scripts/faults in a clone of the last commit, one at a time, and expects
# the test that the fault names to fail. Takes about half a minute a fault.
#
# usage: check-faults.sh [NAME...]   such as 01-off-by-one, or 03-missing-ttl.lua
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
# Always the same place, so that cargo builds only what a fault changes.
clone=$CARGO_TARGET_DIR/faults
log=$CARGO_TARGET_DIR/faults.log
# A fault may keep a test from ending.
seconds=300

rm -rf "$clone"
git clone --quiet --local "$root" "$clone"
trap 'rm -rf "$clone" "$log"' EXIT
cd "$clone"

# bounded COMMAND...: runs it, for so many seconds at most; its output goes to the log.
bounded() {
    local running watch status=0
    # As jobs: each is a process group, which ends with all that it has started, tests and servers too.
    set -m
    "$@" >"$log" 2>&1 &
    running=$!
    (sleep "$seconds" && kill -- "-$running") >/dev/null 2>&1 &
    watch=$!
    set +m
    wait "$running" || status=$?
    kill -- "-$watch" 2>/dev/null || true
    wait "$watch" 2>/dev/null || true
    return "$status"
}

# Builds only, with what a cut-off run would leave behind kept out of its time.
build() {
    cargo test --quiet --locked -p integration-tests --test "$1" --no-run
}

missed=0
for patch in "$root"/scripts/faults/*.patch; do
    fault=$(basename "$patch" .patch)
    if [ $# -gt 0 ]; then
        wanted=no
        for name in "$@"; do
            case $fault in "$name" | "$name".*) wanted=yes ;; esac
        done
        [ "$wanted" = yes ] || continue
    fi
    read -r test case < <(sed -n 's/^Caught by: //p' "$patch")
    if ! git apply --unidiff-zero -p1 "$patch"; then
        echo "$fault: the fault no longer fits the code" >&2
        exit 1
    fi
    if ! build "$test" >"$log" 2>&1; then
        cat "$log" >&2
        echo "$fault: does not build" >&2
        exit 1
    fi
    if bounded cargo test --quiet --locked -p integration-tests --test "$test" -- "$case"; then
        echo "$fault: MISSED by $test $case" >&2
        missed=1
    elif caught=$(grep -oE "^    [a-z_0-9:]*$case[a-z_0-9:]*$" "$log" | sort -u | tr -d ' ' | paste -sd' ' -); then
        echo "$fault: caught by $test $caught"
    else
        cat "$log" >&2
        echo "$fault: $test did not run to its end" >&2
        missed=1
    fi
    git checkout --quiet -- .
done
exit "$missed"
