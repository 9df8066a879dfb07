//! `bench idle`: connections that are logged in and say nothing, and what each costs the gateway in memory.
//!
//! What always holds: the figure is a slope between two counts, so that what the gateway needs anyway is not in
//! it; both counts are taken when the memory has stopped changing.

use std::time::Duration;

use serde::Serialize;

use super::args::IdleArgs;
use super::bars::bar;
use super::contract::Stores;
use super::crowd::Crowd;
use super::error::LoadError;
use super::gateway::{Gateway, resident_bytes};
use super::swarm::Window;
use super::table::Table;
use super::target::Target;
use ringway_wire::ids::UserId;

const FIRST_USER: u64 = 3_000_001;
/// The first count is taken with this share of the connections.
const FIRST_SHARE: u64 = 3;
/// The memory is settled when it is the same so often in a row,
const SETTLED_LOOKS: u32 = 5;
/// looked at so far apart,
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// or after so many looks.
const LOOKS_MAX: u32 = 100;

/// The report as `--json` prints it.
#[derive(Serialize, Debug)]
struct IdleReport {
    scenario: &'static str,
    connections: u64,
    connections_first: u64,
    resident_bytes_first: u64,
    resident_bytes: u64,
    bytes_per_connection: f64,
    still_connected: u64,
    clean: bool,
}

/// Runs it and prints the report; false: connections were lost.
pub(crate) fn run(args: &IdleArgs, stores: &dyn Stores) -> Result<bool, LoadError> {
    let target = Target::prepare(&args.target, stores)?;
    let pid = match (&target.gateway, args.pid) {
        (Some(gateway), _) => gateway.pid(),
        (None, Some(pid)) => pid,
        (None, None) => return Err(LoadError::Options("--connect needs --pid, to measure that process's memory")),
    };
    let mut crowd = target.crowd()?;
    let first = args.connections / FIRST_SHARE;
    let bar = bar(args.connections, "logging in");
    let mut opened = 0;
    let mut open_until = |crowd: &mut Crowd, count: u64| {
        for at in opened..count {
            crowd.add(UserId(FIRST_USER + at), Window::Usual);
        }
        opened = count;
        crowd.login_all(|| bar.inc(1))
    };
    open_until(&mut crowd, first)?;
    let before = settled(&mut crowd, pid)?;
    open_until(&mut crowd, args.connections)?;
    let after = settled(&mut crowd, pid)?;
    bar.finish_and_clear();
    let still_connected = crowd.live_count();
    drop(crowd);
    let stopped_well = target.gateway.map_or(Ok(true), Gateway::stop)?;
    let report = IdleReport {
        scenario: "idle",
        connections: args.connections,
        connections_first: first,
        resident_bytes_first: before,
        resident_bytes: after,
        bytes_per_connection: (after as f64 - before as f64) / (args.connections - first) as f64,
        still_connected,
        clean: still_connected == args.connections && stopped_well,
    };
    match args.target.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print(&report),
    }
    Ok(report.clean)
}

/// The process's memory once it has stopped changing.
fn settled(crowd: &mut Crowd, pid: u32) -> Result<u64, LoadError> {
    let (mut bytes, mut same) = (0, 0);
    for _ in 0..LOOKS_MAX {
        crowd.turn(LOOK_EVERY, &mut |_, _| {})?;
        let now = resident_bytes(pid);
        same = if now == bytes { same + 1 } else { 0 };
        bytes = now;
        if same == SETTLED_LOOKS {
            break;
        }
    }
    Ok(bytes)
}

fn print(report: &IdleReport) {
    let mut table = Table::default();
    table.line("connections", &format!("{} logged in, {} still", report.connections, report.still_connected));
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    let first = format!("{} with {}", mib(report.resident_bytes_first), report.connections_first);
    table.line("gateway memory, first", &first);
    table.line("gateway memory, all", &mib(report.resident_bytes));
    let kib = report.bytes_per_connection / 1024.0;
    table.line("per connection", &format!("{:.0} bytes ({kib:.2} KiB)", report.bytes_per_connection));
    print!("{}", table.text());
}
