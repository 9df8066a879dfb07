//! `bench abuse`: each attack of one account beside an honest pair, and what the pair notices of it.
//!
//! The pair is measured as in `bench direct`: every message is checked. The attacker has a thread of its own, since what it
//! sends and gets is not measured, only counted, and it never waits for the pair; the pair's goes before it on the CPU that
//! they share, and sleeps while nothing comes, so that it is the gateway that is measured. What always holds: each attack is another
//! account's; beside the pair's latencies under an attack stand those of the same pair a moment before it, and how long a write
//! and an `fdatasync` of a program that is no gateway took in the same seconds.

pub(crate) mod attacker;
mod probe;
mod together;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use self::attacker::{Attack, Attacker, Done};
use self::probe::Probe;
use super::args::AbuseArgs;
use super::bench::{Bench, Meanwhile};
use super::check::Tally;
use super::contract::Stores;
use super::cpus;
use super::error::LoadError;
use super::latency::Quantiles;
use super::room::Room;
use super::rounds::Rounds;
use super::swarm::Window;
use super::table::count;
use super::target::Target;
use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::request::Durability;

const HONEST: [UserId; 2] = [UserId(3_000_001), UserId(3_000_002)];
const BODY_BYTES: usize = 100;
/// An attack is on when so many of its requests are out.
const BEGUN_AFTER: u64 = 50;
/// And after so long at most.
const BEGIN_PATIENCE_NS: u64 = 20_000_000_000;
/// Between two attacks: what the last one is owed is done by then, or is part of what the next one meets.
const CALM: Duration = Duration::from_secs(1);

/// What the honest pair has noticed of one attack.
#[derive(Serialize, Debug)]
struct Noticed {
    attack: &'static str,
    /// What was sent in it, and refused.
    asked: u64,
    refused: u64,
    /// From send to delivery, microseconds: before it, and meanwhile.
    quiet_us: Quantiles,
    attacked_us: Quantiles,
    /// The p99 of both, the second divided by the first.
    p99_ratio: f64,
    /// A write and an `fdatasync` beside it, microseconds: before it, and meanwhile.
    disk_quiet_us: Quantiles,
    disk_attacked_us: Quantiles,
    clean: bool,
}

/// Runs it and prints the report; false: something of the pair's was lost, doubled, out of order or harmed.
pub(crate) fn run(args: &AbuseArgs, stores: &dyn Stores) -> Result<bool, LoadError> {
    if args.together.is_some() {
        return together::run(args, stores);
    }
    let pace = args.pace()?;
    let target = Target::prepare(&args.target, stores)?;
    let (addr, secret, clock) = (target.addr, target.secret.clone(), target.clock);
    let mut bench = log_in(target)?;
    if !cpus::go_first() {
        eprintln!(
            "the attacker's work on the load's CPU is part of what the pair waits for: this process has no CAP_SYS_NICE"
        );
    }
    let mut noticed = Vec::new();
    for (at, attack) in Attack::ALL.iter().enumerate() {
        if !args.takes(attack.name()) {
            continue;
        }
        let probe = Probe::start(args.target.data_dir.clone(), clock)?;
        let quiet = bench.rounds(1, pace)?;
        let disk_quiet = probe.stop()?;
        let attacker = Attacker::log_in(addr, &secret, clock, *attack, at as u64)?;
        let running = Running::start(attacker)?;
        running.await_begun(&bench)?;
        let probe = Probe::start(args.target.data_dir.clone(), clock)?;
        let attacked = bench.rounds(1, pace)?;
        let disk = (disk_quiet, probe.stop()?);
        let done = running.stop()?;
        noticed.push(Noticed::of(*attack, (&quiet, &attacked), disk, done));
        std::thread::park_timeout(CALM);
    }
    let stopped_well = bench.stop()?;
    if args.target.json {
        println!("{}", serde_json::to_string(&noticed)?);
    } else {
        print(&noticed);
    }
    Ok(stopped_well && noticed.iter().all(|noticed| noticed.clean))
}

fn log_in(target: Target) -> Result<Bench, LoadError> {
    let mut crowd = target.crowd()?;
    let [from, to] = HONEST;
    let (sender, recipient) = (crowd.add(from, Window::Usual), crowd.add(to, Window::Usual));
    crowd.login_all(|| ())?;
    let mut room = Room::new(Durability::Durable);
    let (sent, received) = (crowd.newest(sender), crowd.newest(recipient));
    let inboxes = vec![(from, sent), (to, received)];
    room.add((sender, from), Conversation::User(to), &[(recipient, received)], inboxes, BODY_BYTES);
    let patience = target.cpus.patience();
    // Rows are not waited for: those of an attack may go before them.
    let mut bench = Bench::new(crowd, room, target.gateway, None, patience);
    bench.meanwhile = Meanwhile::Anybodys;
    Ok(bench)
}

/// An attack on its thread.
struct Running {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Done>,
}

impl Running {
    fn start(mut attacker: Attacker) -> Result<Running, LoadError> {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = std::thread::Builder::new()
            .name("attacker".to_owned())
            .spawn(move || attacker.run(&stops, &counts))
            .map_err(LoadError::io("the attacker's thread cannot be started"))?;
        Ok(Running { stop, asked, thread })
    }

    fn await_begun(&self, bench: &Bench) -> Result<(), LoadError> {
        let clock = bench.crowd.clock();
        let until_ns = clock.mono_ns() + BEGIN_PATIENCE_NS;
        while self.asked.load(Ordering::Relaxed) < BEGUN_AFTER
            && !self.thread.is_finished()
            && clock.mono_ns() < until_ns
        {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(())
    }

    fn stop(self) -> Result<Done, LoadError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| LoadError::Options("the attacker's thread has panicked"))
    }
}

impl Noticed {
    fn of(
        attack: Attack,
        (quiet, attacked): (&Rounds, &Rounds),
        (disk_quiet_us, disk_attacked_us): (Quantiles, Quantiles),
        done: Done,
    ) -> Noticed {
        let (quiet_us, attacked_us) = (Quantiles::of(&quiet.delivery), Quantiles::of(&attacked.delivery));
        let unharmed = |rounds: &Rounds| {
            rounds.rounds.iter().all(|round| {
                let Tally { duplicated, out_of_order, corrupt, .. } = round.tally;
                round.lost() + duplicated + out_of_order + corrupt == 0 && round.acked == round.messages
            })
        };
        Noticed {
            attack: attack.name(),
            asked: done.asked,
            refused: done.refused,
            quiet_us,
            attacked_us,
            p99_ratio: attacked_us.p99 / quiet_us.p99.max(1.0),
            disk_quiet_us,
            disk_attacked_us,
            clean: unharmed(quiet) && unharmed(attacked),
        }
    }
}

fn print(noticed: &[Noticed]) {
    println!(
        "{:<16} {:>10} {:>10} {:>11} {:>11} {:>7} {:>11} {:>11}  the pair's messages",
        "attack", "asked", "refused", "p99 quiet", "p99 under", "ratio", "disk quiet", "disk under"
    );
    for noticed in noticed {
        let Noticed { attack, asked, refused, quiet_us, attacked_us, p99_ratio, clean, .. } = noticed;
        let state = if *clean { "all came, once and in order" } else { "LOST, DOUBLED OR HARMED" };
        println!(
            "{attack:<16} {:>10} {:>10} {:>8.2} ms {:>8.2} ms {p99_ratio:>7.2} {:>8.2} ms {:>8.2} ms  {state}",
            count(*asked),
            count(*refused),
            quiet_us.p99 / 1e3,
            attacked_us.p99 / 1e3,
            noticed.disk_quiet_us.p99 / 1e3,
            noticed.disk_attacked_us.p99 / 1e3,
        );
    }
}
