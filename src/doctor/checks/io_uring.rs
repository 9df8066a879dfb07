//! The kernel and its io_uring.

use super::Subject;
use crate::doctor::host::{Host, KernelVersion};
use crate::doctor::uring::{OPERATIONS, Uring};
use crate::doctor::values::{Compare, Rule};
use crate::doctor::{Finding, Severity};

const DISABLED: &str = "kernel.io_uring_disabled";
const WHY: &str = "every shard is an io_uring loop";
/// The first version that counts rings as the cgroup's memory and no longer as locked memory.
pub const RINGS_NOT_LOCKED: KernelVersion = KernelVersion { major: 5, minor: 12 };
const ALLOW_IN_CONTAINER: &str = "start the container with a seccomp profile that allows io_uring_setup, io_uring_enter \
                                  and io_uring_register (docker run --security-opt seccomp=FILE), or run outside of it";

/// The kernel's version.
pub fn release(host: &Host, rule: &Rule) -> Finding {
    let subject = Subject::of("kernel", rule);
    let Compare::Release(wanted) = &rule.compare else {
        return subject.unseen("no version to compare with".to_owned(), "a version".to_owned(), String::new());
    };
    let required = format!("at least {wanted}");
    let fix = format!("boot Linux {wanted} or newer, such as Debian 12's or later");
    match (host.kernel(), host.release.value()) {
        (Some(version), Some(release)) => subject.seen(release.to_owned(), required, version >= *wanted, || fix),
        _ => subject.unseen("its version cannot be read".to_owned(), required, "uname -r".to_owned()),
    }
}

/// Whether a shard could have its rings.
pub fn ring(host: &Host) -> Finding {
    let subject = Subject { id: "io_uring", severity: Severity::Fatal, why: WHY };
    let required = format!("a ring, and {} operations", OPERATIONS.len());
    match &host.uring {
        Uring::Works { missing } if missing.is_empty() => subject.seen("works".to_owned(), required, true, String::new),
        Uring::Works { missing } => {
            let current = format!("the kernel does not know {}", missing.join(", "));
            subject.seen(current, required, false, newer_kernel)
        }
        Uring::Mute { errno } => {
            let current = format!("the kernel does not say what it knows ({})", name(*errno));
            subject.seen(current, required, false, newer_kernel)
        }
        Uring::Refused { errno } => {
            let current = format!("refused with {}", name(*errno));
            subject.seen(current, required, false, || refusal_fix(host, *errno))
        }
    }
}

fn newer_kernel() -> String {
    "boot a newer kernel".to_owned()
}

fn refusal_fix(host: &Host, errno: i32) -> String {
    let disabled = host.sysctl(DISABLED).value().is_some_and(|value| value != "0");
    match errno {
        libc::EPERM | libc::EACCES if disabled => format!("sysctl -w {DISABLED}=0"),
        libc::EPERM | libc::EACCES => ALLOW_IN_CONTAINER.to_owned(),
        libc::ENOSYS if host.kernel() < Some(KernelVersion { major: 5, minor: 1 }) => newer_kernel(),
        libc::ENOSYS => format!("boot a kernel built with CONFIG_IO_URING; in a container: {ALLOW_IN_CONTAINER}"),
        libc::ENOMEM if host.kernel() < Some(RINGS_NOT_LOCKED) => {
            "raise the limit of locked memory: see locked_memory".to_owned()
        }
        libc::ENOMEM => "free memory, or raise the cgroup's limit: see memory.available".to_owned(),
        libc::EMFILE | libc::ENFILE => "raise the limit of open files: see descriptors".to_owned(),
        _ => "look for the error in io_uring_setup(2)".to_owned(),
    }
}

/// The name by which manuals call an error.
fn name(errno: i32) -> String {
    match nix::errno::Errno::from_i32(errno) {
        nix::errno::Errno::UnknownErrno => format!("error {errno}"),
        known => format!("{known:?}"),
    }
}
