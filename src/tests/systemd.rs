//! The gateway as systemd's service: the tests play systemd with a datagram socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::gateway::{Gateway, PATIENCE, log_in, signal};

/// How long the "systemd" here lets a gateway be silent: pings come every second.
const WATCHDOG_US: &str = "2000000";

/// A datagram socket under an abstract name, as containers have it.
fn abstract_systemd(name: &str) -> (UnixDatagram, String) {
    let name = format!("ringway-test-{}-{name}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, format!("@{name}"))
}

fn received(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).expect("systemd is told something in time");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn next_notice(socket: &UnixDatagram) -> String {
    loop {
        let text = received(socket);
        if text != "WATCHDOG=1" {
            return text;
        }
    }
}

/// Waits until no ping has come for `quiet`.
fn await_silence(socket: &UnixDatagram, quiet: Duration) {
    let until = Instant::now() + PATIENCE;
    socket.set_read_timeout(Some(quiet)).unwrap();
    let mut bytes = [0; 1024];
    while let Ok(length) = socket.recv(&mut bytes) {
        assert_eq!(&bytes[..length], b"WATCHDOG=1");
        assert!(Instant::now() < until, "the watchdog is pinged though a thread stands still");
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// One thread of a process held still, and let go when dropped; the others run on.
struct Held {
    tid: libc::pid_t,
}

impl Held {
    fn thread(pid: u32, name: &str) -> Held {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tid = tasks
            .map(|task| task.unwrap())
            .find(|task| std::fs::read_to_string(task.path().join("comm")).unwrap().trim() == name)
            .unwrap_or_else(|| panic!("the gateway has no thread {name}"))
            .file_name();
        let tid: libc::pid_t = tid.to_str().unwrap().parse().unwrap();
        ptrace(libc::PTRACE_SEIZE, tid);
        ptrace(libc::PTRACE_INTERRUPT, tid);
        let mut status = 0;
        // SAFETY: `status` is valid for writing; the thread is ours to wait for, as it was just seized.
        assert_eq!(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }, tid);
        assert!(libc::WIFSTOPPED(status));
        Held { tid }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ptrace(libc::PTRACE_DETACH, self.tid);
    }
}

fn ptrace(request: libc::c_uint, tid: libc::pid_t) {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests read and write no memory of ours.
    let done = unsafe { libc::ptrace(request, tid, nothing, nothing) };
    assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
}

#[test]
fn ready_is_said_when_clients_are_served_and_stopping_when_they_are_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Gateway::command(dir.path(), &["--shards", "2"]);
    let mut gateway = Gateway::spawn(dir.path(), command.env("NOTIFY_SOCKET", &path));
    let ready = received(&socket);
    assert!(ready.starts_with(&format!("READY=1\nSTATUS=serving on {}", gateway.addr())), "{ready}");
    drop(log_in(gateway.addr(), 1, 1, None).unwrap());

    gateway.terminate();
    let stopping = received(&socket);
    assert!(stopping.starts_with("STOPPING=1\n"), "{stopping}");
    assert!(gateway.wait().success());
    // No WATCHDOG_USEC, no pings.
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 8]).is_err());
}

#[test]
fn a_gateway_that_cannot_start_is_never_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = abstract_systemd("never");
    let first = Gateway::start(dir.path(), &[]);
    let mut command = Gateway::command(dir.path(), &[]);
    let status = command.env("NOTIFY_SOCKET", &name).status().unwrap();
    assert!(!status.success(), "the data directory is taken");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 8]).is_err(), "systemd was told of a gateway that is not there");
    drop(first);
}

#[test]
fn the_watchdog_is_pinged_until_a_shard_or_the_ledger_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = abstract_systemd("watchdog");
    let mut command = Gateway::command(dir.path(), &["--shards", "2"]);
    command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", WATCHDOG_US);
    let mut gateway = Gateway::spawn(dir.path(), &mut command);
    assert!(next_notice(&socket).starts_with("READY=1\n"));
    for thread in ["shard-1", "ledger"] {
        for _ in 0..3 {
            assert_eq!(received(&socket), "WATCHDOG=1");
        }
        let held = Held::thread(gateway.pid(), thread);
        // Longer than systemd would wait: it would have killed the gateway by then.
        await_silence(&socket, Duration::from_micros(WATCHDOG_US.parse().unwrap()));
        let words = if thread == "ledger" { "the ledger has not reported" } else { "shard 1 has not reported" };
        for page in ["/readyz", "/healthz"] {
            let said = gateway.admin_page(page);
            assert!(said.contains("503") && said.contains(words), "{page}: {said}");
        }
        assert!(gateway.log().contains(words), "{}", gateway.log());
        drop(held);
        assert_eq!(received(&socket), "WATCHDOG=1", "it lives again");
        assert!(gateway.admin_page("/healthz").contains("200"), "and is well");
    }
    // A drain is systemd's TimeoutStopSec's, not the watchdog's: the pings do not end before it does.
    signal(gateway.pid(), Signal::SIGTERM).unwrap();
    assert!(next_notice(&socket).starts_with("STOPPING=1\n"));
    assert!(gateway.wait().success());
}

#[test]
fn a_systemd_that_is_not_there_does_not_keep_the_gateway_from_serving() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &[]);
    command.env("NOTIFY_SOCKET", "/nobody/is/here").env("WATCHDOG_USEC", WATCHDOG_US);
    let gateway = Gateway::spawn(dir.path(), &mut command);
    drop(gateway.client(1, 1, None));
    let log = gateway.log();
    assert!(log.contains("systemd is told nothing") && log.contains("/nobody/is/here"), "{log}");
}
