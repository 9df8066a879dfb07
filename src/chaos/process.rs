//! A server's process in its namespace.
//!
//! Owned by the driver. What always holds: `ip netns exec` and the scripts become the server itself, so the process that
//! was started is the one that is killed.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Failure;
use crate::network::Host;
use crate::plan::START_PATIENCE;

/// How a process that nobody killed has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal, which is a crash.
    Crash(i32),
}

/// A server.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) host: Host,
    words: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// One that is not started yet: `words` is its command line.
    pub(crate) fn new(name: &str, host: Host, log: PathBuf, words: Vec<String>) -> Process {
        Process { name: name.to_owned(), host, words, environment: Vec::new(), log, child: None }
    }

    /// With this in its environment.
    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Process {
        self.environment.push((key.to_owned(), value.into()));
        self
    }

    /// Starts it, for the first time or again.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        let open = || OpenOptions::new().create(true).append(true).open(&self.log);
        let log = |opened: std::io::Result<File>| opened.map_err(|error| Failure::io(&self.log, error));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host.namespace()]).args(&self.words);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(log(open())?).stderr(log(open())?);
        let child = command.spawn();
        let failed =
            |error: std::io::Error| Failure::Command { command: self.words.join(" "), said: error.to_string() };
        self.child = Some(child.map_err(failed)?);
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// A signal; nothing if it does not run.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill(Pid::from_raw(child.id() as i32), signal).ok();
        }
    }

    /// How it has ended, if it has by itself.
    pub(crate) fn ended(&mut self) -> Option<End> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(match status.signal() {
            Some(signal) => End::Crash(signal),
            None => End::Code(status.code().unwrap_or(-1)),
        })
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of that.
    pub(crate) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that was waited for in vain.
pub(crate) fn did_not_start(process: &Process) -> Failure {
    let patience_s = START_PATIENCE.as_secs();
    Failure::Start { name: process.name.clone(), patience_s, log: process.log_end() }
}

/// A command line.
pub(crate) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}
