#!/usr/bin/env bash
# MariaDB, Redis and three gateways as one cluster: the group demo over all of them. Arguments go to the bench.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${RINGWAY_DEMO_INSIDE-}" != 1 ]; then
    RINGWAY_DEMO_INSIDE=1 exec scripts/services.sh during "$PWD/scripts/cluster-demo.sh" "$@"
fi
urls=$(scripts/services.sh status)
store=$(grep '^mysql:' <<<"$urls")
redis=$(grep '^redis:' <<<"$urls")
exec "${RINGWAY:-target/release/ringway}" bench group --nodes 3 --store "$store" --redis "$redis" "$@"
