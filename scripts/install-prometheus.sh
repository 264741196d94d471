#!/usr/bin/env bash
# Fetches Debian's prometheus and promtool for the tests into target/tools, if they are not on PATH. Installs nothing, starts nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

place=target/tools/prometheus
have() { command -v promtool >/dev/null && command -v prometheus >/dev/null; }
if have || [ -x "$place/usr/bin/promtool" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "The tests of metrics and alerts need prometheus and promtool on PATH: https://prometheus.io/download" >&2
    exit 1
fi
echo "Fetching prometheus and promtool with apt-get (the tests start their own)."
mkdir -p "$place"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get download -qq prometheus >/dev/null 2>&1); }
if ! fetch; then
    if [ "$(id -u)" -eq 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
    fetch
fi
dpkg-deb -x "$work"/prometheus_*.deb "$place"
