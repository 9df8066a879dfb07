# shellcheck shell=sh
# shellcheck disable=SC2154 # what is not set here is set by common.sh and by apply.sh
# What apply.sh --persist writes for the next starts of the host. Sourced by apply.sh.
#
# What always holds: only files of our own, each in the record first; one that was there before is saved with its
# bytes.

persist_all() {
    own_file /etc/sysctl.d/90-ringway.conf "kernel settings, read at every start" "$(sysctl_lines)"
    overruled
    own_file /etc/security/limits.d/90-ringway.conf "descriptors and locked memory in $user's sessions" \
        "$(limits_lines)"
    if [ ! -d "$root/etc/systemd" ]; then
        not_here "systemd: nothing for its services, and nothing to set the rest at the next start"
        return 0
    fi
    own_file /etc/systemd/system/ringway.service.d/90-tuning.conf "the service's descriptors and locked memory" \
        "$(service_lines)"
    own_file /etc/systemd/system/ringway-tuning.service "what no sysctl file can set, at every start" "$(unit_lines)"
    own_link /etc/systemd/system/multi-user.target.wants/ringway-tuning.service ../ringway-tuning.service
    if [ "$dry_run" = no ] && [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload || note "systemctl daemon-reload failed: run it yourself"
    fi
}

# limit NAME: its required value.
limit() {
    rules | awk -F "$tab" -v name="$1" '$1 == "rlimit" && $2 == name { n = split($4, spec, ","); print spec[n] }'
}

# Every sysctl that is ours: those that were changed, now or before, and in a dry run those that would be.
sysctl_lines() {
    echo "# Written by Ringway's tuning/apply.sh for $connections connections; its revert.sh removes it."
    while IFS=$tab read -r kind key severity spec why; do
        : "$severity"
        case $kind in
            sysctl) before= ;;
            # Read before connections are tracked, it may find no such key: no reason to complain.
            conntrack | nic) before=- ;;
            *) continue ;;
        esac
        path=$(path_of "$kind" "$key")
        current=$(value_of "$path") || continue
        wanted=$(decide "$current" "$spec")
        if [ "$dry_run" = yes ] && [ -n "$wanted" ]; then
            [ "$kind" = sysctl ] || continue
            current=$wanted
        elif ! recorded value "$path" || [ -n "$wanted" ]; then
            continue
        fi
        printf '# %s\n%s%s = %s\n' "$why" "$before" "$key" "$(printf '%s' "$current" | tr '\t' ' ')"
    done <<RULES
$(rules)
RULES
}

# What is read later wins: /etc/sysctl.conf comes as 99-sysctl.conf.
overruled() {
    for file in "$root"/etc/sysctl.d/9[1-9]*.conf "$root/etc/sysctl.conf"; do
        [ -f "$file" ] || continue
        rules | while IFS=$tab read -r kind key severity spec why; do
            : "$severity $why"
            [ "$kind" = sysctl ] || continue
            theirs=$(sed -n "s|^[[:space:]]*${key}[[:space:]]*=[[:space:]]*||p" "$file" | tail -n 1)
            if [ -n "$theirs" ] && [ -n "$(decide "$theirs" "$spec")" ]; then
                say note "${file#"$root"} sets $key = $theirs and is read after ours: it will win at the next start"
            fi
        done
    done
}

limits_lines() {
    echo "# Written by Ringway's tuning/apply.sh for $connections connections; its revert.sh removes it."
    echo "$user - nofile $(limit nofile)"
    echo "$user - memlock $(($(limit memlock) / 1024))"
}

service_lines() {
    echo "# Written by Ringway's tuning/apply.sh for $connections connections; its revert.sh removes it."
    echo "[Service]"
    echo "LimitNOFILE=$(limit nofile)"
    echo "LimitMEMLOCK=$(limit memlock)"
}

unit_lines() {
    arguments="--profile $profile --connections $connections --shards $shards --conntrack $conntrack --port $port"
    [ -z "$cpus_given" ] || arguments="$arguments --cpus $cpus_given"
    for nic in $nics; do arguments="$arguments --nic $nic"; done
    cat <<UNIT
# Written by Ringway's tuning/apply.sh; its revert.sh removes it.
[Unit]
Description=Ringway's settings of this host that no sysctl file can hold
After=systemd-sysctl.service network.target
Before=ringway.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$here/apply.sh $arguments --state $state_dir

[Install]
WantedBy=multi-user.target
UNIT
}

# own_file PATH WHAT CONTENT
own_file() {
    if [ -f "$root$1" ] && [ "$(cat "$root$1")" = "$3" ]; then
        good=$((good + 1))
        return 0
    fi
    changed=$((changed + 1))
    was=new
    [ ! -e "$root$1" ] || was=replaced
    if [ "$dry_run" = yes ]; then
        say 'would write' "$1 ($2)"
        printf '%s\n' "$3" | sed 's/^/                /'
        return 0
    fi
    remember_file "$1"
    printf '%s\n' "$3" >"$root$1.ringway-new"
    chmod 644 "$root$1.ringway-new"
    mv "$root$1.ringway-new" "$root$1"
    say wrote "$1, $was ($2)"
}

own_link() {
    [ "$(readlink "$root$1" 2>/dev/null)" != "$2" ] || { good=$((good + 1)); return 0; }
    changed=$((changed + 1))
    [ "$dry_run" = no ] || { say 'would link' "$1"; return 0; }
    remember_file "$1"
    rm -f "$root$1"
    ln -s "$2" "$root$1"
    say linked "$1"
}

# What is there now is kept, once, with the name's slashes made percent signs.
remember_file() {
    make_dirs "$(dirname "$root$1")"
    recorded file "$1" && return
    if [ -e "$root$1" ] || [ -L "$root$1" ]; then
        mkdir -p "$state_dir/files"
        cp -pP "$root$1" "$state_dir/files/$(printf '%s' "$1" | tr / %)" || die "$1 cannot be saved; it was not changed"
        remember file "$1" saved
    else
        remember file "$1" absent
    fi
}
