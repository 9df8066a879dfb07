//! The kernel and its io_uring.

use super::Subject;
use crate::doctor::host::Host;
use crate::doctor::kernel::KernelVersion;
use crate::doctor::uring::{OPERATIONS, RingCall, Uring};
use crate::doctor::values::{Compare, Rule};
use crate::doctor::{Finding, Severity, Verdict};

const DISABLED: &str = "kernel.io_uring_disabled";
const WHY: &str = "every shard is an io_uring loop";
/// The first version that counts rings as the cgroup's memory and no longer as locked memory.
pub(super) const RINGS_NOT_LOCKED: KernelVersion = KernelVersion { major: 5, minor: 12 };
/// What a filter of system calls refuses, as every engine's default does, a profile that has the three calls allows.
const ALLOW_IN_CONTAINER: &str =
    "start the container with --security-opt seccomp=tuning/seccomp.json (docker and podman), or run outside of it";
/// A service manager's filter.
const ALLOW_IN_SERVICE: &str = "add SystemCallFilter=io_uring_setup io_uring_enter io_uring_register to the unit \
                                (systemd); in a container: start it with --security-opt seccomp=tuning/seccomp.json";

/// The kernel's version.
pub(super) fn release(host: &Host, rule: &Rule) -> Finding {
    let subject = Subject::of("kernel", rule);
    let Compare::Release(wanted) = &rule.compare else {
        return subject.unseen("no version to compare with".to_owned(), "a version".to_owned(), String::new());
    };
    let required = format!("at least {wanted}");
    let fix = format!("boot Linux {wanted} or newer, such as Debian 12's or later");
    match (host.kernel(), host.release.value()) {
        (Some(version), Some(release)) => {
            subject.seen(release.to_owned(), required, Verdict::good_if(version >= *wanted), || fix)
        }
        _ => subject.unseen("its version cannot be read".to_owned(), required, "uname -r".to_owned()),
    }
}

/// Whether a shard could have its rings.
pub(super) fn ring(host: &Host) -> Finding {
    let subject = Subject { id: "io_uring", severity: Severity::Fatal, why: WHY };
    let required = format!("a ring that can be entered, and {} operations", OPERATIONS.len());
    match &host.uring {
        Uring::Works { missing } if missing.is_empty() => subject.good("works".to_owned(), required),
        Uring::Works { missing } => {
            let current = format!("the kernel does not know {}", missing.join(", "));
            subject.bad(current, required, newer_kernel)
        }
        Uring::Mute { errno } => {
            let current = format!("the kernel does not say what it knows ({})", name(*errno));
            subject.bad(current, required, newer_kernel)
        }
        Uring::Refused { call, errno } => {
            let current = format!("{} is refused with {}", call.name(), name(*errno));
            subject.bad(current, required, || refusal_fix(host, *call, *errno))
        }
    }
}

fn newer_kernel() -> String {
    "boot a newer kernel".to_owned()
}

fn refusal_fix(host: &Host, call: RingCall, errno: i32) -> String {
    let is_old = |version| host.kernel().is_some_and(|kernel| kernel < version);
    match (call, errno) {
        (RingCall::Setup, libc::EPERM | libc::EACCES) => match host.sysctl(DISABLED).value() {
            Some("1") => format!(
                "sysctl -w {DISABLED}=0, or run the gateway in the group that kernel.io_uring_group names (systemd: \
                 SupplementaryGroups=)"
            ),
            Some(value) if value != "0" => format!("sysctl -w {DISABLED}=0"),
            _ => by_a_filter(host),
        },
        (RingCall::Setup, libc::ENOSYS) if is_old(KernelVersion { major: 5, minor: 1 }) => newer_kernel(),
        (RingCall::Setup, libc::ENOSYS) => {
            format!("where a filter says so (seccomp): {}; else boot a kernel with CONFIG_IO_URING", by_a_filter(host))
        }
        // A ring was made: the kernel has them, and somebody stands between.
        (RingCall::Register | RingCall::Enter, libc::EPERM | libc::EACCES | libc::ENOSYS) => by_a_filter(host),
        (_, libc::ENOMEM) if is_old(RINGS_NOT_LOCKED) => {
            "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=): see locked_memory".to_owned()
        }
        (_, libc::ENOMEM) => "free memory, or raise the cgroup's limit: see memory.available".to_owned(),
        (_, libc::EMFILE | libc::ENFILE) => "raise the limit of open files: see descriptors".to_owned(),
        _ => format!("look for the error in {}(2)", call.name()),
    }
}

/// What helps against seccomp.
fn by_a_filter(host: &Host) -> String {
    let fix = if host.is_container { ALLOW_IN_CONTAINER } else { ALLOW_IN_SERVICE };
    format!("a seccomp filter refuses it: {fix}")
}

/// The name by which manuals call an error.
fn name(errno: i32) -> String {
    match nix::errno::Errno::from_i32(errno) {
        nix::errno::Errno::UnknownErrno => format!("error {errno}"),
        known => format!("{known:?}"),
    }
}
