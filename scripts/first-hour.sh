#!/usr/bin/env bash
# Does what the README's section "The first limit" says, and nothing that it does not say: from `cargo new` to the first 429.
# The one difference: the crates come from this clone, not from git. Prints how long each step took. Needs port 3000, which the
# README's program listens at: it is run as it stands there.
set -euo pipefail
clone=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

# block N LANGUAGE: the Nth code block of that language in the section.
block() {
    awk -v wanted="$1" -v language="$2" '
        /^## / { inside = ($0 == "## The first limit") }
        inside && /^```/ {
            if (open) { open = 0; next }
            open = 1
            name = substr($0, 4)
            sub(/,.*/, "", name)
            if (name == language) count++
            shown = (name == language && count == wanted)
            next
        }
        inside && open && shown { print }
    ' "$clone/README.md"
}
commands() { block "$1" console | sed -n 's/^\$ //p'; }
step() { printf '%4s s  %s\n' "$SECONDS" "$*"; }

listens() { (exec 3<>/dev/tcp/127.0.0.1/3000) 2>/dev/null; }
if listens; then
    echo "port 3000 is in use; end what listens there" >&2
    exit 1
fi

eval "$(commands 1)" >/dev/null 2>&1
step "cargo new"
[ "$(basename "$PWD")" = hello ] || { echo "cargo new made no hello" >&2; exit 1; }
snippet=$(block 1 toml)
from="git = \"https://github.com/limiter-rs/limiter\""
case $snippet in
    *"$from"*) ;;
    *) echo "the README names another repository" >&2; exit 1 ;;
esac
sed -i '/^\[dependencies\]$/d' Cargo.toml
printf '%s\n' "${snippet//"$from"/path = \"$clone/limiter\"}" >>Cargo.toml
block 1 rust >src/main.rs
step "pasted $(wc -l <src/main.rs) lines"
cargo build --quiet ${CARGO_FLAGS:-}
step "built"
cargo run --quiet ${CARGO_FLAGS:-} &
server=$!
for _ in $(seq 100); do
    # A connection without a request: the limit counts requests.
    if listens; then break; fi
    kill -0 "$server" || exit 1
    # The pause of a poll.
    sleep 0.1
done
statuses=$(eval "$(commands 2 | head -1)" | tr '\n' ' ')
step "answered $statuses"
if [ "$statuses" != "200 200 200 200 200 429 " ]; then
    echo "the README promises that the sixth is refused" >&2
    exit 1
fi
refusal=$(eval "$(commands 2 | tail -1)" 2>/dev/null)
for told in "429" "retry-after: " "x-ratelimit-limit: 5" "ratelimit: " "hello is limited to 5 per minute"; do
    if ! grep -qi "$told" <<<"$refusal"; then
        echo "the refusal does not say: $told" >&2
        exit 1
    fi
done
step "the first 429"
