//! `bench abuse --together`: all attacks at once beside the honest pair, for as long as it is asked for.
//!
//! On the pair's thread; each attacker has its own. What always holds: the pair's messages are checked one by one, and at the
//! end their rows are counted where they are stored; between stretches somebody who was not there before logs in, makes a
//! group, leaves it and asks who is online; whatever of the pair's or of theirs is refused, late for good or lost makes the
//! report one that is not clean. The gateway's memory is shown at the end of each stretch: whether it is flat, the reader sees.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::attacker::{Attack, Attacker};
use super::{HONEST, Running, log_in};
use crate::args::AbuseArgs;
use crate::bench::Bench;
use crate::clock::Clock;
use crate::contract::Stores;
use crate::error::LoadError;
use crate::gateway::{Gateway, pause};
use crate::latency::{Quantiles, latencies};
use crate::pace::Pace;
use crate::rounds::Rounds;
use crate::stored::Stored;
use crate::table::count;
use crate::target::Target;
use crate::tokens::Secret;
use ringway_client::blocking::Client;
use ringway_wire::ids::{DeviceId, MsgId, UserId};

/// Who comes, asks for little and goes.
const NEWCOMER: UserId = UserId(3_000_003);
/// How long each of a newcomer's requests may take, and the pair's messages and the store without getting on.
const PATIENCE: Duration = Duration::from_secs(60);
const STORE_POLL: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Serialize, Debug)]
struct Together {
    /// From the first attack to the last, seconds.
    attacked_s: f64,
    attacks: Vec<Attacked>,
    /// From send to delivery, microseconds: before the attacks, and meanwhile.
    quiet_us: Quantiles,
    attacked_us: Quantiles,
    stretches: Vec<Stretch>,
    /// Rows that the pair's messages are due, and those that are stored where they are due.
    rows_expected: u64,
    rows_stored: u64,
    /// The gateway ended with 0 when it was told to stop; nothing of it is known where it is not ours.
    ended_well: bool,
    clean: bool,
}

/// What one account did.
#[derive(Serialize, Debug)]
struct Attacked {
    attack: &'static str,
    asked: u64,
    refused: u64,
    /// It went on to the end.
    to_the_end: bool,
}

/// What was seen in one stretch.
#[derive(Serialize, Debug)]
struct Stretch {
    /// Since the first attack, seconds.
    at_s: f64,
    /// The gateway's memory, bytes: with what it has of files, and without.
    resident_bytes: u64,
    own_bytes: u64,
    p99_us: f64,
    /// Messages of the pair that were told to come later.
    deferred: u64,
    /// What a newcomer's login and three requests took together, milliseconds; `None`: one of them was refused.
    newcomer_ms: Option<f64>,
    clean: bool,
}

/// Runs it and prints the report; false: something of the honest was lost, refused or harmed.
pub(super) fn run(args: &AbuseArgs, stores: &dyn Stores) -> Result<bool, LoadError> {
    let pace = args.pace()?;
    let target = Target::prepare(&args.target, stores)?;
    let stored = target.stored(&args.target, stores)?;
    let newcomer = Newcomer { addr: target.addr, secret: target.secret.clone(), clock: target.clock };
    let mut bench = log_in(target)?;
    // What is late is seen in the latencies, and is not lost.
    bench.patience_ns = PATIENCE.as_nanos() as u64;
    let mut due = Due::of(&bench);
    let quiet = stretch(&mut bench, pace, &mut due)?;
    let attacks = Attack::ALL.iter().enumerate().filter(|(_, attack)| args.takes(attack.name()));
    let attackers = attacks.map(|(at, attack)| {
        let Newcomer { addr, secret, clock } = &newcomer;
        Ok((*attack, Attacker::log_in(*addr, secret, *clock, *attack, at as u64)?))
    });
    let attackers: Vec<(Attack, Attacker)> = attackers.collect::<Result<_, LoadError>>()?;
    let begun_ns = newcomer.clock.mono_ns();
    let running = attackers.into_iter().map(|(attack, attacker)| Ok((attack, Running::start(attacker)?)));
    let running: Vec<(Attack, Running)> = running.collect::<Result<_, LoadError>>()?;
    let since_begun_s = || (newcomer.clock.mono_ns() - begun_ns) as f64 / 1e9;
    let (mut stretches, mut attacked) = (Vec::new(), latencies());
    while since_begun_s() < args.together.unwrap_or_default() {
        let rounds = stretch(&mut bench, pace, &mut due)?;
        let newcomer_ms = newcomer.comes();
        attacked.add(&rounds.delivery).ok();
        let resident_bytes = bench.gateway.as_ref().map_or(0, Gateway::resident_bytes);
        let own_bytes = bench.gateway.as_ref().map_or(0, Gateway::own_bytes);
        let at_s = since_begun_s();
        stretches.push(Stretch { at_s, resident_bytes, own_bytes, newcomer_ms, ..Stretch::of(&rounds) });
        if !args.target.json {
            stretches.last().iter().for_each(|stretch| stretch.print());
        }
    }
    let attacked_s = since_begun_s();
    let ended = |(attack, running): (Attack, Running)| {
        let to_the_end = !running.thread.is_finished();
        let done = running.stop()?;
        Ok(Attacked { attack: attack.name(), asked: done.asked, refused: done.refused, to_the_end })
    };
    let attacks = running.into_iter().map(ended).collect::<Result<_, LoadError>>()?;
    let (rows_expected, rows_stored) = due.count(&stored, newcomer.clock)?;
    let ended_well = bench.stop()?;
    let clean = ended_well
        && rows_stored == rows_expected
        && Stretch::of(&quiet).clean
        && stretches.iter().all(|stretch| stretch.clean && stretch.deferred == 0 && stretch.newcomer_ms.is_some());
    let (quiet_us, attacked_us) = (Quantiles::of(&quiet.delivery), Quantiles::of(&attacked));
    let report = Together {
        attacked_s,
        attacks,
        quiet_us,
        attacked_us,
        stretches,
        rows_expected,
        rows_stored,
        ended_well,
        clean,
    };
    if args.target.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(clean)
}

/// The pair's messages for one stretch.
fn stretch(bench: &mut Bench, pace: Pace, due: &mut Due) -> Result<Rounds, LoadError> {
    let rounds = bench.measured(pace)?;
    due.msg_ids.extend(bench.room.streams.iter().flat_map(|stream| stream.round_msg_ids()));
    Ok(rounds)
}

/// What is due in the pair's inboxes.
struct Due {
    inboxes: Vec<(UserId, ringway_wire::ids::Seq)>,
    msg_ids: Vec<MsgId>,
}

impl Due {
    /// Nothing yet, behind what they have.
    fn of(bench: &Bench) -> Due {
        let inboxes = bench.room.streams.iter().flat_map(|stream| stream.inboxes.iter().copied()).collect();
        Due { inboxes, msg_ids: Vec::new() }
    }

    /// The rows that are due, and those that are stored when the store has got so far, or does not get on.
    fn count(&self, stored: &Stored, clock: Clock) -> Result<(u64, u64), LoadError> {
        let expected = (self.inboxes.len() * self.msg_ids.len()) as u64;
        let (mut best, mut progress_ns) = (0, clock.mono_ns());
        loop {
            let found = self.inboxes.iter().map(|(user, after)| stored.count(*user, *after, &self.msg_ids));
            let found = found.map(|found| found.map(|found| found.rows.saturating_sub(found.wrong)));
            let rows = found.sum::<Result<u64, LoadError>>()?;
            if rows > best {
                (best, progress_ns) = (rows, clock.mono_ns());
            }
            if rows == expected || clock.mono_ns() - progress_ns > PATIENCE.as_nanos() as u64 {
                return Ok((expected, rows));
            }
            pause(STORE_POLL);
        }
    }
}

/// Somebody who means no harm and was not there.
struct Newcomer {
    addr: SocketAddr,
    secret: Secret,
    clock: Clock,
}

impl Newcomer {
    /// Logs in, makes a group, leaves it, asks who is online. How long that took, milliseconds; `None`: not all of it was
    /// done.
    fn comes(&self) -> Option<f64> {
        let began_ns = self.clock.mono_ns();
        let asked = self.asks();
        if let Err(error) = &asked {
            eprintln!("a newcomer was refused: {error}");
        }
        asked.ok().map(|()| (self.clock.mono_ns() - began_ns) as f64 / 1e6)
    }

    fn asks(&self) -> Result<(), ringway_client::ClientError> {
        let token = self.secret.token(NEWCOMER, self.clock.unix_ms());
        let mut client = Client::connect(self.addr.to_string(), token, DeviceId(1), None)?;
        let (group, _) = client.group_create(&[], PATIENCE)?;
        client.group_leave(group, PATIENCE)?;
        client.presence(&HONEST, PATIENCE)?;
        client.logout(PATIENCE);
        Ok(())
    }
}

impl Stretch {
    /// What the pair noticed.
    fn of(rounds: &Rounds) -> Stretch {
        Stretch {
            at_s: 0.0,
            resident_bytes: 0,
            own_bytes: 0,
            p99_us: Quantiles::of(&rounds.delivery).p99,
            deferred: rounds.rounds.iter().map(|round| round.deferred).sum(),
            newcomer_ms: None,
            clean: rounds.rounds.iter().all(|round| round.is_clean()),
        }
    }

    fn print(&self) {
        let Stretch { at_s, resident_bytes, own_bytes, p99_us, deferred, newcomer_ms, clean } = self;
        let (resident, own) = (resident_bytes >> 20, own_bytes >> 20);
        let newcomer = newcomer_ms.map_or("refused".to_owned(), |ms| format!("{ms:.0} ms"));
        let state = if *clean { "all came, once and in order" } else { "LOST, DOUBLED OR HARMED" };
        let p99_ms = p99_us / 1e3;
        println!(
            "{at_s:>7.1} s  own {own:>5} MiB, resident {resident:>5}  p99 {p99_ms:>8.2} ms  told to come later {deferred:>4}  newcomer {newcomer:>8}  {state}"
        );
    }
}

impl Together {
    fn print(&self) {
        for Attacked { attack, asked, refused, to_the_end } in &self.attacks {
            let end = if *to_the_end { "" } else { "  ended before the end" };
            println!("{attack:<16} asked {:>12}  refused {:>12}{end}", count(*asked), count(*refused));
        }
        println!("p99 quiet {:.2} ms, under all {:.2} ms", self.quiet_us.p99 / 1e3, self.attacked_us.p99 / 1e3);
        println!("rows stored {} of {}", count(self.rows_stored), count(self.rows_expected));
        let ended = if self.ended_well { "ended as it should" } else { "DID NOT END WITH 0" };
        println!("after {:.0} s of all attacks the gateway {ended}", self.attacked_s);
    }
}
