#!/bin/sh
# Sets what Ringway wants of this host, and records what was there, for revert.sh to restore.
#
#   tuning/apply.sh --dry-run              what it would change, and why; needs no root
#   tuning/apply.sh --profile large        changes it, until the next start of the host
#   tuning/apply.sh --profile large --persist
#                                          also for the next starts, in files of its own
#
#   --profile NAME       small, standard, large or flagship; without it the largest that fits this host
#   --connections N      for so many connections instead of the profile's
#   --cpus LIST          the CPUs that the gateway may use (its setting `cpus`), as in 0,2-3
#   --shards N           its setting `shards`
#   --nic NAME           a NIC whose packets are brought to the shards' CPUs, more than once if need be; `none` leaves
#                        all alone. Without it: the one of the default route
#   --conntrack size|bypass|leave
#                        make the table of tracked connections large enough, keep the gateway's port out of it (with
#                        nft), or leave it alone
#   --port N             the gateway's port, for --conntrack bypass; 7400 without it
#   --user NAME          whose limits are raised, with --persist; ringway without it
#   --root DIR           a copy of a host's /proc, /sys and /etc to work on instead of this host
#   --state DIR          where the record is; /var/lib/ringway-tuning without it
#
# It may run as often as you like: what is good already is not touched, and a better value never made worse. What the
# host does not have, or does not let root set (in a container, say), is named and counted and stops nothing.
#
# Exit codes: 0 done, all of it or all that is possible here; 1 not done, nothing or no more was changed, and it said
# why; 2 wrong usage.

set -eu
# shellcheck source=tuning/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=tuning/nic.sh
. "$here/nic.sh"
# shellcheck source=tuning/persist.sh
. "$here/persist.sh"

changed=0 good=0 absent=0 refused=0

main() {
    parse "--dry-run --persist --profile --connections --cpus --shards --nic --conntrack --port --user \
        --root --state" "$@"
    plan_cpus
    plan_profile
    if [ "$dry_run" = no ]; then
        [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || die "it needs root to change this host; --dry-run does not"
        open_record
    fi
    say plan "profile $profile, $connections connections: shards on CPU ${shard_cpus:-none}," \
        "ledger and store on ${other_cpus:-the same}"
    if [ "$cpu_count" -lt "$profile_cpus" ] || [ "$memory_mib" -lt $((profile_gib * 1024 * 9 / 10)) ]; then
        note "the profile is made for $profile_cpus CPUs and $profile_gib GiB; here are $cpu_count and" \
            "$((memory_mib / 1024)): \`ringway doctor --connections $connections\` says whether that is enough"
    fi
    # Queues first: their number decides which of a NIC's files there are.
    for nic in $(nics_wanted); do apply_channels "$nic"; done
    apply_rules
    for nic in $(nics_wanted); do apply_nic "$nic"; done
    [ "$conntrack" != bypass ] || apply_bypass
    if [ "$persist" = yes ]; then
        persist_all
    elif [ "$limits_short" = yes ] && ! recorded persist yes; then
        note "the limits of processes (nofile, memlock) are not a matter of the running host: --persist writes them" \
            "for the user $user and for the service"
    fi
    summary
}

say() {
    label=$1
    shift
    printf '%-12s%s\n' "$label" "$*"
}

note() {
    say note "$@"
}

summary() {
    would=
    [ "$dry_run" = no ] || would="would be "
    say 'in all' "$changed ${would}changed, $good good already, $absent not on this host, $refused refused by it"
    [ "$dry_run" = yes ] || [ ! -f "$record" ] || say '' "$here/revert.sh restores what was there"
}

# ---- the record -------------------------------------------------------------------------------------

# Opens the record and drops from it what a start of the host has undone.
open_record() {
    dirs=$(missing_dirs "$state_dir")
    mkdir -p "$state_dir" 2>/dev/null || die "the record cannot be kept: $state_dir cannot be made"
    lock_state
    boot=$(boot_id)
    if [ -f "$record" ] && ! recorded boot "$boot"; then
        persisted=no
        ! recorded persist yes || persisted=yes
        awk -F "$tab" -v persisted="$persisted" '
            $1 == "dir" || $1 == "file" { print; next }
            persisted == "yes" && $1 != "irq" && $1 != "boot"' "$record" >"$record.new"
        mv "$record.new" "$record"
        note "the host was started since the last run: what does not outlive a start is forgotten"
    fi
    for dir in $dirs; do remember dir "${dir#"$root"}" made; done
    remember boot "$boot" -
    [ "$persist" = no ] || remember persist yes -
}

# ---- one value --------------------------------------------------------------------------------------

# set_value KIND PATH NAME WANTED WHY SPECIFICATION
set_value() {
    old=$(value_of "$2") || { not_here "$3"; return 0; }
    shown=$(printf '%s' "$old" | tr '\t' ' ')
    wanted_shown=$(printf '%s' "$4" | tr '\t' ' ')
    if [ "$dry_run" = yes ]; then
        changed=$((changed + 1))
        say 'would set' "$3: $shown -> $wanted_shown ($5)"
        return
    fi
    remember "$1" "$2" "$old"
    if put "$2" "$4" || { [ -n "$6" ] && [ -n "${now-}" ] && [ -z "$(decide "$now" "$6")" ]; }; then
        changed=$((changed + 1))
        say set "$3: $shown -> $(value_of "$2" | tr '\t' ' ') ($5)"
    else
        refused=$((refused + 1))
        say refused "$3: $shown, wanted $wanted_shown: $refusal ($5)"
    fi
}

not_here() {
    absent=$((absent + 1))
    say 'not here' "$1"
}

# ---- the rules --------------------------------------------------------------------------------------

limits_short=no
flow_entries=0

apply_rules() {
    while IFS=$tab read -r kind key severity spec why; do
        : "$severity"
        case $kind in
            sysctl | sysfs) apply_rule ;;
            conntrack) apply_conntrack ;;
            nic)
                flow_entries=$(power_of_two "${spec##*,}")
                apply_flows
                ;;
            rlimit) limits_short=yes ;;
            # The doctor's: no script can change them.
            kernel | memory) ;;
            *) die "values.conf: a rule of the kind $kind, which this apply.sh does not know" ;;
        esac
    done <<RULES
$(rules)
RULES
}

apply_rule() {
    pattern=$(path_of "$kind" "$key")
    paths=$(each_path "$pattern")
    if [ -z "$paths" ]; then
        not_here "$key"
        return 0
    fi
    for path in $paths; do
        name=$key
        [ "$kind" = sysctl ] || [ "$kind" = conntrack ] || [ "$kind" = nic ] || name=$path
        current=$(value_of "$path") || { not_here "$name"; continue; }
        wanted=$(decide "$current" "$spec")
        if [ -z "$wanted" ]; then
            good=$((good + 1))
        else
            set_value value "$path" "$name" "$wanted" "$why" "$spec"
        fi
    done
}

apply_conntrack() {
    if [ -z "$(each_path "$(path_of "$kind" "$key")")" ]; then
        not_here "$key (connections are not tracked)"
    elif [ "$conntrack" = size ]; then
        apply_rule
    fi
}

# The table of flows is worth its look-ups only where packets are spread.
apply_flows() {
    case $shard_cpus in
        *\ *) [ -n "$(nics_wanted)" ] || return 0 ;;
        *) return 0 ;;
    esac
    apply_rule
}

# ---- NICs -------------------------------------------------------------------------------------------

apply_nic() {
    if [ ! -d "$root/sys/class/net/$1" ]; then
        not_here "the NIC $1"
        return 0
    fi
    while IFS=$tab read -r kind path wanted why; do
        [ -n "$kind" ] || continue
        current=$(value_of "$path") || { not_here "$path"; continue; }
        if same "$current" "$wanted"; then
            good=$((good + 1))
        else
            set_value "$kind" "$path" "$path" "$wanted" "$why" ''
        fi
    done <<PLAN
$(nic_plan "$1")
PLAN
    case $(cat "$root"/proc/[0-9]*/comm 2>/dev/null) in
        *irqbalance*)
            note "irqbalance runs, and will move the interrupts of $1 again: stop it, or keep it off them" \
                "(IRQBALANCE_BANNED_CPULIST)"
            ;;
    esac
}

# As many queues as there are shards, as far as the NIC has them.
apply_channels() {
    shards_there=$(printf '%s\n' "$shard_cpus" | awk '{ print NF }')
    found=$(channels "$1")
    if [ -z "$found" ]; then
        not_here "the number of $1's queues (no ethtool, or a NIC that cannot change it)"
        return 0
    fi
    while read -r kind is may; do
        wanted=$shards_there
        [ "$wanted" -le "$may" ] || wanted=$may
        name="$1's $kind queues"
        why="a queue for each shard, of at most $may"
        if [ "$is" -eq "$wanted" ]; then
            good=$((good + 1))
        elif [ "$dry_run" = yes ]; then
            changed=$((changed + 1))
            say 'would set' "$name: $is -> $wanted ($why)"
        else
            remember_queues "$1"
            remember channels "$1 $kind" "$is"
            if refusal=$(ethtool -L "$1" "$kind" "$wanted" 2>&1); then
                changed=$((changed + 1))
                say set "$name: $is -> $wanted ($why)"
            else
                refused=$((refused + 1))
                say refused "$name: $is, wanted $wanted: $refusal ($why)"
            fi
        fi
    done <<FOUND
$found
FOUND
}

# Another number of queues makes new ones, with settings of their own: those there were come back after the number.
remember_queues() {
    for path in $(each_path "/sys/class/net/$1/queues/*/[rx]ps_*"); do
        if old=$(value_of "$path"); then remember value "$path" "$old"; fi
    done
    for irq in $(nic_irqs "$1" | cut -d ' ' -f 1); do
        if old=$(value_of "/proc/irq/$irq/smp_affinity_list"); then
            remember irq "/proc/irq/$irq/smp_affinity_list" "$old"
        fi
    done
}

# ---- connection tracking ----------------------------------------------------------------------------

apply_bypass() {
    if [ -z "$(each_path /proc/sys/net/netfilter/nf_conntrack_max)" ]; then
        return 0
    fi
    why="packets of the gateway's port $port are not tracked"
    if ! command -v nft >/dev/null 2>&1; then
        refused=$((refused + 1))
        say refused "connection tracking: $why with nft, which is not installed; --conntrack size needs nothing"
    elif [ "$dry_run" = yes ]; then
        changed=$((changed + 1))
        say 'would set' "nft table inet ringway_notrack: absent -> port $port ($why)"
    elif [ -n "$root" ]; then
        not_here "nft (in a copy of a host)"
    else
        apply_table
    fi
}

apply_table() {
    was=absent
    if nft list table inet ringway_notrack >/dev/null 2>&1; then
        was="as before"
        if nft list table inet ringway_notrack | grep -q "dport $port notrack"; then
            good=$((good + 1))
            return 0
        fi
    fi
    remember nft ringway_notrack absent
    # Both directions at both hooks: a client may be on this host too.
    if refusal=$(nft -f - 2>&1 <<TABLE
table inet ringway_notrack {}
delete table inet ringway_notrack
table inet ringway_notrack {
    chain incoming {
        type filter hook prerouting priority raw; policy accept;
        tcp dport $port notrack
        tcp sport $port notrack
    }
    chain outgoing {
        type filter hook output priority raw; policy accept;
        tcp dport $port notrack
        tcp sport $port notrack
    }
}
TABLE
    ); then
        changed=$((changed + 1))
        say set "nft table inet ringway_notrack: $was -> port $port ($why)"
        note "a firewall that lets only known connections in does not know these any more: let TCP port $port in" \
            "by name"
    else
        refused=$((refused + 1))
        say refused "nft table inet ringway_notrack: $(printf '%s' "$refusal" | head -n 1) ($why)"
    fi
}

main "$@"
