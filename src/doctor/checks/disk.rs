//! The disk under the data directory. It is not written to: how fast it syncs is for `ringway bench` to say.

use super::{BYTES_PER_MIB, Subject};
use crate::doctor::host::Host;
use crate::doctor::{Finding, Need, Severity, Verdict};
use crate::limits::{SEGMENT_BYTES, WINDOW_SEGMENTS_MAX};

/// What a start takes: a segment is preallocated whole, and the store wants some room beside it.
const START_BYTES: u64 = SEGMENT_BYTES * 2;
/// Gone with the machine's memory.
const VOLATILE: [&str; 4] = ["tmpfs", "ramfs", "rootfs", "devtmpfs"];
/// Gone with the container.
const LAYERED: [&str; 3] = ["overlay", "aufs", "overlayfs"];
/// Somebody else's disk.
const REMOTE: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"];

/// Room for the journal.
pub(super) fn free(host: &Host, need: &Need<'_>) -> Finding {
    let wanted = need.journal_bytes_max + WINDOW_SEGMENTS_MAX as u64 * SEGMENT_BYTES;
    let required = |bytes: u64| format!("at least {} MiB", bytes.div_ceil(BYTES_PER_MIB));
    let why = "the journal may grow to limits.journal_bytes_max before senders are refused";
    let subject = Subject { id: "disk_free", severity: Severity::Warning, why };
    let free = match &host.disk.free_bytes {
        Ok(free) => *free,
        Err(error) => {
            return subject.unseen(error.clone(), required(wanted), format!("df {}", host.disk.directory));
        }
    };
    let current = format!("{} MiB in {}", free / BYTES_PER_MIB, host.disk.directory);
    let fix = || {
        format!(
            "make room in {}, set --data-dir, or lower limits.journal_bytes_max ({})",
            host.disk.directory, need.journal_bytes_max
        )
    };
    match free < START_BYTES {
        true => Subject { severity: Severity::Fatal, why: "a start preallocates a segment of the journal", ..subject }
            .bad(current, required(START_BYTES), fix),
        false => subject.seen(current, required(wanted), Verdict::good_if(free >= wanted), fix),
    }
}

/// What kind of file system it is.
pub(super) fn file_system(host: &Host) -> Finding {
    let subject = |why| Subject { id: "file_system", severity: Severity::Warning, why };
    let required = "on a disk of this machine".to_owned();
    let lasting = "what is acked must outlive the process and the machine's power";
    let Some(kind) = host.file_system.as_deref() else {
        let fix = format!("df -T {}", host.disk.directory);
        return subject(lasting).unseen("not told by /proc/self/mountinfo".to_owned(), required, fix);
    };
    let (good, why) = match kind {
        _ if VOLATILE.contains(&kind) => (false, "it is gone with the power, and everything acked with it"),
        _ if LAYERED.contains(&kind) => (false, "it is gone with the container, and everything acked with it"),
        _ if REMOTE.contains(&kind) => (false, "every message waits for a sync over the network"),
        _ => (true, lasting),
    };
    let fix = || format!("--data-dir on a disk, or mount one at {}", host.disk.directory);
    subject(why).seen(kind.to_owned(), required, Verdict::good_if(good), fix)
}
