# shellcheck shell=sh
# shellcheck disable=SC2034 # what is set here is read by the scripts that source this
# What apply.sh, revert.sh and status.sh share: options, the rules of values.conf, the record.
#
# Sourced, never run. POSIX sh, and nothing that busybox has not: the scripts also run inside a virtual machine that
# has nothing else.
#
# What always holds: a line is in the record before the change it undoes is made, and a line that is there is never
# replaced. So what revert.sh restores is what was there before the first apply.sh, however often that ran.

tab=$(printf '\t')
# Where ethtool and nft are, and where others than root do not look.
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)

# ---- options ----------------------------------------------------------------------------------------

root=                        # what stands for / ; empty: this host
state_dir=                   # where the record is
profile=
connections=
cpus=                        # the CPUs the gateway may use; empty: those this process may use
shards=auto
nics=                        # empty: that of the default route
conntrack=size
port=7400
user=ringway
dry_run=no
persist=no

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit "${2:-1}"
}

# parse "OPTIONS THAT THIS SCRIPT TAKES" "$@"
parse() {
    known=" $1 "
    shift
    while [ $# -gt 0 ]; do
        option=$1
        case $option in
            -h | --help) usage; exit 0 ;;
            --*=*) argument=${option#*=} option=${option%%=*} given=yes ;;
            *) argument=${2-} given=no ;;
        esac
        case $known in
            *" $option "*) ;;
            *) die "it does not know $option; --help lists what it knows" 2 ;;
        esac
        shift
        case $option in
            --dry-run) dry_run=yes ;;
            --persist) persist=yes ;;
            *)
                [ -n "$argument" ] || die "$option wants a value; --help says which" 2
                [ "$given" = yes ] || shift
                option_value "$option" "$argument"
                ;;
        esac
    done
    for tool in awk sed sort tr cut grep cp mv; do
        command -v "$tool" >/dev/null 2>&1 || die "$tool is not installed, and it needs that"
    done
    values=$here/values.conf
    [ -r "$values" ] || die "there is no $values to read the values from"
    [ -n "$state_dir" ] || state_dir=$root/var/lib/ringway-tuning
    record=$state_dir/record
}

option_value() {
    case $1 in
        --profile) profile=$2 ;;
        --connections) wants_number "$1" "$2"; connections=$2 ;;
        --shards) [ "$2" = auto ] || wants_number "$1" "$2"; shards=$2 ;;
        --port) wants_number "$1" "$2"; port=$2 ;;
        --cpus) wants "$1" "$2" '*[!0-9,-]*' 'a list of CPUs such as 0,2-3'; cpus=$2 ;;
        --nic) wants "$1" "$2" '*[!A-Za-z0-9._@:-]*' 'the name of an interface, or none'; nics="$nics $2" ;;
        --user) wants "$1" "$2" '*[!A-Za-z0-9._-]*' 'the name of a user'; user=$2 ;;
        --conntrack)
            case $2 in
                size | bypass | leave) conntrack=$2 ;;
                *) die "--conntrack $2: it wants size, bypass or leave" 2 ;;
            esac
            ;;
        --root) [ -d "$2" ] || die "--root $2: there is no such directory" 2; root=${2%/} ;;
        --state) state_dir=$2 ;;
    esac
}

wants_number() {
    wants "$1" "$2" '*[!0-9]*' 'a whole number'
    [ "${#2}" -le 12 ] || die "$1 $2: it wants a smaller number" 2
}

# wants OPTION VALUE PATTERN-OF-WHAT-IS-WRONG WHAT
wants() {
    # shellcheck disable=SC2254 # a pattern on purpose
    case $2 in
        $3) die "$1 $2: it wants $4" 2 ;;
    esac
}

# ---- what the host is like --------------------------------------------------------------------------

# The CPUs of a list such as 0,2-3, one a line.
cpus_of() {
    printf '%s\n' "$1" | awk -F, '{
        for (i = 1; i <= NF; i++) {
            n = split($i, ends, "-")
            for (cpu = ends[1] + 0; cpu <= ends[n] + 0; cpu++) print cpu
        }
    }'
}

# Shards first, then ledger and store: the same plan as the gateway's own (src/topology/cpus.rs).
plan_cpus() {
    cpus_given=$cpus
    if [ -z "$cpus" ]; then
        cpus=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$root/proc/self/status" 2>/dev/null) || cpus=
        [ -n "$cpus" ] || cpus=$(cat "$root/sys/devices/system/cpu/online" 2>/dev/null) || cpus=
        [ -n "$cpus" ] || cpus=0
    fi
    cpu_list=$(cpus_of "$cpus" | sort -nu)
    cpu_count=$(printf '%s\n' "$cpu_list" | awk 'END { print NR }')
    shard_count=$shards
    if [ "$shards" = auto ]; then
        case $cpu_count in
            1 | 2) shard_count=1 ;;
            3) shard_count=2 ;;
            *) shard_count=$((cpu_count - 2)) ;;
        esac
    fi
    shard_cpus=$(printf '%s\n' "$cpu_list" | awk -v n="$shard_count" 'NR <= n' | tr '\n' ' ')
    shard_cpus=${shard_cpus% }
    other_cpus=$(printf '%s\n' "$cpu_list" | awk -v n="$shard_count" 'NR > n' | tr '\n' ' ')
    other_cpus=${other_cpus% }
}

plan_profile() {
    memory_mib=$(awk '/^MemTotal:/ { print int($2 / 1024) }' "$root/proc/meminfo" 2>/dev/null) || memory_mib=
    memory_mib=${memory_mib:-0}
    # What is sold as 16 GiB shows a little less.
    [ -n "$profile" ] || profile=$(profiles | awk -F "$tab" -v cpus="$cpu_count" -v mib="$memory_mib" '
        NR == 1 { name = $1 }
        $2 <= cpus && $3 * 1024 * 0.9 <= mib { name = $1 }
        END { print name }')
    found=$(profiles | awk -F "$tab" -v name="$profile" '$1 == name')
    [ -n "$found" ] || die "there is no profile $profile; there are: $(profiles | cut -f 1 | tr '\n' ' ')" 2
    [ -n "$connections" ] || connections=$(printf '%s\n' "$found" | cut -f 4)
    profile_cpus=$(printf '%s\n' "$found" | cut -f 2)
    profile_gib=$(printf '%s\n' "$found" | cut -f 3)
}

# ---- the rules --------------------------------------------------------------------------------------

# name, CPUs, GiB, connections, what for: a line for each profile.
profiles() {
    awk -F '|' -v OFS="$tab" '
        { for (i = 1; i <= NF; i++) gsub(/^[ \t]+|[ \t]+$/, "", $i) }
        $1 == "profile" { print $2, $3, $4, $5, $6 }' "$values"
}

# kind, key, severity, specification, why: a line for each key, the numbers of one value together. A specification is
# `number,compare,required` as often as needed, number 0 being the whole value, several words joined by slashes.
rules() {
    awk -F '|' -v OFS="$tab" -v connections="$connections" '
        { for (i = 1; i <= NF; i++) gsub(/^[ \t]+|[ \t]+$/, "", $i) }
        /^#/ || NF < 7 { next }
        {
            key = $2; number = 0
            if (match(key, /:[0-9]+$/)) { number = substr(key, RSTART + 1); key = substr(key, 1, RSTART - 1) }
            required = $4
            if ($3 == "one-of") gsub(/ +/, "/", required)
            else if ($1 != "kernel") required = sprintf("%.0f", $4 + $5 * connections)
            spec = number "," $3 "," required
            if (key in at) { specs[at[key]] = specs[at[key]] " " spec; next }
            at[key] = ++count
            kinds[count] = $1; keys[count] = key; severities[count] = $6; specs[count] = spec; whys[count] = $7
        }
        END { for (i = 1; i <= count; i++) print kinds[i], keys[i], severities[i], specs[i], whys[i] }' "$values"
}

# decide CURRENT SPECIFICATION: what the value should become, or nothing when it is good.
decide() {
    printf '%s\n' "$1" | awk -v OFS="$tab" -v specs="$2" '{
        changed = 0
        n = split(specs, each, " ")
        for (i = 1; i <= n; i++) {
            split(each[i], spec, ",")
            current = $(spec[1] + 0); required = spec[3]; good = 0
            if (spec[2] == "min") good = current + 0 >= required + 0
            else if (spec[2] == "max") good = current + 0 <= required + 0
            else {
                words = split(required, word, "/")
                for (w = words; w > 0; w--) good = good || current == word[w]
                required = word[1]
            }
            if (!good) { $(spec[1] + 0) = required; changed = 1 }
        }
        if (changed) print
        exit
    }'
}

# The required value in words: "at least 65535".
in_words() {
    printf '%s\n' "$1" | awk '{
        for (i = 1; i <= NF; i++) {
            split($i, spec, ",")
            gsub("/", " or ", spec[3])
            how = spec[2] == "min" ? "at least " : spec[2] == "max" ? "at most " : ""
            out = out (i > 1 ? ", " : "") how spec[3]
        }
        print out
    }'
}

# The file of a key.
path_of() {
    case $1 in
        sysctl | conntrack | nic) printf '/proc/sys/%s\n' "$(printf '%s' "$2" | tr . /)" ;;
        *) printf '%s\n' "$2" ;;
    esac
}

# each_path PATTERN: the files there are, without the root in front.
each_path() {
    # shellcheck disable=SC2086 # a pattern on purpose
    for path in $root$1; do
        if [ -e "$path" ]; then printf '%s\n' "${path#"$root"}"; fi
    done
}

# ---- reading and writing ----------------------------------------------------------------------------

# value_of PATH: the value in a file, of a choice the one chosen; fails if it cannot be read.
value_of() {
    value_read=$(cat "$root$1" 2>/dev/null) || return 1
    case $value_read in
        *\[*\]*)
            value_read=${value_read#*\[}
            value_read=${value_read%%\]*}
            ;;
    esac
    printf '%s\n' "$value_read"
}

# put PATH VALUE: writes it and fails, with `refusal` set, unless it is there afterwards.
put() {
    if [ -n "$root" ] && grep -q '\[' "$root$1" 2>/dev/null; then
        # In a copy nobody moves the brackets for us.
        choices=$(sed "s/[][]//g; s/^/ /; s/\$/ /; s/ $2 / [$2] /; s/^ //; s/ \$//" "$root$1")
        printf '%s\n' "$choices" >"$root$1"
        return
    fi
    refusal=$( (printf '%s\n' "$2" >"$root$1") 2>&1) || {
        refusal=${refusal##*: }
        return 1
    }
    now=$(value_of "$1") || now=
    same "$2" "$now" && return
    refusal="the kernel made it $now"
    return 1
}

# The same value, whatever stands between the numbers, and for masks whatever zeros stand in front.
same() {
    [ "$(plain "$1")" = "$(plain "$2")" ]
}

plain() {
    printf '%s\n' "$1" | awk '{
        $1 = $1
        # A mask of several groups of 32 bits; a list of CPUs such as 0,2 is none.
        if ($0 ~ /^[0-9a-f]+(,[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f])+$/) gsub(",", "")
        if ($0 ~ /^0+./ && $0 !~ / /) sub(/^0+/, "")
        if ($0 == "") $0 = "0"
        print
        exit
    }'
}

# ---- the record -------------------------------------------------------------------------------------

# The record has lines of kind, key and what was there, separated by tabs. The kinds: boot (whose record it is),
# persist, dir (made by us), value (of a file under /proc or /sys), irq (the same, good for this boot only), channels
# (of a NIC), file (of ours: absent, or saved with the bytes that were there), nft (a table of ours).

boot_id() {
    cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null || echo unknown
}

recorded() {
    [ -f "$record" ] && awk -F "$tab" -v kind="$1" -v key="$2" '
        $1 == kind && $2 == key { found = 1 } END { exit !found }' "$record"
}

# recorded_value KIND KEY: what was there before us.
recorded_value() {
    awk -v kind="$1" -v key="$2" -v tab="$tab" '
        index($0, kind tab key tab) == 1 { print substr($0, length(kind tab key tab) + 1); exit }' "$record" 2>/dev/null
}

remember() {
    recorded "$1" "$2" && return
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$record" ||
        die "the record $record cannot be written; nothing more was changed"
}

# The directories of a path that are not there yet, outermost first.
missing_dirs() {
    dir=$1
    dirs_missing=
    while [ -n "$dir" ] && [ "$dir" != / ] && [ ! -d "$dir" ]; do
        dirs_missing="$dir${dirs_missing:+ $dirs_missing}"
        dir=$(dirname "$dir")
    done
    printf '%s\n' "$dirs_missing"
}

make_dirs() {
    for dir in $(missing_dirs "$1"); do
        remember dir "${dir#"$root"}" made
        mkdir "$dir" || die "$dir cannot be made"
    done
}

lock_state() {
    mkdir "$state_dir/lock" 2>/dev/null || die \
        "another apply.sh or revert.sh is at work; if none is, remove $state_dir/lock and run it again"
    trap 'rmdir "$state_dir/lock" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM HUP
}
