//! Watches the gateways: their processes in /proc, their metrics over HTTP, once a second; figures are sums.
//!
//! On a thread of its own, so that a gateway that does not answer holds up nobody. What always holds: a figure that
//! could not be read is absent, never zero.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, TrySendError, bounded};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::clock::Clock;
use crate::error::LoadError;
use crate::gateway::pause;

const EVERY_NS: u64 = 1_000_000_000;
/// How long the admin server may take for anything.
const HTTP_PATIENCE: Duration = Duration::from_secs(2);
/// A page of metrics is not longer than this.
const PAGE_BYTES_MAX: u64 = 4 << 20;
/// Samples that may wait for the conductor.
const SAMPLES_MAX: usize = 16;
/// Where the kernel does not tell their number, descriptors are listed: at most this part of the time.
const LISTING_SHARE: u64 = 50;

/// One gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// Where it listens.
    pub target: SocketAddr,
    /// Where its metrics are.
    pub admin: Option<SocketAddr>,
    /// Its process.
    pub pid: Option<u32>,
}

/// What one look showed.
#[derive(Clone, Default, Debug)]
pub struct Sample {
    /// When, nanoseconds of the host.
    pub at_ns: u64,
    /// The process; `None`: not watched, or gone.
    pub process: Option<GatewayProcess>,
    /// The metrics; `None`: not watched, or not answered.
    pub metrics: Option<Metrics>,
}

/// A process as /proc has it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GatewayProcess {
    /// Resident memory.
    pub resident_bytes: u64,
    /// CPU time of all its threads, user and system.
    pub cpu_ns: u64,
    /// Open descriptors; `None`: too many to be listed each second.
    pub descriptors: Option<u64>,
}

/// Of several; the descriptors only if all are known.
impl std::iter::Sum for GatewayProcess {
    fn sum<I: Iterator<Item = GatewayProcess>>(all: I) -> GatewayProcess {
        let none = GatewayProcess { descriptors: Some(0), ..GatewayProcess::default() };
        all.fold(none, |sum, one| GatewayProcess {
            resident_bytes: sum.resident_bytes + one.resident_bytes,
            cpu_ns: sum.cpu_ns + one.cpu_ns,
            descriptors: sum.descriptors.zip(one.descriptors).map(|(sum, one)| sum + one),
        })
    }
}

/// Metrics by name, summed over shards; further labels are part of the name.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// Reads the Prometheus text format.
    pub fn parse(text: &str) -> Metrics {
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            *all.entry(without_shard(name)).or_default() += value;
        }
        Metrics(all)
    }

    /// A metric's value; `None`: there is no such metric.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The values of a metric by one label, those that are not zero.
    pub fn by_label<'a>(&'a self, name: &str, label: &str) -> impl Iterator<Item = (&'a str, u64)> {
        let start = format!("{name}{{{label}=\"");
        self.0.iter().filter_map(move |(full, value)| {
            let label = full.strip_prefix(&start)?.strip_suffix("\"}")?;
            (*value > 0.0).then_some((label, *value as u64))
        })
    }
}

impl std::iter::Sum for Metrics {
    fn sum<I: Iterator<Item = Metrics>>(all: I) -> Metrics {
        let mut sum = Metrics::default();
        for (name, value) in all.flat_map(|metrics| metrics.0) {
            *sum.0.entry(name).or_default() += value;
        }
        sum
    }
}

fn without_shard(name: &str) -> String {
    let Some((base, labels)) = name.split_once('{') else { return name.to_owned() };
    let rest: Vec<&str> =
        labels.trim_end_matches('}').split(',').filter(|label| !label.starts_with("shard=")).collect();
    if rest.is_empty() { base.to_owned() } else { format!("{base}{{{}}}", rest.join(",")) }
}

/// Starts to watch; samples come until the receiver is dropped.
pub fn start(gateways: Vec<Watched>) -> Result<Receiver<Sample>, LoadError> {
    let (send, samples) = bounded(SAMPLES_MAX);
    let clock = Clock::of_host();
    let watch = move || {
        let mut listed: Vec<Listing> = gateways.iter().map(|_| Listing::default()).collect();
        loop {
            let at_ns = clock.mono_ns();
            let all = std::iter::zip(&gateways, &mut listed);
            let process = all.map(|(gateway, listed)| process(gateway.pid?, clock, listed)).sum();
            let metrics = gateways.iter().map(|gateway| metrics(gateway.admin?)).sum();
            match send.try_send(Sample { at_ns, process, metrics }) {
                Err(TrySendError::Disconnected(_)) => return,
                // The conductor is behind: it wants newer ones anyway.
                Ok(()) | Err(TrySendError::Full(_)) => {}
            }
            pause(Duration::from_nanos(EVERY_NS.saturating_sub(clock.mono_ns() - at_ns)));
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(watch).map_err(LoadError::io("no thread can be started"))?;
    Ok(samples)
}

/// A gateway's metrics, now; `None`: no answer.
pub fn metrics(admin: SocketAddr) -> Option<Metrics> {
    Some(Metrics::parse(&get(admin, "/metrics")?))
}

/// When descriptors were listed last, and how long it took.
#[derive(Default)]
struct Listing {
    next_ns: u64,
}

fn process(pid: u32, clock: Clock, listed: &mut Listing) -> Option<GatewayProcess> {
    // A process that is gone and not waited for has no such line.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_bytes = resident.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024;
    let start_ns = clock.mono_ns();
    let descriptors = match counted_descriptors(pid) {
        Some(count) => Some(count),
        None if start_ns >= listed.next_ns => {
            let count = listed_descriptors(pid);
            let end_ns = clock.mono_ns();
            listed.next_ns = end_ns + (end_ns - start_ns) * LISTING_SHARE;
            count
        }
        None => None,
    };
    Some(GatewayProcess { resident_bytes, cpu_ns: cpu_ns(pid)?, descriptors })
}

/// Open descriptors of a process, now.
pub fn descriptors(pid: u32) -> Option<u64> {
    counted_descriptors(pid).or_else(|| listed_descriptors(pid))
}

/// Since Linux 6.2 the directory's size says it.
fn counted_descriptors(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/fd")).ok().map(|meta| meta.size()).filter(|size| *size > 0)
}

fn listed_descriptors(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

fn cpu_ns(pid: u32) -> Option<u64> {
    let time = clock_getcpuclockid(Pid::from_raw(pid.try_into().ok()?)).ok()?.now().ok()?;
    Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// The body of an admin page; `None`: no answer, or not 200.
fn get(admin: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&admin, HTTP_PATIENCE).ok()?;
    stream.set_read_timeout(Some(HTTP_PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// The process that has a gateway's data directory, by the lock it holds there.
pub fn holder(data_dir: &Path) -> Option<u32> {
    let meta = fs::metadata(data_dir.join("lock")).ok()?;
    let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().filter(|line| line.contains("FLOCK")).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == file)?;
        fields.get(at.checked_sub(1)?)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn metrics_are_summed_over_shards_and_keep_their_other_labels() {
        let metrics = Metrics::parse(
            "# HELP ringway_connections Open.\n# TYPE ringway_connections gauge\nringway_connections{shard=\"0\"} 5\n\
             ringway_connections{shard=\"1\"} 7\nringway_ready 1\n\
             ringway_closes_total{shard=\"0\",reason=\"Overloaded\"} 3\n\
             ringway_closes_total{shard=\"1\",reason=\"Overloaded\"} 4\n\
             ringway_closes_total{shard=\"1\",reason=\"SlowReader\"} 0\nnonsense\n",
        );
        assert_eq!(metrics.value("ringway_connections"), Some(12.0));
        assert_eq!(metrics.value("ringway_ready"), Some(1.0));
        assert_eq!(metrics.value("ringway_none"), None);
        let closes: Vec<_> = metrics.by_label("ringway_closes_total", "reason").collect();
        assert_eq!(closes, [("Overloaded", 7)]);
    }

    #[test]
    fn what_several_gateways_tell_is_summed_and_is_nothing_unless_all_tell() {
        let parsed = |text| Some(Metrics::parse(text));
        let both: Option<Metrics> = [parsed("a 1\nb 2\n"), parsed("a 5\n")].into_iter().sum();
        let both = both.unwrap();
        assert_eq!((both.value("a"), both.value("b")), (Some(6.0), Some(2.0)));
        assert_eq!([parsed("a 1\n"), None].into_iter().sum::<Option<Metrics>>(), None);
        let process = |descriptors| GatewayProcess { resident_bytes: 5, cpu_ns: 7, descriptors };
        let sum: GatewayProcess = [process(Some(3)), process(Some(4))].into_iter().sum();
        assert_eq!(sum, GatewayProcess { resident_bytes: 10, cpu_ns: 14, descriptors: Some(7) });
        assert_eq!([process(Some(3)), process(None)].into_iter().sum::<GatewayProcess>().descriptors, None);
    }

    #[test]
    fn this_process_has_memory_time_and_descriptors_and_one_that_is_gone_has_nothing() {
        let here = process(std::process::id(), Clock::of_host(), &mut Listing::default()).unwrap();
        assert!(here.resident_bytes > 100_000 && here.descriptors.unwrap() >= 3, "{here:?}");
        assert_eq!(process(u32::MAX >> 1, Clock::of_host(), &mut Listing::default()), None);
    }
}
