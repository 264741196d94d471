#!/usr/bin/env bash
# Installs a Redis server program if there is none. Starts no server and leaves none enabled.
set -euo pipefail

if command -v redis-server >/dev/null || command -v valkey-server >/dev/null; then
    exit 0
fi

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

if command -v apt-get >/dev/null; then
    echo "Installing redis-server with apt-get (the tests start their own servers)."
    # Debian starts a service when it installs one, on port 6379; this file tells it not to.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        trap 'as_root rm -f "$policy"' EXIT
    fi
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now redis-server >/dev/null 2>&1 || true
    else
        as_root update-rc.d redis-server disable >/dev/null 2>&1 || true
    fi
elif command -v brew >/dev/null; then
    echo "Installing redis with brew (the tests start their own servers)."
    brew install --quiet redis
else
    echo "The tests need a redis-server or valkey-server program (6.2 or later) and found neither apt-get nor brew." >&2
    echo "Install one with your package manager, so that it is on PATH, and run this again." >&2
    exit 1
fi

command -v redis-server >/dev/null || command -v valkey-server >/dev/null || {
    echo "The installation went through, but there is still no redis-server on PATH." >&2
    exit 1
}
