#!/bin/sh
# Restores what was on this host before the first tuning/apply.sh: every value, and every file with its bytes.
#
#   tuning/revert.sh
#
#   --dry-run            only says what it would restore; needs no root
#   --root DIR           the copy of a host that apply.sh was given
#   --state DIR          the place of the record that apply.sh was given
#
# Exit codes: 0 everything is as it was, or there was nothing to restore; 1 something could not be restored: it was
# named, and stays in the record for the next try; 2 wrong usage.

set -eu
# shellcheck source=tuning/common.sh
. "$(dirname "$0")/common.sh"

restored=0 same_already=0 gone=0 failed=0
left=

main() {
    parse "--dry-run --root --state" "$@"
    if [ ! -f "$record" ]; then
        echo "revert: there is no record in $state_dir, so there is nothing to restore"
        exit 0
    fi
    if [ "$dry_run" = no ]; then
        [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || die "it needs root to change this host; --dry-run does not"
        lock_state
    fi
    this_boot=no
    ! recorded boot "$(boot_id)" || this_boot=yes
    # Last changed, first restored.
    while IFS=$tab read -r kind key old; do
        restore
    done <<RECORD
$(sed '1!G;h;$!d' "$record")
RECORD
    would=
    [ "$dry_run" = no ] || would="would be "
    echo "revert: $restored ${would}restored, $same_already as before already, $gone no longer there," \
        "$failed not restored"
    if [ "$dry_run" = yes ]; then exit 0; fi
    forget
    [ "$failed" -eq 0 ] || exit 1
}

restore() {
    case $kind in
        value) restore_value ;;
        irq)
            # Another start, other numbers: that one's interrupts are where the kernel put them.
            [ "$this_boot" = no ] || restore_value
            ;;
        file) restore_file ;;
        channels) restore_channels ;;
        nft) restore_table ;;
        # Directories go last; the others are about the record itself.
        dir | boot | persist | '') ;;
        *) fails "a line of the kind $kind, which this revert.sh does not know" ;;
    esac
}

says() {
    restored=$((restored + 1))
    if [ "$dry_run" = yes ]; then echo "would restore $1"; else echo "restored $1"; fi
}

# What failed stays in the record, in its order.
fails() {
    failed=$((failed + 1))
    echo "not restored $1"
    left="$kind$tab$key$tab$old
$left"
}

restore_value() {
    current=$(value_of "$key") || { gone=$((gone + 1)); return 0; }
    if [ "$current" = "$old" ]; then
        same_already=$((same_already + 1))
        return 0
    fi
    words="$key: $(printf '%s' "$current" | tr '\t' ' ') -> $(printf '%s' "$old" | tr '\t' ' ')"
    if [ "$dry_run" = yes ] || put "$key" "$old"; then says "$words"; else fails "$words: $refusal"; fi
}

restore_file() {
    saved=$state_dir/files/$(printf '%s' "$key" | tr / %)
    if [ "$dry_run" = yes ]; then
        says "$key: $old"
    elif [ "$old" = absent ]; then
        if rm -f "$root$key"; then says "$key: removed"; else fails "$key: it cannot be removed"; fi
    elif cp -pP "$saved" "$root$key.ringway-new" && mv "$root$key.ringway-new" "$root$key"; then
        says "$key: as it was"
    else
        fails "$key: it cannot be written"
    fi
}

restore_channels() {
    nic=${key% *}
    if [ ! -e "$root/sys/class/net/$nic" ]; then
        gone=$((gone + 1))
    elif [ "$dry_run" = yes ] || refusal=$(ethtool -L "$nic" "${key#* }" "$old" 2>&1); then
        says "$nic's ${key#* } queues: $old"
    else
        # Some drivers do not take the number they have.
        case $refusal in
            *unmodified* | *'no channel parameters changed'*) same_already=$((same_already + 1)) ;;
            *) fails "$nic's ${key#* } queues: $old: $refusal" ;;
        esac
    fi
}

restore_table() {
    if ! nft list table inet "$key" >/dev/null 2>&1; then
        same_already=$((same_already + 1))
    elif [ "$dry_run" = yes ] || nft delete table inet "$key"; then
        says "nft table inet $key: removed"
    else
        fails "nft table inet $key"
    fi
}

# The record goes, or keeps what is still to do; directories that apply.sh made go if nobody else uses them.
forget() {
    if [ "$failed" -gt 0 ]; then
        {
            awk -F "$tab" '$1 == "dir" || $1 == "boot" || $1 == "persist"' "$record"
            printf '%s' "$left"
        } >"$record.new"
        mv "$record.new" "$record"
        return 0
    fi
    if [ -z "$root" ] && [ -d /run/systemd/system ] && grep -q "^file$tab/etc/systemd/" "$record"; then
        systemctl daemon-reload || echo "revert: systemctl daemon-reload failed: run it yourself"
    fi
    dirs=$(awk -F "$tab" '$1 == "dir" { print $2 }' "$record" | sed '1!G;h;$!d')
    rm -rf "$state_dir/files"
    rm -f "$record"
    rmdir "$state_dir/lock"
    for dir in $dirs; do rmdir "$root$dir" 2>/dev/null || true; done
}

main "$@"
