#!/usr/bin/env bash
# Several gateways as one cluster on this host, soaked together: groups have members on all of them, and each process
# stays below its limit of descriptors, however many connections they have together.
#
#   scripts/soak-cluster.sh                                          3 gateways with 2,000 connections each, a minute
#   scripts/soak-cluster.sh --gateways 4 --connections 15000 --for 2m
#
#   --gateways N     how many [3]
#   --connections N  connections of each gateway [2000]
#   --for T          how long messages are sent [60s]
#   --report DIR     where report.html, report.json and the logs go [target/soak-cluster]
#   anything else    goes to `ringway soak` as it is
#
#   RINGWAY=...      another binary [target/release/ringway, which is built if it is not there]
#   SERVE="..."      more options of each `ringway serve`
#
# MariaDB and Redis are private ones (scripts/services.sh), in a database and a Redis database of their own; the gateways
# have ports, data directories and CPUs in turn. The exit code is that of `ringway soak`, which checks the deliveries of
# all gateways together: 0 passed, 1 failed (also if a gateway did not stop well), 2 not carried out, 3 invalid evidence,
# 4 host not fit.
set -euo pipefail
cd "$(dirname "$0")/.."

gateways=3
each=2000
time=60s
report=target/soak-cluster
ringway=${RINGWAY:-target/release/ringway}
soak_options=()

say() { printf 'soak-cluster: %s\n' "$*"; }
die() {
    printf 'soak-cluster: %s\n' "$@" >&2
    exit 2
}

# ---- what was asked ---------------------------------------------------------------------------------

given=("$@")
while [ $# -gt 0 ]; do
    case $1 in
        --gateways | --connections | --for | --report)
            [ $# -gt 1 ] || die "$1 needs a value"
            case $1 in
                --gateways) gateways=$2 ;;
                --connections) each=$2 ;;
                --for) time=$2 ;;
                --report) report=$2 ;;
            esac
            shift 2
            ;;
        --help | -h)
            sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'
            exit 0
            ;;
        --target | --data-dir | --pid | --admin | --secret-file)
            die "$1 is not for this script, which starts gateways of its own: use ringway soak"
            ;;
        *)
            soak_options+=("$1")
            shift
            ;;
    esac
done
for number in "$gateways" "$each"; do
    case $number in
        '' | *[!0-9]* | 0*) die "--gateways and --connections take a number, not '$number'" ;;
    esac
done
[ -x "$ringway" ] || make build >&2 || die "the binary could not be built"
# Who comes again may be there before who left is gone; the rest is what a gateway has open beside its clients.
connections_max=$((each + each / 10 + 10))
limit=$(ulimit -Hn)
if [ "$limit" != unlimited ] && [ $((each + 778)) -gt "$limit" ]; then
    say "a process may have $limit descriptors here: at most $((limit - 778)) connections for each gateway"
    exit 4
fi
if [ "$limit" != unlimited ] && [ $((connections_max + 768)) -gt "$limit" ]; then
    connections_max=$((limit - 768))
fi

if [ "${RINGWAY_SOAK_INSIDE-}" != 1 ]; then
    RINGWAY_SOAK_INSIDE=1 exec scripts/services.sh during "$PWD/scripts/soak-cluster.sh" "${given[@]+"${given[@]}"}"
fi

# ---- what must be undone ----------------------------------------------------------------------------

data='' soak=''
pids=()

# Stops the gateways; says whether all of them stopped as they should.
# shellcheck disable=SC2317 # undo calls it
stop_gateways() {
    local well=0 at code
    [ ${#pids[@]} -eq 0 ] || kill -TERM "${pids[@]}" 2>/dev/null || true
    for at in "${!pids[@]}"; do
        code=0
        wait "${pids[$at]}" || code=$?
        [ "$code" -eq 0 ] || { say "gateway $((at + 1)) ended with $code; its log is $report/gateway-$((at + 1)).log" && well=1; }
    done
    pids=()
    return "$well"
}

# shellcheck disable=SC2317 # the traps call it
undo() {
    local code=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$soak" ]; then
        kill -INT "$soak" 2>/dev/null || true
        wait "$soak" || true
    fi
    stop_gateways || [ "$code" -ne 0 ] || code=1
    if [ -n "$data" ]; then
        rm -rf "$data"
        sql "DROP DATABASE IF EXISTS $database" || true
    fi
    exit "$code"
}

# Runs a statement on the MariaDB, whose URL is mysql://USER:PASSWORD@HOST:PORT/DATABASE.
sql() {
    local login=${store#mysql://} place
    place=${login#*@}
    login=${login%%@*}
    place=${place%%/*}
    mariadb --no-defaults --protocol=tcp --host="${place%%:*}" --port="${place##*:}" --user="${login%%:*}" \
        --password="${login#*:}" --execute="$1"
}

# ---- serve ------------------------------------------------------------------------------------------

urls=$(scripts/services.sh status)
store=$(grep '^mysql:' <<<"$urls")
redis=$(grep '^redis:' <<<"$urls")
# One cluster's ledger and database: no other's users, and none of an earlier run.
database=ringway_soak_cluster
mkdir -p "$report" || die "$report cannot be made"
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
data=$(mktemp -d /var/tmp/ringway-soak-cluster.XXXXXX)
sql "DROP DATABASE IF EXISTS $database; CREATE DATABASE $database" || die "MariaDB takes no new database"
[[ $redis =~ ^redis://[^/]+ ]] && redis=${BASH_REMATCH[0]}/9
redis-cli -u "$redis" --scan --pattern '{ringway:*' | xargs -r redis-cli -u "$redis" del >/dev/null ||
    die "Redis does not forget an earlier run"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$data/secret"
# No RINGWAY_ variable of an operator's gateway changes these.
for name in $(compgen -e RINGWAY_); do
    case $name in RINGWAY_TEST_*) ;; *) unset "$name" ;; esac
done

read -ra serve <<<"${SERVE-}"
data_dirs=()
for ((node = 1; node <= gateways; node++)); do
    dir=$data/$node
    mkdir "$dir"
    # The CPUs in turn, since each gateway would take the first one.
    RINGWAY_STORE_URL=${store%/*}/$database RINGWAY_CLUSTER_REDIS_URL=$redis RINGWAY_CLUSTER_NODE_ID=$node \
        RINGWAY_AUTH_HS256_SECRET_FILE=$data/secret RINGWAY_LIMITS_CONNECTIONS_MAX=$connections_max \
        "$ringway" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir "$dir" \
        --cpus $(((node - 1) % $(nproc))) "${serve[@]+"${serve[@]}"}" >"$report/gateway-$node.log" 2>&1 &
    pids+=($!)
    data_dirs+=(--data-dir "$dir")
done
for ((node = 1; node <= gateways; node++)); do
    until [ -s "$data/$node/listen" ] && [ -s "$data/$node/admin" ]; do
        kill -0 "${pids[$((node - 1))]}" 2>/dev/null ||
            { tail -n 5 "$report/gateway-$node.log" >&2 && die "gateway $node did not start"; }
        sleep 0.1
    done
done
say "$gateways gateways of one cluster, $each connections each: $((gateways * each)) on this host, where a process may have" \
    "$limit descriptors"

# ---- soak -------------------------------------------------------------------------------------------

"$ringway" soak "${data_dirs[@]}" --secret-file "$data/secret" --connections $((gateways * each)) --for "$time" \
    --report "$report" "${soak_options[@]+"${soak_options[@]}"}" &
soak=$!
code=0
wait "$soak" || code=$?
soak=''
say "report: $report/report.html"
exit "$code"
