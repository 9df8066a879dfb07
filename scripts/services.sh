#!/usr/bin/env bash
# The databases the tests and demos use: a private MariaDB and a private Redis, never the system's.
#
#   scripts/services.sh up          installs what is missing, starts both; says nothing if both run already
#   scripts/services.sh status      a URL a line: mysql://... and redis://...; exit code 3 if one is down
#   scripts/services.sh down        stops both; their data stays under target/services
#   scripts/services.sh during CMD...   `up`, the command, then stops again what this call has started
#   scripts/services.sh mariadb DIR PORT [OPTIONS OF mariadbd]
#   scripts/services.sh redis DIR PORT [OPTIONS OF redis-server]
#   scripts/services.sh redis-cluster DIR PORT [OPTIONS OF redis-server]
#       one more instance of a test's own, in the foreground: this process becomes the server, and ends with it; the last
#       one is a master of a Redis Cluster that has no other yet
#   scripts/services.sh redis-cluster-join PORT...
#       makes one Redis Cluster of such masters, which share the slots; says nothing when all of them know it
#
# Everything lives under target/services: data, logs, sockets, pids and the ports, which are the first free ones
# from 7506 (MariaDB) and 7606 (Redis) on. Both listen on 127.0.0.1 only and keep what they acknowledge: MariaDB
# flushes its log at every commit, Redis its append-only file at every write. If RINGWAY_TEST_MYSQL_URL or
# RINGWAY_TEST_REDIS_URL is set, that server is used, and none is started in its place. RINGWAY_TEST_REDIS_SERVER is the
# program that is started as Redis, and may be Valkey's.
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD/target/services
template=$root/mariadb-template
declare -A first_port=([mariadb]=7506 [redis]=7606)
user=ringway
password=ringway
start_timeout_s=60
stop_timeout_s=60

fail() {
    printf 'services: %s\n' "$@" >&2
    exit 1
}

# ---- packages ---------------------------------------------------------------------------------------

# The servers themselves: mariadb-server-core has no service of the system's to start. redis-server has one, which
# must neither start now nor at the next boot.
install_missing() {
    local missing=
    command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || missing+=" mariadb-server-core"
    command -v mariadb >/dev/null || missing+=" mariadb-client-core"
    command -v redis-server >/dev/null && command -v redis-cli >/dev/null || missing+=" redis-server redis-tools"
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "missing:$missing, and there is no apt-get to install it with." \
        "Install MariaDB 10.11 and Redis 7 with your system's packages, or set RINGWAY_TEST_MYSQL_URL and RINGWAY_TEST_REDIS_URL."
    local sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "missing:$missing, and neither root nor sudo to install it with." \
            "Run as root: apt-get install$missing"
        sudo=sudo
    fi
    echo "services: installing$missing"
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
        made=yes
    fi
    local options=(-y --no-install-recommends) done=yes
    # shellcheck disable=SC2086 # several words on purpose
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" $missing >/dev/null 2>&1 || {
        $sudo apt-get update >/dev/null || done=
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" $missing >/dev/null || done=
    }
    [ -z "$made" ] || $sudo rm -f "$policy"
    [ -n "$done" ] || fail "apt-get could not install:$missing" "Its own message is above."
    if [[ $missing == *redis-server* ]] && [ -d /run/systemd/system ]; then
        $sudo systemctl disable --quiet redis-server
    fi
}

# ---- whom the servers run as ------------------------------------------------------------------------

# Prints the account a server in directory $1 runs as: the caller's, but nobody instead of root, where nobody can
# get to the directory.
account() {
    if [ "$(id -u)" -ne 0 ]; then
        id -un
    elif setpriv --reuid=nobody --regid=nogroup --clear-groups test -x "$1" 2>/dev/null; then
        echo nobody
    else
        echo root
    fi
}

# Makes directory $1 if it is not there, and gives it to the account the server will run as.
own_directory() {
    mkdir -p "$1"
    if [ "$(id -u)" -eq 0 ]; then
        # Whom root cannot give a directory to (in a user namespace of its own) it cannot run as either.
        chown -R nobody:nogroup "$1" 2>/dev/null || true
    fi
}

# ---- MariaDB ----------------------------------------------------------------------------------------

# An empty data directory with the one account, made once; an instance starts from a copy of it.
make_template() {
    [ ! -e "$template/.complete" ] || return 0
    rm -rf "$template"
    own_directory "$template"
    local as
    as=$(account "$template")
    local options=(--no-defaults --datadir="$template" --user="$as" --innodb-log-file-size=16M)
    {
        mariadb-install-db "${options[@]}" --skip-test-db --auth-root-authentication-method=socket --skip-name-resolve
        printf '%s\n' "FLUSH PRIVILEGES;" \
            "CREATE USER '$user'@'%' IDENTIFIED BY '$password';" \
            "GRANT ALL PRIVILEGES ON *.* TO '$user'@'%' WITH GRANT OPTION;" |
            mariadbd "${options[@]}" --bootstrap
    } >"$root/template.log" 2>&1 || fail "an empty MariaDB could not be made:" "$(tail -n 20 "$root/template.log")"
    # Whoever starts an instance may copy it.
    [ "$(id -u)" -ne 0 ] || chown -R root:root "$template"
    chmod -R a+rX "$template"
    touch "$template/.complete"
}

# Becomes a MariaDB on directory $1 and port $2; the directory is filled first if it is empty.
run_mariadb() {
    local directory=$1 port=$2
    shift 2
    (
        flock 9
        make_template
    ) 9>"$root/template.lock"
    if [ ! -e "$directory/.complete" ]; then
        mkdir -p "$directory"
        cp -R --reflink=auto "$template/." "$directory/"
    fi
    own_directory "$directory"
    local as
    as=$(account "$directory")
    [ "$as" != root ] || chown -R 0:0 "$directory"
    # A socket's path may have 107 bytes at most, which a directory can exceed.
    exec mariadbd --no-defaults --user="$as" --datadir="$directory" --port="$port" --bind-address=127.0.0.1 \
        --socket="/tmp/ringway-mariadb-$port.sock" --pid-file="$directory/mariadbd.pid" \
        --skip-name-resolve --performance-schema=OFF --max-connections=200 \
        --innodb-flush-log-at-trx-commit=1 --innodb-log-file-size=64M --innodb-buffer-pool-size=256M "$@"
}

mariadb_answers() {
    mariadb --no-defaults --protocol=tcp --host=127.0.0.1 --port="$1" --user="$user" --password="$password" \
        --connect-timeout=2 --execute="CREATE DATABASE IF NOT EXISTS ringway" >/dev/null 2>&1
}

# ---- Redis ------------------------------------------------------------------------------------------

# Becomes a Redis on directory $1 and port $2.
run_redis() {
    local directory=$1 port=$2
    shift 2
    own_directory "$directory"
    local as become=()
    as=$(account "$directory")
    [ "$as" != nobody ] || become=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    exec "${become[@]}" "${RINGWAY_TEST_REDIS_SERVER:-redis-server}" --port "$port" --bind 127.0.0.1 --dir "$directory" --daemonize no --set-proc-title no --save "" \
        --appendonly yes --appendfsync always "$@"
}

# The same as a master of a Redis Cluster. A master that is away must not keep the others from answering.
run_redis_cluster() {
    local directory=$1 port=$2
    shift 2
    run_redis "$directory" "$port" --cluster-enabled yes --cluster-config-file nodes.conf --cluster-node-timeout 2000 \
        --cluster-require-full-coverage no "$@"
}

# Makes one cluster of the masters on ports $@.
join_redis_cluster() {
    local port waited=0 nodes=()
    for port in "$@"; do nodes+=("127.0.0.1:$port"); done
    local log
    log=$(redis-cli --cluster create "${nodes[@]}" --cluster-replicas 0 --cluster-yes 2>&1) ||
        fail "the Redis Cluster could not be made:" "$log"
    for port in "$@"; do
        until redis-cli -h 127.0.0.1 -p "$port" cluster info | grep -q '^cluster_state:ok' &&
            redis-cli -h 127.0.0.1 -p "$port" cluster info | grep -q "^cluster_size:$#"; do
            [ "$waited" -lt $((start_timeout_s * 10)) ] || fail "the Redis on port $port does not find the others."
            sleep 0.1
            waited=$((waited + 1))
        done
    done
}

redis_answers() {
    [ "$(timeout 10 redis-cli -h 127.0.0.1 -p "$1" ping 2>/dev/null)" = PONG ]
}

# ---- up, status, down -------------------------------------------------------------------------------

# The pid of service $1, if it is alive and is what was started here.
pid_of() {
    local pid
    pid=$(cat "$root/$1.pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$root/$1" || return 1
    echo "$pid"
}

port_is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

runs() {
    pid_of "$1" >/dev/null && "$1_answers" "$(cat "$root/$1.port")"
}

# Starts service $1 on the first free port from $2 on, and waits until it answers.
start() {
    local name=$1 port=$2 tries
    if pid_of "$name" >/dev/null; then
        stop "$name" # it is there and does not answer
    fi
    [ ! -s "$root/$name.port" ] || port=$(cat "$root/$name.port")
    for tries in 1 2 3 4 5; do
        until port_is_free "$port"; do port=$((port + 1)); done
        echo "$port" >"$root/$name.port"
        # The lock and the caller's pipes must not live on in the server.
        setsid "$0" "$name" "$root/$name" "$port" </dev/null >"$root/$name.log" 2>&1 8>&- 9>&- &
        local pid=$! waited=0
        echo "$pid" >"$root/$name.pid"
        while kill -0 "$pid" 2>/dev/null; do
            ! "${name}_answers" "$port" || return 0
            [ "$waited" -lt $((start_timeout_s * 10)) ] || {
                kill -KILL "$pid"
                fail "$name did not answer on port $port within $start_timeout_s s:" "$(tail -n 20 "$root/$name.log")"
            }
            sleep 0.1
            waited=$((waited + 1))
        done
        # Somebody else may have taken the port since it was looked at.
        grep -qi 'address already in use' "$root/$name.log" ||
            fail "$name did not start:" "$(tail -n 20 "$root/$name.log")"
    done
    fail "$name found no free port in $tries attempts:" "$(tail -n 20 "$root/$name.log")"
}

stop() {
    local name=$1 pid waited=0
    pid=$(pid_of "$name") || { rm -f "$root/$name.pid"; return 0; }
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$waited" -ge $((stop_timeout_s * 10)) ]; then
            echo "services: $name did not stop within $stop_timeout_s s and was killed" >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
        waited=$((waited + 1))
    done
    rm -f "$root/$name.pid"
}

# Starts what does not run and is not given from outside; the names of what was started are in `started`.
started=()
up() {
    mkdir -p "$root"
    local wanted=()
    [ -n "${RINGWAY_TEST_MYSQL_URL-}" ] || wanted+=(mariadb)
    [ -n "${RINGWAY_TEST_REDIS_URL-}" ] || wanted+=(redis)
    [ ${#wanted[@]} -gt 0 ] || return 0
    install_missing
    exec 8>"$root/lock"
    flock -w 300 8 || fail "another scripts/services.sh has held $root/lock for 300 s."
    local name
    for name in "${wanted[@]}"; do
        if ! runs "$name"; then
            start "$name" "${first_port[$name]}"
            started+=("$name")
        fi
    done
    exec 8>&-
}

# One line: the URL of service $1, from the variable $2 if that is set.
status_line() {
    local name=$1 given=${!2-} port
    if [ -n "$given" ]; then
        echo "$given"
    elif runs "$name"; then
        port=$(cat "$root/$name.port")
        case $name in
            mariadb) echo "mysql://$user:$password@127.0.0.1:$port/ringway" ;;
            redis) echo "redis://127.0.0.1:$port" ;;
        esac
    else
        echo "services: $name is down: scripts/services.sh up" >&2
        return 3
    fi
}

status() {
    local code=0
    status_line mariadb RINGWAY_TEST_MYSQL_URL || code=$?
    status_line redis RINGWAY_TEST_REDIS_URL || code=$?
    return "$code"
}

case "${1-}" in
    up) up ;;
    down) stop redis; stop mariadb ;;
    status) status ;;
    during)
        shift
        up
        code=0
        "$@" || code=$?
        for name in ${started[@]+"${started[@]}"}; do stop "$name"; done
        exit "$code"
        ;;
    mariadb | redis | redis-cluster)
        [ $# -ge 3 ] || fail "usage: scripts/services.sh $1 DIR PORT [OPTIONS OF THE SERVER]"
        mkdir -p "$root"
        [ "$1" != mariadb ] || [ -e "$template/.complete" ] || install_missing
        name=${1//-/_}
        shift
        "run_$name" "$@"
        ;;
    redis-cluster-join)
        shift
        [ $# -ge 3 ] || fail "usage: scripts/services.sh redis-cluster-join PORT PORT PORT..."
        join_redis_cluster "$@"
        ;;
    *)
        echo "usage: scripts/services.sh up|down|status|during CMD...|mariadb DIR PORT|redis DIR PORT|redis-cluster DIR PORT|redis-cluster-join PORT..." >&2
        exit 2
        ;;
esac
