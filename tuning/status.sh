#!/bin/sh
# Shows what this host has beside what Ringway wants of it, and what revert.sh would restore. Needs no root, changes
# nothing.
#
#   tuning/status.sh
#   tuning/status.sh --profile large
#
#   --profile NAME, --connections N, --cpus LIST, --shards N, --nic NAME, --root DIR, --state DIR as for apply.sh
#
# Exit codes: 0 all is as it should be; 1 something is not: those lines say `short`; 2 wrong usage. Whether the host can
# serve at all is for `ringway doctor` to say.

set -eu
# shellcheck source=tuning/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=tuning/nic.sh
. "$here/nic.sh"

short=0 good=0 absent=0
flow_entries=0

main() {
    parse "--profile --connections --cpus --shards --nic --root --state" "$@"
    plan_cpus
    plan_profile
    echo "profile $profile, $connections connections: shards on CPU ${shard_cpus:-none}," \
        "ledger and store on ${other_cpus:-the same}"
    while IFS=$tab read -r kind key severity spec why; do
        show_rule
    done <<RULES
$(rules)
RULES
    for nic in $(nics_wanted); do show_nic "$nic"; done
    show_record
    echo "$good good, $short short, $absent not on this host"
    [ "$short" -eq 0 ] || exit 1
}

line() {
    printf '%-9s%s\n' "$1" "$2"
}

# show NAME CURRENT SEVERITY SPECIFICATION WHY
show() {
    if [ -z "$(decide "$2" "$4")" ]; then
        good=$((good + 1))
        line good "$1: $(printf '%s' "$2" | tr '\t' ' ')"
    else
        short=$((short + 1))
        line short "$1: $(printf '%s' "$2" | tr '\t' ' '), wanted $(in_words "$4") ($3: $5)"
    fi
}

not_here() {
    absent=$((absent + 1))
    line 'not here' "$1"
}

show_rule() {
    case $kind in
        sysctl | sysfs | conntrack)
            paths=$(each_path "$(path_of "$kind" "$key")")
            [ -n "$paths" ] || not_here "$key"
            for path in $paths; do
                name=$key
                [ "$kind" != sysfs ] || name=$path
                if current=$(value_of "$path"); then
                    show "$name" "$current" "$severity" "$spec" "$why"
                else
                    not_here "$name"
                fi
            done
            ;;
        nic) flow_entries=$(power_of_two "${spec##*,}") ;;
        memory)
            # How much of it is left is for a gateway that starts now, and the doctor, to say.
            wanted_mib=$((${spec##*,} / 1048576))
            [ "$key" != total ] || show "memory, MiB" "$memory_mib" "$severity" "0,min,$wanted_mib" "$why"
            ;;
        rlimit) show_limit ;;
        # The doctor compares versions.
        kernel) ;;
    esac
}

# The limits of this very process: a shell's, not the service's.
show_limit() {
    case $key in
        nofile) words='Max open files' ;;
        memlock) words='Max locked memory' ;;
        *) return 0 ;;
    esac
    current=$(sed -n "s/^$words  *[^ ]*  *\([^ ]*\).*/\1/p" "$root/proc/self/limits" 2>/dev/null) || current=
    case $current in
        '') not_here "limit of $key" ;;
        unlimited) good=$((good + 1)); line good "limit of $key in this session: unlimited" ;;
        *) show "limit of $key in this session" "$current" "$severity" "$spec" "$why" ;;
    esac
}

show_nic() {
    channels "$1" | while read -r kind is may; do
        line queues "$1: $is of at most $may $kind"
    done
    while IFS=$tab read -r kind path wanted why; do
        [ -n "$kind" ] || continue
        current=$(value_of "$path") || { not_here "$path"; continue; }
        if same "$current" "$wanted"; then
            good=$((good + 1))
            line good "$path: $current"
        else
            short=$((short + 1))
            line short "$path: $current, wanted $wanted (hint: $why)"
        fi
    done <<PLAN
$(nic_plan "$1")
PLAN
}

show_record() {
    if [ ! -f "$record" ]; then
        echo "apply.sh has changed nothing here: there is no record in $state_dir"
        return 0
    fi
    echo "apply.sh has been here; revert.sh would restore:"
    while IFS=$tab read -r kind key old; do
        case $kind in
            value | irq | file | channels) line '' "$key: $(printf '%s' "$old" | tr '\t' ' ')" ;;
            nft) line '' "nft table inet $key: $old" ;;
        esac
    done <"$record"
}

main "$@"
