//! `bench floor`: what this machine alone takes for what a paced group message takes at the least: one write and
//! `fdatasync`, then a small send to each recipient.
//!
//! No gateway and no protocol: a bare thread on the gateway's CPU, and the swarm on the load's, as in the other
//! benches. No gateway that makes an ack durable and writes to each socket can be quicker on this machine in this
//! minute, so its latencies are worth as much as their ratio to these. What always holds: every frame is counted, and it
//! ends with an error if one does not come.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::FloorArgs;
use super::cpus::{self, Cpus};
use super::disk::Segment;
use super::error::LoadError;
use super::gateway::pause;
use super::latency::{Quantiles, latencies};
use super::swarm::{Brought, LinkId, Swarm, Window};
use super::table::Table;
use crate::clock::Clock;

/// Bytes of a message's record in the journal, to 500 members.
const RECORD_BYTES: usize = 1_000;
/// How long nothing may come.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The report as `--json` prints it.
#[derive(Serialize, Debug)]
struct FloorReport {
    scenario: &'static str,
    messages: u64,
    online: u32,
    bytes: u32,
    /// From before the write to the arrival, over all sockets.
    delivery_us: Quantiles,
    sync_us: Quantiles,
    /// Of one send, on the average.
    send_us: f64,
    clean: bool,
}

/// Runs it and prints the report.
pub(crate) fn run(args: &FloorArgs) -> Result<bool, LoadError> {
    if !(args.rate > 0.0 && args.rate <= 1e6) {
        return Err(LoadError::Options("--rate takes messages per second, more than 0 and at most a million"));
    }
    let report = measure(args).map_err(LoadError::io("the machine cannot be measured"))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(true);
    }
    let mut table = Table::default();
    table.line("messages, each synced", &format!("{} to {} sockets", report.messages, report.online));
    table.line("one send", &format!("{:.2} µs", report.send_us));
    table.quantiles_head();
    table.quantiles("write and fdatasync", &report.sync_us);
    table.quantiles("delivery", &report.delivery_us);
    print!("{}", table.text());
    Ok(true)
}

fn measure(args: &FloorArgs) -> std::io::Result<FloorReport> {
    let allowed = cpus::allowed();
    let cpus = Cpus::plan(None, None, &allowed).unwrap_or_default();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let clock = Clock::start();
    let mut swarm = Swarm::new(clock)?;
    let mut peers = Vec::with_capacity(args.online as usize);
    let address = listener.local_addr()?;
    for link in 0..args.online {
        swarm.open(LinkId(link), address, Window::Usual)?;
        let (peer, _) = listener.accept()?;
        peer.set_nodelay(true)?;
        peers.push(peer);
    }
    let segment = Segment::make(args.dir.clone(), args.messages, RECORD_BYTES)?;
    let (sender_args, cpu) = (args.clone(), allowed.first().copied());
    let sender = thread::Builder::new().name("sender".into()).spawn(move || {
        Cpus { gateway: None, load: cpu.into_iter().collect() }.pin_load();
        send(&sender_args, clock, segment, &mut peers)
    })?;
    cpus.pin_load();
    let delivery = receive(args, &mut swarm, cpus.patience())?;
    let (sync, send_ns) = sender.join().map_err(|_| std::io::Error::other("the sender has failed"))??;
    Ok(FloorReport {
        scenario: "floor",
        messages: args.messages,
        online: args.online,
        bytes: args.bytes,
        delivery_us: Quantiles::of(&delivery),
        sync_us: Quantiles::of(&sync),
        send_us: send_ns as f64 / 1e3 / (args.messages * u64::from(args.online)) as f64,
        clean: true,
    })
}

/// What the gateway's side does: returns how long the writes took, and all sends together in nanoseconds.
fn send(
    args: &FloorArgs,
    clock: Clock,
    mut segment: Segment,
    peers: &mut [TcpStream],
) -> std::io::Result<(Histogram<u64>, u64)> {
    let mut frame = vec![0; args.bytes as usize];
    let prefix = args.bytes - 4;
    frame.get_mut(..4).unwrap_or_default().copy_from_slice(&prefix.to_le_bytes());
    let between = Duration::from_secs_f64(1.0 / args.rate);
    let (mut sync, mut send_ns) = (latencies(), 0);
    for _ in 0..args.messages {
        pause(between);
        let began_ns = clock.mono_ns();
        frame.get_mut(4..12).unwrap_or_default().copy_from_slice(&began_ns.to_le_bytes());
        segment.write()?;
        let synced_ns = clock.mono_ns();
        sync.saturating_record(synced_ns - began_ns);
        for peer in &mut *peers {
            peer.write_all(&frame)?;
        }
        send_ns += clock.mono_ns() - synced_ns;
    }
    Ok((sync, send_ns))
}

fn receive(args: &FloorArgs, swarm: &mut Swarm, wait: Duration) -> std::io::Result<Histogram<u64>> {
    let mut latency = latencies();
    let mut due = args.messages * u64::from(args.online);
    let mut came_ns = swarm.clock().mono_ns();
    while due > 0 {
        let mut ended = false;
        swarm.turn(wait, &mut |_, brought, at_ns| match brought {
            Brought::Frame(frame) => {
                let began = frame.get(4..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
                latency.saturating_record(at_ns.saturating_sub(began));
                came_ns = at_ns;
                due -= 1;
            }
            Brought::End(_) => ended = true,
        })?;
        // The last frames and the end may come in one turn.
        if due > 0 && (ended || swarm.polled_ns().saturating_sub(came_ns) > PATIENCE_NS) {
            return Err(std::io::Error::other(format!("{due} frames did not come")));
        }
    }
    Ok(latency)
}
