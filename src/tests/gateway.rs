//! A real gateway as a child process, for the end-to-end tests.
//!
//! Owned by the test that started it. What always holds: a `Gateway` that is dropped leaves no process behind.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringway::auth::mint_hs256;
use ringway_wire::ids::{DeviceId, Seq, UserId};

use crate::connection::{Connection, ConnectionError};

/// The secret that every test gateway is given.
pub(crate) const SECRET: &str = "an end-to-end test's secret, 32 bytes or more";
/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a gateway that runs may take to give its metrics.
const METRICS_PATIENCE: Duration = Duration::from_secs(60);

/// For a gateway whose test sends more than an account may: what one may send is not limited.
pub(crate) const UNLIMITED: [(&str, &str); 18] = [
    ("RINGWAY_LIMITS_ADDRESS_LOGINS", "off"),
    ("RINGWAY_LIMITS_USER_LOGINS", "off"),
    ("RINGWAY_LIMITS_SESSION_REQUESTS", "off"),
    ("RINGWAY_LIMITS_USER_REFUSALS", "off"),
    ("RINGWAY_LIMITS_USER_BYTES_OUT", "off"),
    ("RINGWAY_LIMITS_USER_PRESENCE", "off"),
    ("RINGWAY_LIMITS_SESSION_SENDS", "off"),
    ("RINGWAY_LIMITS_SESSION_BYTES", "off"),
    ("RINGWAY_LIMITS_USER_SENDS", "off"),
    ("RINGWAY_LIMITS_USER_BYTES", "off"),
    ("RINGWAY_LIMITS_CONVERSATION_BYTES", "off"),
    ("RINGWAY_LIMITS_USER_ROWS", "off"),
    ("RINGWAY_LIMITS_USER_GROUPS_MADE", "off"),
    ("RINGWAY_LIMITS_USER_MEMBERS_ADDED", "off"),
    ("RINGWAY_LIMITS_USER_RECIPIENTS_NEW", "off"),
    ("RINGWAY_LIMITS_USER_UNSTORED_PERCENT", "100"),
    ("RINGWAY_LIMITS_GROUP_SENDS", "off"),
    ("RINGWAY_LIMITS_GROUP_ROWS", "off"),
];

/// A running gateway.
pub(crate) struct Gateway {
    child: Child,
    data_dir: PathBuf,
}

impl Gateway {
    /// The command line of a gateway on ports of its own choice, its log in `<data_dir>/gateway.log`.
    pub(crate) fn command(data_dir: &Path, arguments: &[&str]) -> Command {
        Gateway::command_on("127.0.0.1:0", data_dir, arguments)
    }

    /// The same, to listen on an address that the test has chosen.
    pub(crate) fn command_on(listen: &str, data_dir: &Path, arguments: &[&str]) -> Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log_path(data_dir)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command
            .args(["serve", "--listen", listen, "--admin", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .env("RINGWAY_AUTH_HS256_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log));
        command
    }

    /// The same command line, run by another program that takes it as its last arguments.
    pub(crate) fn command_under(program: &str, options: &[&str], data_dir: &Path, arguments: &[&str]) -> Command {
        let plain = Gateway::command(data_dir, arguments);
        let log = std::fs::OpenOptions::new().append(true).open(log_path(data_dir)).unwrap();
        let mut command = Command::new(program);
        command
            .args(options)
            .arg(plain.get_program())
            .args(plain.get_args())
            .env("RINGWAY_AUTH_HS256_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log));
        command
    }

    /// Starts a gateway and waits until it listens.
    pub(crate) fn start(data_dir: &Path, arguments: &[&str]) -> Gateway {
        Gateway::spawn(data_dir, &mut Gateway::command(data_dir, arguments))
    }

    /// Starts what `command` says and waits until it listens.
    pub(crate) fn spawn(data_dir: &Path, command: &mut Command) -> Gateway {
        for name in ["listen", "admin"] {
            match std::fs::remove_file(data_dir.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
        let mut gateway = Gateway { child: command.spawn().unwrap(), data_dir: data_dir.to_owned() };
        gateway.wait_until("the gateway listens", |gateway| {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("the gateway ended with {status}:\n{}", gateway.log());
            }
            address(&gateway.data_dir, "listen").is_some() && address(&gateway.data_dir, "admin").is_some()
        });
        gateway
    }

    /// Polls until `done`, at most [`PATIENCE`].
    pub(crate) fn wait_until(&mut self, what: &str, mut done: impl FnMut(&mut Gateway) -> bool) {
        let polls = PATIENCE.as_millis() / 5;
        for _ in 0..polls {
            if done(self) {
                return;
            }
            pause(Duration::from_millis(5));
        }
        panic!("waited in vain until {what}; the gateway's log:\n{}", self.log());
    }

    /// Where clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        address(&self.data_dir, "listen").unwrap()
    }

    /// The processes that the process started: the gateway itself, where it runs under another program.
    pub(crate) fn children(&self) -> Vec<u32> {
        let listed = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap_or_default();
        listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far, over all starts on this directory.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.data_dir)).unwrap_or_default()
    }

    /// It has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Whether the gateway has found a mistake of its own so far: in the metrics, or in what it logs at its end.
    fn assert_no_internal_errors(&self) {
        if let Some(page) = self.metrics_if_running() {
            let counted = page.lines().filter(|line| line.starts_with("ringway_internal_errors_total{"));
            let errors: Vec<&str> = counted.filter(|line| !line.ends_with(" 0")).collect();
            assert!(errors.is_empty(), "internal errors: {errors:?}\n{}", self.log());
        }
        let log = self.log();
        let said: Vec<&str> = log.lines().filter(|line| line.contains("internal error:")).collect();
        assert!(said.is_empty(), "internal errors in the log: {said:?}");
    }

    /// The metrics, which must come as long as the process runs and says where it gives them; `None`: it does not.
    fn metrics_if_running(&self) -> Option<String> {
        let deadline = Instant::now() + METRICS_PATIENCE;
        while self.is_running() && self.is_reachable() && address(&self.data_dir, "admin").is_some() {
            let page = self.try_admin_page("/metrics", PATIENCE / 6);
            match page {
                Ok(page) if page.starts_with("HTTP/1.1 200") && page.contains("ringway_internal_errors_total{") => {
                    return Some(page);
                }
                // It may be ending just now: that is looked at again.
                _ if Instant::now() < deadline => pause(Duration::from_millis(20)),
                page => panic!("the gateway runs and gives no metrics: {page:?}\n{}", self.log()),
            }
        }
        None
    }

    /// Its addresses are this process's too: some tests give a gateway a network of its own.
    fn is_reachable(&self) -> bool {
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        network(&self.pid().to_string()) == network("self")
    }

    /// The process has neither ended nor been stopped.
    fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // Behind the program's name, which may have any characters.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        state.is_some_and(|state| !['Z', 'X', 'T', 't'].contains(&state))
    }

    /// SIGKILL, now.
    pub(crate) fn kill(mut self) {
        self.assert_no_internal_errors();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.assert_no_internal_errors();
        signal(self.pid(), Signal::SIGTERM).unwrap();
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        self.wait_until("the gateway has ended", |gateway| {
            status = gateway.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// The memory that the process itself holds, in bytes: without the pages of files it has mapped.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// A client that has logged in.
    pub(crate) fn client(&self, user: u64, device: u64, last_seq: Option<Seq>) -> Connection {
        log_in(self.addr(), user, device, last_seq).unwrap()
    }

    /// A client that has logged in, after something that the gateway needs was away: as long as it is told when to
    /// come back it does, as clients do.
    pub(crate) fn returning_client(&self, user: u64, device: u64, last_seq: Option<Seq>) -> Connection {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match log_in(self.addr(), user, device, last_seq) {
                Ok(client) => return client,
                Err(ConnectionError::Closing { reconnect_after_ms: Some(wait_ms), .. })
                    if Instant::now() < deadline =>
                {
                    pause(Duration::from_millis(wait_ms.into()));
                }
                Err(error) => panic!("{error}\n{}", self.log()),
            }
        }
    }

    /// The body of an admin page, with its status line first.
    pub(crate) fn admin_page(&self, path: &str) -> String {
        self.try_admin_page(path, PATIENCE).unwrap()
    }

    /// The same where perhaps nobody answers any more.
    fn try_admin_page(&self, path: &str, patience: Duration) -> std::io::Result<String> {
        use std::io::{Error, Read, Write};
        let admin = address(&self.data_dir, "admin").ok_or_else(|| Error::other("it does not listen"))?;
        let mut stream = std::net::TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let looked = match std::thread::panicking() {
            true => Ok(()),
            false => catch_unwind(AssertUnwindSafe(|| self.assert_no_internal_errors())),
        };
        if matches!(self.child.try_wait(), Ok(None)) {
            // Those first: a program that is killed need not take them along.
            for child in self.children() {
                drop(signal(child, Signal::SIGKILL));
            }
            drop(self.child.kill());
            drop(self.child.wait());
        }
        // Whatever was found, no process is left behind.
        looked.unwrap_or_else(|found| resume_unwind(found));
    }
}

/// Sends a signal to a process that a test started.
pub(crate) fn signal(pid: u32, signal: Signal) -> std::io::Result<()> {
    Ok(kill(Pid::from_raw(pid.try_into().unwrap()), signal)?)
}

/// Connects and logs in.
pub(crate) fn log_in(
    addr: SocketAddr,
    user: u64,
    device: u64,
    last_seq: Option<Seq>,
) -> Result<Connection, ConnectionError> {
    let mut client = Connection::connect(addr, PATIENCE)?;
    client.login(&token(user, device), DeviceId(device), last_seq, PATIENCE)?;
    Ok(client)
}

/// A token that is good for an hour.
pub(crate) fn token(user: u64, device: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    mint_hs256(SECRET.as_bytes(), UserId(user), Some(DeviceId(device)), now + 3_600)
}

/// The address in `<data_dir>/<name>`, if it has been written.
pub(crate) fn address(data_dir: &Path, name: &str) -> Option<SocketAddr> {
    std::fs::read_to_string(data_dir.join(name)).ok()?.trim().parse().ok()
}

/// Lets time pass: between kills, and between two looks at something that will happen.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("gateway.log")
}
