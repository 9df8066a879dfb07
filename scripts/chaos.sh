#!/usr/bin/env bash
# A cluster of real processes under faults that chance chooses: three gateways, MariaDB with a replica, and Redis, each in
# a network namespace of its own, and a checker of all that their clients saw.
#
#   scripts/chaos.sh                                  90 seconds, another seed each time
#   scripts/chaos.sh --for 1h --seed 7                what chance decides follows from the seed
#   scripts/chaos.sh --redis sentinel                 or alone, or cluster; otherwise as the seed says
#
#   RINGWAY=...      another gateway binary, with ringway-chaos beside it [target/release/ringway, which is built]
#
# Further options are those of `ringway-chaos run`. History and logs are in target/chaos. The exit code is 0 if all was
# well and something was sent, delivered and disturbed, 1 if not, 2 if the run could not be carried out.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    printf 'chaos: %s\n' "$@" >&2
    exit 2
}

ringway=${RINGWAY:-target/release/ringway}
chaos=$(dirname "$ringway")/ringway-chaos
if [ -z "${RINGWAY-}" ]; then
    cargo build --locked --quiet --release -p ringway -p ringway-chaos || die "it could not be built"
fi
for program in "$ringway" "$chaos"; do
    [ -x "$program" ] || die "there is no $program"
done
scripts/setup.sh chaos || die "something is missing"

# Processes, mounts and networks of its own: all of them go with it, however it ends.
own=(--net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" -eq 0 ] || own=(--user --map-root-user "${own[@]}")
unshare "${own[@]}" true 2>/dev/null || die "this user may not make namespaces (unshare ${own[*]})." \
    "Run it as root, or allow it: sysctl kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=10000" \
    "In a container, start that with --privileged."

data=$(mktemp -d /var/tmp/ringway-chaos.XXXXXX)
chmod 755 "$data"
run=''
# shellcheck disable=SC2317 # the trap calls it
undo() {
    # Whatever runs there is the child of one that goes with it.
    [ -z "$run" ] || kill -KILL "$run" 2>/dev/null || true
    rm -rf "$data"
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
# No RINGWAY_ variable of an operator's gateway changes these.
for name in $(compgen -e RINGWAY_); do
    case $name in RINGWAY_TEST_*) ;; *) unset "$name" ;; esac
done

# shellcheck disable=SC2016 # the inner shell's
inside='
    mount -t tmpfs chaos /run
    for node in 1 2 3; do mkdir "$0/gateway-$node" && mount -t tmpfs -o size=320m chaos "$0/gateway-$node"; done
    exec "$@"'
code=0
unshare "${own[@]}" bash -euc "$inside" "$data" "$chaos" run --ringway "$ringway" --data "$data" "$@" &
run=$!
wait "$run" || code=$?
run=''
exit "$code"
