#!/usr/bin/env bash
# Installs a Redis server program if there is none. Starts no server and leaves none enabled.
set -euo pipefail

needed="The tests need a redis-server (6.2 or later) or valkey-server program on PATH"

# usable: whether the program that the tests start will do; ends the script if it is too old.
usable() {
    local version
    if command -v redis-server >/dev/null; then
        version=$(redis-server --version)
        # Valkey began at Redis's 7.2, also under Redis's name.
        case $version in Valkey*) return 0 ;; esac
        if ! [[ $version =~ v=([0-9]+)\.([0-9]+) ]]; then
            echo "$(command -v redis-server) does not say which version it is: $version" >&2
            echo "$needed." >&2
            exit 1
        fi
        if ((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2] < 6002)); then
            echo "$needed; $(command -v redis-server) is ${BASH_REMATCH[1]}.${BASH_REMATCH[2]}." >&2
            echo "Upgrade it, or remove it and run this again: https://redis.io/docs/latest/operate/oss_and_stack/install/" >&2
            exit 1
        fi
        return 0
    fi
    command -v valkey-server >/dev/null
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

if usable; then
    exit 0
fi

if command -v apt-get >/dev/null; then
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        echo "$needed. Installing one takes root, and there is no sudo." >&2
        echo "Run this as root, or have redis-server installed, and run this again." >&2
        exit 1
    fi
    echo "Installing redis-server with apt-get (the tests start their own servers)."
    # Debian starts a service when it installs one, on port 6379; this file tells it not to.
    policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}
    if [ ! -e "$policy" ]; then
        # First, so that nothing that ends this script leaves the file behind.
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
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
    echo "$needed, and found neither apt-get nor brew." >&2
    echo "Install one with your package manager and run this again." >&2
    exit 1
fi

hash -r
usable || {
    echo "The installation went through, but there is still no redis-server on PATH." >&2
    exit 1
}
