//! A gateway process of our own, for the time of a bench, and what the kernel says about it.
//!
//! What always holds: the process is stopped when this is dropped, and its data directory removed unless it was
//! asked to be kept. It leaves out everything the gateway itself could tell: its figures come from the kernel.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use super::error::LoadError;
use super::tokens::Secret;
use crate::clock::Clock;

const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const LOG_TAIL_LINES: usize = 12;
/// Where FHS promises that files outlive a reboot, hence a disk: on a RAM disk `fdatasync` costs nothing.
const DISK_TEMP: &str = "/var/tmp";

/// How a gateway of our own is to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct GatewayOptions {
    /// `--shards`, if given.
    pub shards: Option<String>,
    /// `--cpus`: the CPUs it may use; `None`: all.
    pub cpus: Option<String>,
    /// `store.url`, if given.
    pub store: Option<String>,
    /// `cluster.redis_url` and `cluster.node_id`, if it is one of several.
    pub cluster: Option<(String, u16)>,
    /// What it verifies tokens with; `None`: it makes a secret for itself.
    pub secret: Option<String>,
    /// Keep the data directory afterwards, and say where it is.
    pub keep_data: bool,
    /// What one account may send.
    pub account_limits: AccountLimits,
}

/// What one account may send to a gateway of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum AccountLimits {
    /// As much as by default.
    #[default]
    Usual,
    /// Whatever it can.
    Off,
}

/// The keys of these limits, as environment variables.
const ACCOUNT_LIMITS: [&str; 17] = [
    "RINGWAY_LIMITS_ADDRESS_LOGINS",
    "RINGWAY_LIMITS_USER_LOGINS",
    "RINGWAY_LIMITS_SESSION_REQUESTS",
    "RINGWAY_LIMITS_USER_REFUSALS",
    "RINGWAY_LIMITS_USER_BYTES_OUT",
    "RINGWAY_LIMITS_USER_PRESENCE",
    "RINGWAY_LIMITS_SESSION_SENDS",
    "RINGWAY_LIMITS_SESSION_BYTES",
    "RINGWAY_LIMITS_USER_SENDS",
    "RINGWAY_LIMITS_USER_BYTES",
    "RINGWAY_LIMITS_CONVERSATION_BYTES",
    "RINGWAY_LIMITS_USER_ROWS",
    "RINGWAY_LIMITS_USER_GROUPS_MADE",
    "RINGWAY_LIMITS_USER_MEMBERS_ADDED",
    "RINGWAY_LIMITS_USER_RECIPIENTS_NEW",
    "RINGWAY_LIMITS_GROUP_SENDS",
    "RINGWAY_LIMITS_GROUP_ROWS",
];

/// A running gateway that this process started.
pub(crate) struct Gateway {
    child: Child,
    data: Option<tempfile::TempDir>,
    data_dir: PathBuf,
    addr: SocketAddr,
    cpu: ClockId,
    clock: Clock,
}

impl Gateway {
    /// Starts one on a port the kernel chooses and waits until it listens.
    pub(crate) fn start(options: &GatewayOptions) -> Result<Gateway, LoadError> {
        let mut data = tempfile::Builder::new()
            .prefix("ringway-bench-")
            .tempdir_in(data_base())
            .map_err(LoadError::io("no temporary directory can be made for the gateway's data"))?;
        data.disable_cleanup(options.keep_data);
        let data_dir = data.path().to_owned();
        let child = spawn(options, &data_dir)?;
        let cpu = clock_getcpuclockid(Pid::from_raw(child.id() as i32))
            .map_err(|e| LoadError::Io { what: "the gateway's CPU clock cannot be read", source: e.into() })?;
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Gateway { child, data: Some(data), data_dir, addr, cpu, clock: Clock::start() };
        gateway.addr = gateway.wait_until_it_listens()?;
        Ok(gateway)
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its store's file.
    pub(crate) fn store_file(&self) -> PathBuf {
        self.data_dir.join("store.sqlite")
    }

    /// The secret it made for itself.
    pub(crate) fn secret(&self) -> Result<Secret, LoadError> {
        read_secret(&self.data_dir)
    }

    /// CPU time of all its threads so far, user and system, nanoseconds.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.cpu.now().map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
    }

    /// Its resident memory, bytes; 0 if it is gone.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }

    /// Of that, what is its own: not what it has of files, which the kernel takes back when it needs room.
    pub(crate) fn own_bytes(&self) -> u64 {
        memory_bytes(self.child.id(), "Anonymous:")
    }

    /// Tells it to stop, waits, and says whether it ended with 0.
    pub(crate) fn stop(mut self) -> Result<bool, LoadError> {
        let ended = self.end();
        if let Some(data) = self.data.take().filter(|d| d.path().is_dir()) {
            drop(data);
        }
        ended
    }

    fn end(&mut self) -> Result<bool, LoadError> {
        // A process that is gone already is waited for all the same.
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).ok();
        let start_ns = self.clock.mono_ns();
        loop {
            let waited = self.child.try_wait().map_err(LoadError::io("waiting for the gateway failed"))?;
            if let Some(status) = waited {
                return Ok(status.success());
            }
            if self.clock.mono_ns() - start_ns > STOP_PATIENCE.as_nanos() as u64 {
                self.child.kill().map_err(LoadError::io("the gateway cannot be stopped"))?;
                self.child.wait().map_err(LoadError::io("waiting for the gateway failed"))?;
                return Ok(false);
            }
            pause(Duration::from_millis(2));
        }
    }

    fn wait_until_it_listens(&mut self) -> Result<SocketAddr, LoadError> {
        let start_ns = self.clock.mono_ns();
        loop {
            if let Some(addr) = listen_address(&self.data_dir) {
                return Ok(addr);
            }
            let ended = self.child.try_wait().map_err(LoadError::io("waiting for the gateway failed"))?;
            if ended.is_some() || self.clock.mono_ns() - start_ns > START_PATIENCE.as_nanos() as u64 {
                let log = log_path(&self.data_dir);
                let text = fs::read_to_string(&log).unwrap_or_default();
                let from = text.lines().count().saturating_sub(LOG_TAIL_LINES);
                let tail = text.lines().skip(from).collect::<Vec<_>>().join("\n");
                return Err(LoadError::NotReady { log, tail });
            }
            pause(Duration::from_millis(2));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.data.is_some() {
            // After `stop` there is nothing left to end; here an error came before it.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// The secret in a gateway's data directory.
pub(crate) fn read_secret(data_dir: &Path) -> Result<Secret, LoadError> {
    let path = data_dir.join("secret");
    let text = fs::read(path).map_err(LoadError::io(
        "the gateway's secret cannot be read: give its data directory with --data-dir, or a secret with --secret-file",
    ))?;
    Ok(Secret(text.trim_ascii_end().to_vec()))
}

/// Where the gateway of a data directory listens, if it runs.
pub(crate) fn listen_address(data_dir: &Path) -> Option<SocketAddr> {
    written_address(data_dir, "listen")
}

/// An address that a gateway has written into its data directory: `listen` or `admin`.
pub(crate) fn written_address(data_dir: &Path, name: &str) -> Option<SocketAddr> {
    fs::read_to_string(data_dir.join(name)).ok()?.trim().parse().ok()
}

/// A process's resident memory, bytes; 0 if it cannot be read.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    memory_bytes(pid, "Rss:")
}

/// One of the kernel's sums over a process's memory, bytes.
fn memory_bytes(pid: u32, name: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let sum = rollup.lines().find_map(|line| line.strip_prefix(name));
    sum.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Where gateways that are started for a bench have their data: on a disk, if there is one.
pub(crate) fn data_base() -> PathBuf {
    if Path::new(DISK_TEMP).is_dir() { PathBuf::from(DISK_TEMP) } else { std::env::temp_dir() }
}

/// Lets a moment pass.
pub(crate) fn pause(time: Duration) {
    crossbeam_channel::never::<()>().recv_timeout(time).ok();
}

fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("gateway.log")
}

fn spawn(options: &GatewayOptions, data_dir: &Path) -> Result<Child, LoadError> {
    let exe = std::env::current_exe().map_err(LoadError::io("this program's own path is not known"))?;
    let log = File::create(log_path(data_dir)).map_err(LoadError::io("the gateway's log cannot be made"))?;
    let errors = log.try_clone().map_err(LoadError::io("the gateway's log cannot be made"))?;
    let mut command = Command::new(exe);
    command.arg("serve").args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    if let Some(shards) = &options.shards {
        command.args([OsString::from("--shards"), shards.into()]);
    }
    if let Some(cpus) = &options.cpus {
        command.args([OsString::from("--cpus"), cpus.into()]);
    }
    // What configures an operator's gateway must not change what is measured.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGWAY_")) {
        command.env_remove(name);
    }
    if options.account_limits == AccountLimits::Off {
        command.envs(ACCOUNT_LIMITS.map(|name| (name, "off")));
    }
    if let Some(url) = &options.store {
        // Not on its command line, which everybody on the machine may read: it can have a password.
        command.env("RINGWAY_STORE_URL", url);
    }
    if let Some((url, node)) = &options.cluster {
        command.env("RINGWAY_CLUSTER_REDIS_URL", url).env("RINGWAY_CLUSTER_NODE_ID", node.to_string());
    }
    if let Some(secret) = &options.secret {
        command.env("RINGWAY_AUTH_HS256_SECRET", secret);
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one prctl.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into));
    }
    command.spawn().map_err(LoadError::io("the gateway cannot be started"))
}
