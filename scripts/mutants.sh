#!/usr/bin/env bash
# Changes what decides, one small thing at a time, and has the tests find it: cargo-mutants with
# .cargo/mutants.toml. Fails if a change is found by no test and docs/reliability.md does not explain it.
# Takes long, and no part of CI; arguments go to cargo-mutants: `scripts/mutants.sh -F token_bucket`.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo-mutants >/dev/null; then
    echo "cargo-mutants is not on PATH: cargo install --locked cargo-mutants" >&2
    exit 1
fi

status=0
timeout "${MUTANTS_TIMEOUT:-3h}" \
    cargo mutants --package limiter-core --jobs "${MUTANTS_JOBS:-2}" --no-shuffle "$@" || status=$?
# 2 is missed mutants, 3 hanging ones, which the time limit has caught; the rest is no result.
case $status in 0 | 2 | 3) ;; *) exit "$status" ;; esac

# A line of missed.txt without its place, which moves with every edit. Each explains one mutant.
missed=$(sed -E 's/^[^ ]*\/src\/([^:]*):[0-9]+:[0-9]+: /\1: /' target/mutants.out/missed.txt | sort)
explained=$(sed -nE 's/^- `([^`]*\.rs: .*)`$/\1/p' docs/reliability.md | sort)
unexplained=$(comm -23 <(echo "$missed") <(echo "$explained") | sed '/^$/d')
if [ -n "$unexplained" ]; then
    echo "No test finds these, and docs/reliability.md does not explain them:" >&2
    echo "$unexplained" >&2
    exit 1
fi
# A filtered run says nothing of the others.
stale=$(comm -13 <(echo "$missed") <(echo "$explained") | sed '/^$/d')
if [ $# -eq 0 ] && [ -n "$stale" ]; then
    echo "docs/reliability.md explains what a test finds, or what is there no more:" >&2
    echo "$stale" >&2
    exit 1
fi
echo "Every mutant that no test finds is explained."
