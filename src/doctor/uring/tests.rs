#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::*;

/// What the probe says on a thread that may not make one call. The filter goes with the thread.
fn probed_without(call: i64, errno: i32) -> Uring {
    let probed = std::thread::spawn(move || {
        let (allowed, refused) = (SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()));
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new([(call, Vec::new())].into(), allowed, refused, arch).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        probe()
    });
    probed.join().unwrap()
}

#[test]
fn each_call_that_a_filter_refuses_is_named() {
    for (number, call) in [
        (libc::SYS_io_uring_setup, RingCall::Setup),
        (libc::SYS_io_uring_register, RingCall::Register),
        (libc::SYS_io_uring_enter, RingCall::Enter),
    ] {
        for errno in [libc::EPERM, libc::ENOSYS] {
            assert_eq!(probed_without(number, errno), Uring::Refused { call, errno });
        }
    }
}

#[test]
fn a_call_that_no_shard_makes_may_be_refused() {
    assert_eq!(probed_without(libc::SYS_acct, libc::EPERM), Uring::Works { missing: Vec::new() });
}
