#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn environment(socket: &str, watchdog_us: Option<&str>, watchdog_pid: Option<&str>) -> Environment {
    Environment {
        socket: Some(socket.into()),
        watchdog_us: watchdog_us.map(Into::into),
        watchdog_pid: watchdog_pid.map(Into::into),
    }
}

/// A socket that plays systemd, and its name as the environment has it.
fn systemd() -> (tempfile::TempDir, UnixDatagram, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    (dir, socket, path.to_str().unwrap().to_owned())
}

fn received(socket: &UnixDatagram) -> Option<String> {
    let mut bytes = [0; 512];
    let length = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn without_a_socket_nothing_is_said_and_nothing_fails() {
    let notices = Notices::new(&Environment::default()).unwrap();
    notices.ready("serving");
    let only_time = Environment { watchdog_us: Some("1000".into()), ..Environment::default() };
    assert!(Watchdog::new(&only_time, 1).unwrap().is_none());
}

#[test]
fn a_name_that_is_no_address_is_refused_with_what_was_expected() {
    for name in ["", "notify", "@", "vsock:2:1"] {
        let error = Notices::new(&environment(name, None, None)).unwrap_err();
        assert!(matches!(error, SystemdError::Address(_)), "{name}: {error}");
        assert!(error.to_string().contains("expected"), "{error}");
    }
    let nobody = Notices::new(&environment("/nobody/is/here", None, None)).unwrap_err();
    assert!(matches!(nobody, SystemdError::Socket(..)), "{nobody}");
}

#[test]
fn notices_are_one_datagram_each() {
    let (_dir, socket, name) = systemd();
    let notices = Notices::new(&environment(&name, None, None)).unwrap();
    notices.ready("serving");
    notices.stopping("draining");
    assert_eq!(received(&socket).unwrap(), "READY=1\nSTATUS=serving");
    assert_eq!(received(&socket).unwrap(), "STOPPING=1\nSTATUS=draining");
    assert_eq!(received(&socket), None);
}

#[test]
fn a_watchdog_for_another_process_or_with_no_time_is_none() {
    let (_dir, _socket, name) = systemd();
    runtime().block_on(async {
        assert!(Watchdog::new(&environment(&name, Some("5000"), Some("7")), 8).unwrap().is_none());
        assert!(Watchdog::new(&environment(&name, None, Some("8")), 8).unwrap().is_none());
        assert!(Watchdog::new(&environment(&name, Some("5000"), Some("8")), 8).unwrap().is_some());
        assert!(Watchdog::new(&environment(&name, Some("5000"), None), 8).unwrap().is_some());
        for wrong in ["0", "soon", "-1", ""] {
            let error = Watchdog::new(&environment(&name, Some(wrong), None), 8).unwrap_err();
            assert!(matches!(error, SystemdError::Interval(_)), "{wrong}: {error}");
        }
    });
}

#[test]
fn a_ping_is_withheld_while_somebody_is_silent() {
    let (_dir, socket, name) = systemd();
    runtime().block_on(async {
        let mut watchdog = Watchdog::new(&environment(&name, Some("2000"), None), 1).unwrap();
        Watchdog::due(&mut watchdog).await;
        let mut watchdog = watchdog.unwrap();
        watchdog.ping_unless(&[]);
        assert_eq!(received(&socket).unwrap(), "WATCHDOG=1");
        watchdog.ping_unless(&["shard 1 has not reported".to_owned()]);
        assert_eq!(received(&socket), None);
        watchdog.ping_unless(&[]);
        assert_eq!(received(&socket).unwrap(), "WATCHDOG=1");
    });
}

#[test]
fn a_watchdog_whose_systemd_does_not_read_waits_for_nobody() {
    let (_dir, _socket, name) = systemd();
    runtime().block_on(async {
        let mut watchdog = Watchdog::new(&environment(&name, Some("2000"), None), 1).unwrap().unwrap();
        // Far more than a datagram socket's queue takes: it would never come back if it waited.
        for _ in 0..10_000 {
            watchdog.ping_unless(&[]);
        }
    });
}
