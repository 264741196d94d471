#!/usr/bin/env bash
# The boundaries of docs/architecture.md, as far as the dependency graph and the imports show them.
set -euo pipefail
cd "$(dirname "$0")/.."

fail=0

# no_dependency CRATE NAME...: CRATE does not depend on any NAME, not even through others.
no_dependency() {
    local crate=$1 tree name
    shift
    tree=$(cargo tree --locked -p "$crate" --all-features -e normal --prefix none | sed 's/ .*//' | sort -u)
    for name in "$@"; do
        if grep -qx "$name" <<<"$tree"; then
            echo "$crate depends on $name" >&2
            fail=1
        fi
    done
}

no_dependency limiter-core redis bb8 bb8-redis moka http hyper axum tower limiter-memory limiter-redis limiter-http
no_dependency limiter-memory redis bb8 http hyper axum limiter-redis limiter-http
no_dependency limiter-redis moka hyper axum limiter-memory limiter-http
no_dependency limiter-http redis bb8 moka limiter-memory limiter-redis
no_dependency ai-cache redis bb8 hyper axum limiter-memory limiter-redis limiter-http

# Limits and caches know nothing of each other.
for pair in "limit cache" "cache limit"; do
    read -r from to <<<"$pair"
    if grep -rnw "crate::$to" "limiter-core/src/$from"; then
        echo "limiter-core's $from uses its $to" >&2
        fail=1
    fi
done

# Within a room data flows one way too.
python3 scripts/check-circles.py || fail=1

# What is required, and the tests that prove it.
python3 scripts/check-ids.py || fail=1

exit "$fail"
