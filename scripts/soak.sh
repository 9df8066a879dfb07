#!/bin/sh
# The whole path of a bare machine: doctor, tune (asks first), serve, soak, report, revert.
#
#   scripts/soak.sh                                    5,000 connections for a minute
#   scripts/soak.sh --connections 500000 --ramp 20000/s --for 1h --yes
#
#   --yes          tune without asking, as root or with sudo; without it and without a terminal the host stays as it is
#   --no-tune      never tune
#   --keep         leave the host tuned afterwards
#   --report DIR   where report.html, report.json and the logs go [target/soak]
#   --memory-max N the gateway in a cgroup with so much memory, as in 200M: what it has no room for it must refuse, and
#                  live; as root or with sudo
#   anything else  goes to `ringway soak` as it is
#
#   RINGWAY=...    another binary [target/release/ringway, which is built if it is not there]
#   SERVE="..."    more options of `ringway serve`, as in SERVE="--shards 2"
#
# The exit code is that of `ringway soak`: 0 passed, 1 the gateway failed (also if it did not stop well), 2 the soak could
# not be carried out, 3 the evidence is invalid, 4 the host is not fit. Whatever happens, what was started is stopped and
# what was tuned is put back.
set -eu

cd "$(dirname "$0")/.."

ringway=${RINGWAY:-target/release/ringway}
connections=5000
report=target/soak
tune=ask
keep=no
memory_max='' cgroup=''
gateway='' soak='' data='' tuned=no

say() { printf 'soak: %s\n' "$*"; }
die() {
    printf 'soak: %s\n' "$@" >&2
    exit 2
}

# ---- what was asked ---------------------------------------------------------------------------------

# The options of `ringway soak` are put behind the others, one by one, and so come out in their order.
asked=$#
while [ "$asked" -gt 0 ]; do
    option=$1
    shift
    asked=$((asked - 1))
    case $option in
        --yes) tune=yes ;;
        --no-tune) tune=no ;;
        --keep) keep=yes ;;
        --report | --connections | --memory-max)
            [ "$asked" -gt 0 ] || die "$option needs a value"
            case $option in
                --report) report=$1 ;;
                --connections) connections=$1 ;;
                --memory-max) memory_max=$1 ;;
            esac
            shift
            asked=$((asked - 1))
            ;;
        --connections=*) connections=${option#*=} ;;
        --report=*) report=${option#*=} ;;
        --help | -h)
            sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        --target | --target=* | --data-dir | --data-dir=* | --pid | --pid=*)
            die "$option is not for this script, which starts a gateway of its own: use ringway soak"
            ;;
        *) set -- "$@" "$option" ;;
    esac
done
case $connections in
    '' | *[!0-9]*) die "--connections $connections: expected a number such as 500000" ;;
esac
[ -x "$ringway" ] || make build >&2 || die "the binary could not be built"

# Who comes again may be there before who left is gone.
connections_max=$((connections + connections / 10 + 10))
root=
[ "$(id -u)" -eq 0 ] || root=sudo
mkdir -p "$report" || die "$report cannot be made"
state=$(cd "$report" && pwd)/tuning

# ---- what must be undone ----------------------------------------------------------------------------

# Stops what runs; says whether the gateway stopped as it should.
# shellcheck disable=SC2317 # undo calls it
stop_gateway() {
    [ -n "$gateway" ] || return 0
    kill -TERM "$gateway" 2>/dev/null || true
    stopped=0
    wait "$gateway" || stopped=$?
    gateway=''
    [ "$stopped" -eq 0 ] || { say "the gateway ended with $stopped; its log is $report/gateway.log" && return 1; }
}

# shellcheck disable=SC2317 # the traps call it
undo() {
    code=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$soak" ]; then
        kill -INT "$soak" 2>/dev/null || true
        wait "$soak" || true
    fi
    stop_gateway || [ "$code" -ne 0 ] || code=1
    [ -z "$data" ] || rm -rf "$data"
    [ -z "$cgroup" ] || $root rmdir "$cgroup" || code=1
    if [ "$tuned" = yes ] && [ "$keep" = no ]; then
        $root tuning/revert.sh --state "$state" || code=1
    fi
    exit "$code"
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# ---- doctor and tuning ------------------------------------------------------------------------------

# The doctor's exit code: 0 good, 1 warnings, 2 cannot serve so many.
doctor() {
    "$ringway" doctor --connections "$connections_max" >"$report/doctor.txt" 2>&1
}

# Whether to tune, after what it would change was shown.
may_tune() {
    case $tune in
        yes) return 0 ;;
        no) return 1 ;;
    esac
    if ! [ -t 0 ] || ! [ -t 1 ]; then
        say "the host stays as it is: say --yes to have it tuned"
        return 1
    fi
    tuning/apply.sh --dry-run --connections "$connections_max" || return 1
    printf 'soak: set these, and put them back afterwards? [y/N] '
    read -r answer
    [ "$answer" = y ] || [ "$answer" = Y ]
}

say "doctor for $connections_max connections"
fit=0
doctor || fit=$?
cat "$report/doctor.txt"
if [ "$fit" -ne 0 ] && may_tune; then
    tuned=yes
    $root tuning/apply.sh --connections "$connections_max" --state "$state" >"$report/apply.txt" 2>&1 ||
        { cat "$report/apply.txt" && die "the host could not be tuned"; }
    cat "$report/apply.txt"
fi
# The limits of this shell are those of what it starts. A limit that is high enough is left alone.
descriptors=$((connections_max + 1024))
# shellcheck disable=SC3045 # dash, busybox and bash have it
hard=$(ulimit -H -n)
if [ "$hard" != unlimited ] && [ "$hard" -lt "$descriptors" ] && [ "$tune" = yes ]; then
    $root prlimit --pid $$ --nofile="$descriptors:$descriptors" || true
fi
if [ "$fit" -ne 0 ]; then
    fit=0
    doctor || fit=$?
    if [ "$fit" -eq 2 ]; then
        grep -v '^$' "$report/doctor.txt"
        say "this host cannot serve $connections_max connections: the doctor says above what to do"
        exit 4
    fi
fi

# ---- serve ------------------------------------------------------------------------------------------

# make_cgroup TOP FILE: a cgroup below TOP whose FILE limits its memory.
make_cgroup() {
    $root mkdir "$1/ringway-soak.$$" ||
        die "no cgroup can be made in $1: --memory-max needs root or sudo, and cgroups it may change"
    cgroup=$1/ringway-soak.$$
    echo "$memory_max" | $root tee "$cgroup/$2" >/dev/null || die "--memory-max $memory_max: the kernel does not take it"
}

if [ -n "$memory_max" ]; then
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        echo +memory | $root tee /sys/fs/cgroup/cgroup.subtree_control >/dev/null ||
            die "cgroups cannot be changed here: --memory-max needs root or sudo"
        make_cgroup /sys/fs/cgroup memory.max
    else
        make_cgroup /sys/fs/cgroup/memory memory.limit_in_bytes
    fi
    # How many connections there is room for is the gateway's own to find out.
    set_max=
else
    set_max="--set limits.connections_max=$connections_max"
fi
# Where files outlive a start of the host, hence a disk.
data=$(mktemp -d /var/tmp/ringway-soak.XXXXXX)
# shellcheck disable=SC2016,SC2086 # the inner shell's own variables; several words on purpose
root=$root sh -c '[ -z "$0" ] || echo $$ | $root tee "$0/cgroup.procs" >/dev/null || exit 1; exec "$@"' "$cgroup" \
    "$ringway" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir "$data" $set_max ${SERVE:-} \
    >"$report/gateway.log" 2>&1 &
gateway=$!
until [ -s "$data/listen" ] && [ -s "$data/admin" ]; do
    if ! kill -0 "$gateway" 2>/dev/null; then
        gateway=''
        cat "$report/gateway.log" >&2
        die "the gateway did not start"
    fi
    sleep 0.1
done
say "the gateway listens on $(cat "$data/listen")"

# ---- soak -------------------------------------------------------------------------------------------

"$ringway" soak --data-dir "$data" --pid "$gateway" --connections "$connections" --report "$report" "$@" &
soak=$!
code=0
wait "$soak" || code=$?
soak=''
say "report: $report/report.html"
exit "$code"
