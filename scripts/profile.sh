#!/bin/sh
# Records where the gateway's CPU time goes while a bench runs, and draws it: target/profile/flame.svg.
#
#   scripts/profile.sh [ARGUMENTS OF ringway bench]     default: group --flood 5 --ephemeral
set -eu

cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- group --flood 5 --ephemeral
work=target/profile
mkdir -p "$work"

fail() {
    printf 'profile: %s\n' "$@" >&2
    exit 1
}

scripts/setup.sh profile

# Frame pointers make the stacks complete; a build of its own, so that the usual one stays as it is.
RUSTFLAGS="-C force-frame-pointers=yes" cargo build --locked --release --bin ringway --target-dir "$work/build"
ringway=$work/build/release/ringway

if [ ! -x "$work/tools/bin/inferno-flamegraph" ]; then
    cargo install --quiet --locked --root "$work/tools" inferno
fi

data=$(mktemp -d /var/tmp/ringway-profile-XXXXXX)
first_cpu=$(taskset -cp $$ | sed 's/.*: \([0-9]*\).*/\1/')
"$ringway" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir "$data" --cpus "$first_cpu" \
    >"$work/gateway.log" 2>&1 &
gateway=$!
trap 'kill "$gateway" 2>/dev/null || true; wait "$gateway" 2>/dev/null || true; rm -rf "$data"' EXIT INT TERM
tries=0
while [ ! -s "$data/listen" ]; do
    tries=$((tries + 1))
    if [ "$tries" -ge 200 ] || ! kill -0 "$gateway" 2>/dev/null; then
        fail "the gateway did not start; see $work/gateway.log"
    fi
    sleep 0.1
done

perf record --quiet -F 999 -g -p "$gateway" -o "$work/perf.data" &
recorder=$!
"$ringway" bench "$@" --connect "$(cat "$data/listen")" --data-dir "$data" --store "sqlite:$data/store.sqlite" || true
kill -INT "$recorder"
wait "$recorder" || true

perf script -i "$work/perf.data" 2>/dev/null | "$work/tools/bin/inferno-collapse-perf" >"$work/stacks.txt"
"$work/tools/bin/inferno-flamegraph" --title "ringway serve under: bench $*" "$work/stacks.txt" >"$work/flame.svg"
echo "profile: $work/flame.svg"
