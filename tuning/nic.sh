# shellcheck shell=sh
# shellcheck disable=SC2154 # what is not set here is set by common.sh and by who sources this
# Which CPU a NIC's packets go to. Sourced by apply.sh and status.sh.
#
# The aim: a shard's packets arrive on its CPU, and none on those of the ledger and the store. A NIC spreads
# connections over its queues by a hash that knows nothing of users, so the queues' interrupts are dealt out over the
# shards' CPUs, and the kernel (RFS) moves each connection's packets on to the CPU that read it last: its shard's.

# The NICs to look after: those named, or that of the default route.
nics_wanted() {
    case $nics in
        *[!\ ]*) printf '%s\n' "$nics" | tr ' ' '\n' | sed '/^$/d; /^none$/d' ;;
        *)
            { awk '$2 == "00000000" && $8 == "00000000" { print $1 }' "$root/proc/net/route" 2>/dev/null
              awk '$1 ~ /^0+$/ && $2 == "00" && $10 != "lo" { print $10 }' "$root/proc/net/ipv6_route" 2>/dev/null
            } | sort -u | while read -r nic; do hardware "$nic"; done | sort -u
            ;;
    esac
}

# The NIC itself, or those below a bond, a bridge or a VLAN: interrupts and queues are theirs.
hardware() {
    if [ -e "$root/sys/class/net/$1/device" ]; then
        printf '%s\n' "$1"
        return
    fi
    for lower in "$root/sys/class/net/$1"/lower_*; do
        # In a shell of its own: there are no other local variables.
        if [ -e "$lower" ]; then (hardware "${lower##*/lower_}"); fi
    done
}

# queues NIC rx|tx: their numbers.
queues() {
    for path in "$root/sys/class/net/$1/queues/$2"-*; do
        if [ -e "$path" ]; then printf '%s\n' "${path##*-}"; fi
    done | sort -n
}

# nic_irqs NIC: interrupt and queue, a line each. What is not for a queue (link, configuration) stays where it is.
nic_irqs() {
    device=$root/sys/class/net/$1/device
    numbers=
    for dir in "$device/msi_irqs" "$device/../msi_irqs"; do
        [ -d "$dir" ] || continue
        for path in "$dir"/*; do numbers="$numbers ${path##*/}"; done
        break
    done
    awk -v nic="$1" -v numbers="$numbers" '
        BEGIN { n = split(numbers, each, " "); for (i = 1; i <= n; i++) ours[each[i]] = 1 }
        $1 ~ /^[0-9]+:$/ {
            irq = $1; sub(":", "", irq)
            name = $NF; sub(/@.*/, "", name)
            if (n > 0 ? !(irq in ours) : index(name, nic) != 1) next
            if (name ~ /config|async|ctrl|control|mgm|event|link|cmd|misc|fdir|ptp|fatal/) next
            if (name == nic) { print irq, 0; next }
            # The device number in front is no queue: virtio2-input.0, eth0-TxRx-3, mlx5_comp3.
            sub(/^virtio[0-9]+-/, "", name)
            if (index(name, nic) == 1) name = substr(name, length(nic) + 1)
            if (match(name, /[0-9]+$/)) print irq, substr(name, RSTART)
            else if (name ~ /^-?q[0-9]+-(rx|tx)$/ && match(name, /[0-9]+/)) print irq, substr(name, RSTART, RLENGTH)
            else if (name ~ /rx|tx|Rx|Tx|input|output/) print irq, 0
        }' "$root/proc/interrupts" 2>/dev/null
}

# mask CPU...: as the kernel writes it, groups of 32 bits. Nibble by nibble and without powers, which not every awk has.
mask() {
    printf '%s\n' "$*" | awk '{
        top = 0
        for (i = 1; i <= NF; i++) {
            nibble = int($i / 4)
            set[nibble] += substr("1248", $i % 4 + 1, 1)
            if (nibble > top) top = nibble
        }
        for (at = top; at >= 0; at--) {
            out = out substr("0123456789abcdef", set[at] + 1, 1)
            if (at % 8 == 0 && at > 0) out = out ","
        }
        print out
    }'
}

# nic_plan NIC: kind, path, value and why, a line for each file. The kinds are irq and value.
nic_plan() {
    [ -d "$root/sys/class/net/$1/queues" ] || return 0
    shards_there=$(printf '%s\n' "$shard_cpus" | awk '{ print NF }')
    receiving=$(queues "$1" rx | awk 'END { print NR }')
    sending=$(queues "$1" tx | awk 'END { print NR }')
    nic_irqs "$1" | while read -r irq queue; do
        cpu=$(dealt "$queue" "$shards_there" 1)
        printf 'irq\t/proc/irq/%s/smp_affinity_list\t%s\t%s\n' "$irq" "$cpu" \
            "interrupts of $1's queue $queue go to a shard's CPU, not to the ledger's or the store's"
    done
    flows=0
    if [ "$shards_there" -gt 1 ] && [ "$receiving" -gt 0 ]; then
        flows=$(power_of_two $((flow_entries / receiving)))
    fi
    for queue in $(queues "$1" rx); do
        # With a queue for each shard there is nothing to spread: RFS alone moves packets on.
        spread=0
        # shellcheck disable=SC2046 # several CPUs on purpose
        [ "$receiving" -ge "$shards_there" ] || spread=$(mask $(dealt "$queue" "$receiving" "$shards_there"))
        printf 'value\t/sys/class/net/%s/queues/rx-%s/rps_cpus\t%s\t%s\n' "$1" "$queue" "$spread" \
            "what queue $queue receives is spread over the shards that have no queue of their own"
        printf 'value\t/sys/class/net/%s/queues/rx-%s/rps_flow_cnt\t%s\t%s\n' "$1" "$queue" "$flows" \
            "a connection's packets follow it to its shard's CPU"
    done
    [ "$sending" -gt 1 ] || return 0
    for queue in $(queues "$1" tx); do
        # shellcheck disable=SC2046 # several CPUs on purpose
        printf 'value\t/sys/class/net/%s/queues/tx-%s/xps_cpus\t%s\t%s\n' "$1" "$queue" \
            "$(mask $(dealt "$queue" "$sending" "$shards_there"))" "each shard sends through a queue of its own"
    done
}

# dealt START STEP COUNT: the CPUs of COUNT places, START and every STEP after it; around again when shards are fewer.
# With STEP as many as there are queues these are the shards of a queue; with COUNT 1 it is the shard of a queue.
dealt() {
    printf '%s\n' "$shard_cpus" | awk -v start="$1" -v step="$2" -v count="$3" '{
        if (count == 1 || start >= NF) { print $(start % NF + 1); exit }
        for (at = start; at < NF; at += step) print $(at + 1)
    }'
}

power_of_two() {
    awk -v n="$1" 'BEGIN { p = 1; while (p < n) p *= 2; print p }'
}

# channels NIC: the kinds (combined, or rx and tx), how many there are and how many there may be, a line each; nothing
# where ethtool cannot say, and in a copy of a host, which has no NIC.
channels() {
    [ -z "$root" ] || return 0
    LC_ALL=C ethtool -l "$1" 2>/dev/null | awk '
        /^Pre-set/ { most = 1 }
        /^Current/ { most = 0 }
        $2 !~ /^[0-9]+$/ { next }
        { kind = tolower($1); sub(":", "", kind); if (most) may[kind] = $2; else is[kind] = $2 }
        END {
            if (may["combined"] > 0) print "combined", is["combined"], may["combined"]
            else for (kind in may) if (kind != "other" && may[kind] > 0) print kind, is[kind], may[kind]
        }' | sort
}
