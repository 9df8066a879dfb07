//! Whether this host can carry the load: descriptors of a process, ports of the source addresses.
//!
//! Asked before anything is started. What always holds: what is missing is said with its number, the number it would
//! have to be, and what to do. What the gateway needs is `ringway doctor`'s business.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::args::SoakArgs;

/// Descriptors of a process beside its connections.
const OTHER_DESCRIPTORS: u64 = 64;
/// Connections of one process, if it is not said.
const CONNECTIONS_PER_PROCESS: u32 = 100_000;
/// Connections of one source address, if it is not said: the kernel finds a port quickly while half of them are free.
const PORTS_USED_OF: (u32, u32) = (1, 2);

/// How the load is spread over this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Spread {
    /// Processes.
    pub processes: u32,
    /// Source addresses; none: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// What is missing; empty: the host is fit.
    pub missing: Vec<String>,
}

/// What a host has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    /// Descriptors that a process may have.
    pub descriptors: u64,
    /// Ports of one address.
    pub ports: u32,
}

impl Host {
    /// This one; raises the limit of descriptors as far as it may be.
    pub(crate) fn here(wanted: u64) -> Host {
        Host { descriptors: raise_descriptors(wanted), ports: ports() }
    }
}

impl Spread {
    /// Decides how many processes and addresses there are, and whether that is enough.
    pub(crate) fn plan(args: &SoakArgs, targets: &[SocketAddr], host: Host) -> Spread {
        let connections = args.connections;
        // Each process has one gateway, and each gateway as many processes as the others.
        let gateways = (targets.len() as u32).max(1);
        let room = host.descriptors.saturating_sub(OTHER_DESCRIPTORS).max(1).min(u64::from(CONNECTIONS_PER_PROCESS));
        let processes = args.processes.unwrap_or_else(|| {
            let enough = connections.div_ceil(room as u32).min(256);
            enough.div_ceil(gateways) * gateways
        });
        let mut missing = Vec::new();
        let each = u64::from(connections.div_ceil(processes)) + OTHER_DESCRIPTORS;
        if each > host.descriptors {
            let enough = connections.div_ceil(room as u32);
            missing.push(format!(
                "descriptors: each of {processes} processes needs {each}, and may have {}: give --processes {enough}, or \
                 raise the limit (ulimit -n {each}; lasting: tuning/apply.sh)",
                host.descriptors
            ));
        }
        let sources = match &args.source_ip {
            Some(sources) => sources.0.clone(),
            None => usual_sources(targets, connections.div_ceil(gateways), host.ports),
        };
        let addresses = sources.len().max(1) as u64;
        let ports = addresses * u64::from(host.ports) * u64::from(gateways);
        if ports < u64::from(connections) {
            let enough = u64::from(connections.div_ceil(gateways)).div_ceil(u64::from(host.ports.max(1)));
            missing.push(format!(
                "ports: {addresses} source addresses with {} ports each make {ports} connections, {connections} are \
                 asked for: give --source-ip a range of {enough} addresses, or widen net.ipv4.ip_local_port_range \
                 (tuning/apply.sh)",
                host.ports
            ));
        }
        let unusable = sources
            .iter()
            .find_map(|address| UdpSocket::bind(SocketAddr::new(*address, 0)).err().map(|error| (address, error)));
        if let Some((address, error)) = unusable {
            missing.push(format!("source address {address}: {error}; give --source-ip addresses of this host"));
        }
        Spread { processes, sources, missing }
    }
}

/// On loopback every address of 127.0.0.0/8 is this host's.
fn usual_sources(targets: &[SocketAddr], connections: u32, ports: u32) -> Vec<IpAddr> {
    let (part, of) = PORTS_USED_OF;
    let per_source = (ports / of * part).max(1);
    if !targets.iter().all(|target| matches!(target, SocketAddr::V4(v4) if v4.ip().is_loopback())) {
        return Vec::new();
    }
    let first = u32::from(Ipv4Addr::new(127, 0, 0, 2));
    (0..connections.div_ceil(per_source)).map(|at| IpAddr::V4(Ipv4Addr::from(first + at))).collect()
}

/// The limit of descriptors, as high as it may be raised, at least to `wanted` where that is allowed.
fn raise_descriptors(wanted: u64) -> u64 {
    let wanted = wanted + OTHER_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return wanted;
    }
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return soft;
    }
    hard
}

/// Ports of one address that connections may come from.
fn ports() -> u32 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(low), Some(high)) if low <= high => high - low + 1,
        // What Linux has by default.
        _ => 28_232,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        soak: SoakArgs,
    }

    fn plan(line: &str, descriptors: u64, ports: u32) -> Spread {
        let words = ["soak"].into_iter().chain(line.split_whitespace());
        let args = Line::try_parse_from(words).unwrap().soak;
        let targets: Vec<SocketAddr> =
            (0..args.data_dir.len()).map(|at| SocketAddr::from(([127, 0, 0, 1], 7400 + at as u16))).collect();
        Spread::plan(&args, &targets, Host { descriptors, ports })
    }

    #[test]
    fn processes_and_addresses_are_as_many_as_are_needed() {
        let spread = plan("--connections 500000", 20_000, 28_232);
        assert_eq!((spread.processes, spread.sources.len(), spread.missing.len()), (26, 36, 0));
        let spread = plan("--connections 500000", 1 << 20, 64_000);
        assert_eq!((spread.processes, spread.sources.len()), (5, 16));
    }

    #[test]
    fn several_gateways_have_as_many_processes_each_and_their_own_ports() {
        let spread = plan("--data-dir a --data-dir b --data-dir c --connections 45000", 20_000, 28_232);
        assert_eq!((spread.processes, spread.sources.len(), spread.missing.len()), (3, 2, 0));
        let spread = plan("--data-dir a --data-dir b --connections 60000", 20_000, 28_232);
        assert_eq!((spread.processes, spread.sources.len(), spread.missing.len()), (4, 3, 0));
    }

    #[test]
    fn too_few_descriptors_and_too_few_ports_are_named_with_what_to_do() {
        let spread = plan("--connections 30000 --processes 1 --source-ip 127.0.0.2", 20_000, 28_232);
        assert_eq!(spread.missing.len(), 2, "{spread:?}");
        assert!(spread.missing[0].contains("--processes 2"), "{spread:?}");
        assert!(spread.missing[1].contains("a range of 2 addresses"), "{spread:?}");
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let spread = plan("--connections 10 --source-ip 192.0.2.1", 20_000, 28_232);
        assert!(spread.missing.iter().any(|m| m.contains("192.0.2.1")), "{spread:?}");
    }
}
