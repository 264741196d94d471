#!/usr/bin/env bash
# Installs what the console's test needs: Chromium, if there is none, and, into target/tools/browser, the packages that drive it
# and check its page.
set -euo pipefail
cd "$(dirname "$0")/.."

needed="The test of the console needs Chromium on PATH (chromium, chromium-browser or google-chrome), and Node.js with npm"
place=target/tools/browser
packages=examples/ai-service/tests/browser

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        echo "Installing one takes root, and there is no sudo. $needed." >&2
        return 1
    fi
}

installed() { command -v "$1" >/dev/null; }
missing=()
installed chromium || installed chromium-browser || installed google-chrome || missing+=(chromium)
installed npm || missing+=(nodejs npm)
if [ ${#missing[@]} -gt 0 ]; then
    if ! installed apt-get; then
        echo "$needed." >&2
        exit 1
    fi
    echo "Installing ${missing[*]} with apt-get."
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if cmp -s "$packages/package-lock.json" "$place/package-lock.json" && [ -d "$place/node_modules" ]; then
    exit 0
fi
echo "Installing playwright-core and axe-core with npm, into $place."
mkdir -p "$place"
# No program of a package runs, and no browser is fetched. Without its lock an installation that failed is made again.
rm -f "$place/package-lock.json"
cp "$packages/package.json" "$place/"
cp "$packages/package-lock.json" "$place/package-lock.json"
(cd "$place" && npm ci --ignore-scripts --no-audit --no-fund --silent) || {
    rm -f "$place/package-lock.json"
    exit 1
}
