//! Telling systemd: that the gateway listens, that it stops, and again and again that it lives.
//!
//! The protocol is sd_notify's: datagrams of `KEY=value` lines to the socket that the environment names. [`Notices`]
//! is the main thread's, [`Watchdog`] control's. What always holds: without `NOTIFY_SOCKET` nothing is sent, and what
//! cannot be sent is logged and changes nothing else. It is not a crate's, because what there is waits when systemd does not
//! read, and control's thread waits for nobody.

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

/// How long a notice may wait for room in systemd's socket.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why systemd cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemdError {
    /// No address that Linux has.
    #[error("NOTIFY_SOCKET is `{}`: expected a path that begins with / or an abstract name that begins with @", .0.display())]
    Address(OsString),
    /// Nobody there.
    #[error("NOTIFY_SOCKET `{}` cannot be used", .0.display())]
    Socket(OsString, #[source] io::Error),
    /// No time.
    #[error("WATCHDOG_USEC is `{}`: expected microseconds, at least 1", .0.display())]
    Interval(OsString),
}

/// What systemd put into the environment.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Environment {
    /// `NOTIFY_SOCKET`.
    pub(crate) socket: Option<OsString>,
    /// `WATCHDOG_USEC`.
    pub(crate) watchdog_us: Option<OsString>,
    /// `WATCHDOG_PID`: for whom the watchdog is, if it is not for everybody.
    pub(crate) watchdog_pid: Option<OsString>,
}

impl Environment {
    /// This process's.
    pub(crate) fn of_process() -> Environment {
        Environment {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_us: std::env::var_os("WATCHDOG_USEC"),
            watchdog_pid: std::env::var_os("WATCHDOG_PID"),
        }
    }
}

/// What is said once: ready, stopping.
#[derive(Debug)]
pub(crate) struct Notices {
    socket: Option<UnixDatagram>,
}

impl Notices {
    /// To whom the environment says.
    pub(crate) fn new(environment: &Environment) -> Result<Notices, SystemdError> {
        let Some(name) = &environment.socket else { return Ok(Notices::none()) };
        let socket = connected(name)?;
        socket.set_write_timeout(Some(NOTICE_TIMEOUT)).map_err(|source| SystemdError::Socket(name.clone(), source))?;
        Ok(Notices { socket: Some(socket) })
    }

    /// To nobody.
    pub(crate) fn none() -> Notices {
        Notices { socket: None }
    }

    /// Clients are served.
    pub(crate) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// Clients are sent away.
    pub(crate) fn stopping(&self, status: &str) {
        self.say(&format!("STOPPING=1\nSTATUS={status}"));
    }

    fn say(&self, lines: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(lines.as_bytes())
        {
            tracing::warn!(%error, notice = lines, "systemd was not told");
        }
    }
}

/// Says that the process lives, twice in the time that systemd waits.
#[derive(Debug)]
pub(crate) struct Watchdog {
    socket: UnixDatagram,
    every: Interval,
    withheld: bool,
}

impl Watchdog {
    /// The one that the environment asks of process `pid`, if it does. Must be called on a tokio runtime.
    pub(crate) fn new(environment: &Environment, pid: u32) -> Result<Option<Watchdog>, SystemdError> {
        let (Some(name), Some(us)) = (&environment.socket, &environment.watchdog_us) else { return Ok(None) };
        if environment.watchdog_pid.as_ref().is_some_and(|wanted| wanted.as_os_str() != OsStr::new(&pid.to_string())) {
            return Ok(None);
        }
        let every = us.to_str().and_then(|us| us.parse::<u64>().ok()).filter(|us| *us > 0);
        let every = Duration::from_micros(every.ok_or_else(|| SystemdError::Interval(us.clone()))?) / 2;
        let socket = connected(name)?;
        // Its thread waits for nobody: a ping that systemd has no room for is followed by another one.
        socket.set_nonblocking(true).map_err(|source| SystemdError::Socket(name.clone(), source))?;
        let mut every = tokio::time::interval(every.max(Duration::from_millis(1)));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Some(Watchdog { socket, every, withheld: false }))
    }

    /// Waits until the next ping is due; for ever if there is no watchdog.
    pub(crate) async fn due(watchdog: &mut Option<Watchdog>) {
        match watchdog {
            Some(watchdog) => drop(watchdog.every.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Pings, unless somebody has fallen silent: then systemd shall find out, and start the gateway again.
    pub(crate) fn ping_unless(&mut self, silent: &[String]) {
        if !silent.is_empty() {
            if !self.withheld {
                tracing::error!(reasons = silent.join("; "), "the watchdog's ping is withheld");
            }
            self.withheld = true;
            return;
        }
        if self.withheld {
            tracing::warn!("the watchdog is pinged again: everybody reports");
        }
        self.withheld = false;
        if let Err(error) = self.socket.send(b"WATCHDOG=1") {
            tracing::warn!(%error, "systemd's watchdog was not pinged");
        }
    }
}

fn connected(name: &OsString) -> Result<UnixDatagram, SystemdError> {
    let failed = |source| SystemdError::Socket(name.clone(), source);
    let address = match name.as_bytes() {
        [b'@', rest @ ..] if !rest.is_empty() => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return Err(SystemdError::Address(name.clone())),
    };
    let socket = UnixDatagram::unbound().map_err(failed)?;
    socket.connect_addr(&address.map_err(failed)?).map_err(failed)?;
    Ok(socket)
}
