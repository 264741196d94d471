#!/usr/bin/env bash
# Fetches Debian's prometheus and promtool for the tests into target/tools, if they are not on PATH. Installs nothing, starts nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

needed="The tests of metrics and alerts need prometheus and promtool on PATH: https://prometheus.io/download"
place=target/tools/prometheus
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    exit 0
fi
if [ -x "$place/usr/bin/promtool" ] && [ -x "$place/usr/bin/prometheus" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "$needed" >&2
    exit 1
fi

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        echo "apt-get's lists are old, and renewing them takes root. $needed" >&2
        return 1
    fi
}

echo "Fetching prometheus and promtool with apt-get (the tests start their own)."
mkdir -p "$(dirname "$place")"
work=$(mktemp -d "$(dirname "$place")/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
fetch() { (cd "$work" && apt-get download -qq prometheus >/dev/null); }
if ! fetch 2>/dev/null; then
    as_root apt-get update -qq
    fetch
fi
dpkg-deb -x "$work"/prometheus_*.deb "$work/all"
# Whole, or not at all.
rm -rf "$place"
mv "$work/all" "$place"
