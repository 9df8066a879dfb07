#!/bin/sh
# The whole path of a bare machine in a virtual one: tune, doctor, serve, soak, report. For where the host does not
# allow half a million descriptors in a process: a container, a CI machine.
#
#   scripts/soak-vm.sh                      500,000 connections in a guest of 16 GB
#   CONNECTIONS=20000 scripts/soak-vm.sh    a quick look
#   CONNECTIONS=1000000 scripts/soak-vm.sh  a million, in a guest of 20 GB
#
# It boots Debian's cloud kernel with an initramfs made here, which holds busybox, the gateway's release binary and the
# tuning scripts, and a disk of its own for the journal and the store. qemu, cpio and mkfs are installed on this host if
# they are missing; the kernel is not, it is unpacked below target/soak-vm/. What comes out is there too: report.html,
# report.json, and what each step said. The exit code is that of `ringway soak`: 0 passed, 1 the gateway failed, 2 not
# carried out, 3 invalid evidence, 4 the host is not fit.
#
# Also in the environment:
#   FOR=120s         how long messages are sent
#   ACCEL=tcg        software emulation; kvm: hardware; without it: kvm if a guest really boots with it
#   CPUS=2           the guest's CPUs
#   MEMORY=16G       the guest's memory; 20G above 600,000 connections
#   LIMIT=3600       seconds after which the guest is switched off, whatever it is doing
#   SOAK="..."       more options of `ringway soak`, as in SOAK="--rate 20/s"
#   RINGWAY=FILE     another binary than target/release/ringway
set -eu

cd "$(dirname "$0")/.."
connections=${CONNECTIONS:-500000}
case $connections in
    '' | *[!0-9]*) echo "soak-vm: CONNECTIONS=$connections: expected a number such as 500000" >&2; exit 2 ;;
esac
if [ "$connections" -gt 600000 ]; then memory=20G; else memory=16G; fi
memory=${MEMORY:-$memory}
ringway=${RINGWAY:-target/release/ringway}
limit=${LIMIT:-$((900 + connections / 100))}
out=target/soak-vm
work=$out/work

say() { printf 'soak-vm: %s\n' "$*"; }

# Nothing of this says anything about the gateway: the exit code of a soak that could not be carried out.
fail() {
    printf 'soak-vm: %s\n' "$@" >&2
    exit 2
}

main() {
    scripts/setup.sh soak-vm || exit 2
    [ -x "$ringway" ] || fail "there is no $ringway" "Build it: cargo build --locked --release"
    mkdir -p "$work"
    rm -f "$out"/*.log "$out"/*.html "$out"/*.json "$out"/*.txt "$out/exit-code"
    room_for_the_guest
    unpack_kernel
    choose_accel
    make_initramfs
    make_disks
    say "booting $kernel_version with $accel, ${CPUS:-2} CPUs, $memory; $connections connections, at most $limit s"
    # Its console is where it tells how it is going. Under emulation the checks against CPU bugs only cost, and an
    # emulated `rep stosb` is a loop of single bytes.
    boot "$limit" "$work/data.img" "$work/results.img" | sed -u 's/\r$//' | tee "$out/console.log"
    collect
}

# ---- what it takes ----------------------------------------------------------------------------------

# An idle connection takes about 8 KiB of the guest: both its ends are in there.
room_for_the_guest() {
    needed_mib=$((1024 + connections / 100))
    available_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    [ "$available_mib" -ge "$needed_mib" ] || fail \
        "$connections connections take about $needed_mib MiB, and $available_mib MiB are available." \
        "Ask for fewer, as in: CONNECTIONS=$(((available_mib - 1024) * 90)) scripts/soak-vm.sh"
}

# fetch PACKAGE DIR: unpacks a Debian package without installing it.
fetch() {
    mkdir -p "$work/deb" "$2"
    rm -f "$work/deb/$1"_*.deb
    get="cd '$work/deb' && apt-get -o APT::Sandbox::User=root download '$1' >/dev/null 2>&1"
    sh -c "$get" || { apt_update && sh -c "$get"; } || fail "apt-get could not download the package $1." \
        "The guest is made of packages of Debian 12 or newer; elsewhere run this in a container of debian:12."
    dpkg-deb -x "$work/deb/$1"_*.deb "$2"
}

apt_update() {
    if [ "$(id -u)" -eq 0 ]; then apt-get update >/dev/null; else sudo apt-get update >/dev/null; fi
}

unpack_kernel() {
    for tool in apt-get apt-cache dpkg-deb; do
        command -v $tool >/dev/null 2>&1 || fail \
            "there is no $tool to fetch the guest's kernel with." "Run this on Debian 12 or newer, or in its container."
    done
    # What is there is good: this works without a network then.
    if [ -z "$(kernels)" ]; then
        package=$(kernel_package)
        [ -n "$package" ] || { apt_update && package=$(kernel_package); }
        [ -n "$package" ] || fail "there is no package linux-image-cloud-amd64 here." \
            "The guest's kernel is Debian's; elsewhere run this in a container of debian:12."
        say "fetching $package and busybox-static"
        rm -rf "$work/kernel"
        fetch "$package" "$work/kernel"
    fi
    [ -x "$work/busybox/bin/busybox" ] || fetch busybox-static "$work/busybox"
    kernel=$(kernels | head -n 1)
    kernel_version=${kernel##*/vmlinuz-}
}

kernels() {
    find "$work/kernel/boot" -name 'vmlinuz-*' 2>/dev/null || true
}

# The package without a version in its name only depends on the one that has the kernel.
kernel_package() {
    apt-cache show linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1
}

# ---- what is booted ---------------------------------------------------------------------------------

make_initramfs() {
    root=$work/root
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/modules"
    : >"$root/modules/order"
    cp "$work/busybox/bin/busybox" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$ringway" "$root/bin/ringway"
    for library in $(ldd "$ringway" | grep -o '/[^ ]*'); do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
    cp -R tuning "$root/tuning"
    make_modules
    cp scripts/soak-vm/init "$root/init"
    cp scripts/soak-vm/path "$root/path"
    cat >"$root/settings" <<END
connections=$connections
seconds=$((limit - 120))
steady=${FOR:-120s}
emulated=$([ "$accel" = kvm ] || echo --emulated)
more="${SOAK-}"
END
    (cd "$root" && find . | cpio --create --format=newc --owner=0:0 --quiet) >"$work/initramfs.cpio"
}

# The drivers of the guest's disks with all that they need, in the order in which they are loaded. One that is not there
# is part of the kernel.
make_modules() {
    tree=$work/kernel/lib/modules/$kernel_version
    [ -d "$tree" ] || tree=$work/kernel/usr/lib/modules/$kernel_version
    "$work/busybox/bin/busybox" depmod -b "${tree%/lib/modules/*}" "$kernel_version"
    # A line is a module, and what it needs: the last of that first.
    awk '
        { file = $1; sub(/:$/, "", file); name = file; sub(/.*\//, "", name); sub(/\.ko.*/, "", name) }
        { $1 = file; needs[name] = $0 }
        END {
            split("virtio_pci virtio_blk", wanted, " ")
            for (w = 1; w in wanted; w++)
                for (f = split(needs[wanted[w]], files, " "); f > 0; f--) if (!seen[files[f]]++) print files[f]
        }' "$tree/modules.dep" | while read -r file; do
        name=${file##*/}
        name=${name%%.*}
        case $file in
            *.xz) xz -dc "$tree/$file" >"$root/modules/$name.ko" ;;
            *) cp "$tree/$file" "$root/modules/$name.ko" ;;
        esac
        echo "$name.ko" >>"$root/modules/order"
    done
}

# The disk for the journal and the store: an fdatasync in the guest is one here. And one for the results, which holds a
# plain tar.
make_disks() {
    rm -f "$work/data.img" "$work/results.img"
    truncate -s 12G "$work/data.img"
    mkfs=$(command -v mkfs.ext4 || echo /sbin/mkfs.ext4)
    "$mkfs" -q -F -E lazy_itable_init=1,lazy_journal_init=1 "$work/data.img"
    truncate -s 1G "$work/results.img"
}

# boot SECONDS [IMAGE...]: the console is the output; `append` is added to the kernel's command line.
boot() {
    seconds=$1
    shift
    drives=
    for image in "$@"; do drives="$drives -drive file=$image,format=raw,if=virtio,cache=writeback"; done
    if [ "$accel" = kvm ]; then engine="-accel kvm -cpu max"; else
        engine="-accel tcg,thread=multi -cpu max,-erms,-fsrm"
    fi
    # shellcheck disable=SC2086 # several words on purpose
    timeout -k 10 "$seconds" qemu-system-x86_64 -nodefaults -no-user-config -display none -monitor none -no-reboot \
        -machine q35 $engine -smp "${CPUS:-2}" -m "$memory" -kernel "$kernel" -initrd "$work/initramfs.cpio" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable nowatchdog ${append-}" \
        -serial stdio $drives </dev/null
}

choose_accel() {
    accel=${ACCEL:-auto}
    case $accel in
        tcg | kvm) return ;;
        auto) ;;
        *) fail "ACCEL=$accel: expected tcg or kvm" ;;
    esac
    accel=tcg
    [ -r /dev/kvm ] && [ -w /dev/kvm ] || return 0
    # The device may be there and not work: only a guest that comes up tells.
    accel=kvm append=ringway.probe
    make_initramfs
    if ! boot 20 2>"$work/kvm.log" | grep -q 'ringway-probe: up'; then
        say "/dev/kvm is there, and no guest boots with it ($work/kvm.log): software emulation"
        accel=tcg
    fi
    append=
}

# ---- what came of it --------------------------------------------------------------------------------

collect() {
    tar -x -f "$work/results.img" -C "$out" 2>/dev/null || true
    rm -f "$work/data.img" "$work/results.img"
    [ -s "$out/exit-code" ] || fail "the guest ended without results: it took longer than $limit s, or broke." \
        "How far it came is in $out/console.log; LIMIT gives it more seconds."
    code=$(cat "$out/exit-code")
    case $code in
        0) verdict=passed ;;
        1) verdict="the gateway failed" ;;
        3) verdict="invalid evidence" ;;
        4) verdict="the host is not fit" ;;
        *) verdict="not carried out" ;;
    esac
    say "$verdict (exit code $code); all of it in $out/, the report in $out/report.html"
    exit "$code"
}

main
