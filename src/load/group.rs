//! `bench group`: one group, one sender, many members online, more of them not.

use std::net::SocketAddr;
use std::time::Duration;

use super::args::{GroupArgs, TargetArgs};
use super::bars::bar;
use super::bench::Bench;
use super::contract::Stores;
use super::error::LoadError;
use super::gateway::{Gateway, pause};
use super::report::{BenchReport, Scenario};
use super::room::Room;
use super::stored::Stored;
use super::swarm::Window;
use super::target::Target;
use crate::clock::Clock;
use ringway_client::ClientError;
use ringway_client::blocking::Client;
use ringway_wire::ids::{Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::request::Durability;
use ringway_wire::schema::ErrorCode;

/// The benches' users start here, so that they differ from an operator's own first ones.
const FIRST_USER: u64 = 1_000_001;
/// The device that makes the group; the sender's own is 1.
const FOUNDING_DEVICE: DeviceId = DeviceId(2);
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);

/// Runs it and prints the report; false: not clean.
pub(crate) fn run(args: &GroupArgs, stores: &dyn Stores) -> Result<bool, LoadError> {
    args.check()?;
    let pace = args.pace.pace()?;
    let target = Target::of_nodes(&args.target, stores, &args.pace, args.nodes, args.redis.as_deref())?;
    let group = found(&target, args.members)?;
    let mut bench = log_in(args, target, group, stores)?;
    let rounds = args.pace.rounds as usize;
    let scenario = Scenario {
        scenario: "group",
        pace: pace.name(),
        members: args.members as u64,
        online: args.online as u64,
        body: args.pace.body as u64,
        ephemeral: args.pace.ephemeral,
    };
    let report = if args.stalled == 0 {
        BenchReport::of(scenario, &bench.rounds(rounds, pace)?)
    } else {
        let [without, with] = bench.pairs(rounds, pace, args.stalled)?;
        BenchReport::of_pairs(scenario, &without, &with, args.stalled as u64)
    };
    finish(bench, report, &args.target)
}

/// Stops the gateway, prints the report; false: not clean.
pub(crate) fn finish(bench: Bench, mut report: BenchReport, args: &TargetArgs) -> Result<bool, LoadError> {
    let stopped_well = bench.stop()?;
    if !stopped_well {
        eprintln!("the gateway did not end with 0");
    }
    report.clean &= stopped_well;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(report.clean)
}

/// Makes the group, over the protocol, as its sender.
fn found(target: &Target, members: usize) -> Result<GroupId, LoadError> {
    let failed = "making the group failed";
    let sender = UserId(FIRST_USER);
    let others: Vec<UserId> = (1..members as u64).map(|at| UserId(FIRST_USER + at)).collect();
    let token = target.secret.token(sender, target.clock.unix_ms());
    let mut founder =
        Client::connect(target.addr.to_string(), token, FOUNDING_DEVICE, None).map_err(LoadError::client(failed))?;
    let clock = target.clock;
    let began_ns = clock.mono_ns();
    let group = loop {
        match founder.group_create(&others, ANSWER_PATIENCE) {
            Ok((group, _)) => break group,
            // A cluster's first node has to make the ledger first.
            Err(ClientError::Refused { code: ErrorCode::RetryLater, .. })
                if clock.mono_ns() - began_ns < ANSWER_PATIENCE.as_nanos() as u64 =>
            {
                pause(RETRY);
            }
            Err(error) => return Err(LoadError::client(failed)(error)),
        }
    };
    begin(&mut founder, group).map_err(LoadError::client("the group's first message failed"))?;
    // Its end is not waited for.
    founder.logout(Duration::ZERO);
    Ok(group)
}

/// Sends a message that is not counted: of a ledger that was just made anew every member's first row has a number far
/// above the one before, as it must, and what is counted goes on from there.
fn begin(founder: &mut Client, group: GroupId) -> Result<(), ClientError> {
    let request = founder.send(Conversation::Group(group), b"first")?;
    founder.wait_sent(request, ANSWER_PATIENCE).map(drop)
}

/// Waits until the store has what was sent before: rows are counted from there. If it does not come, the count shows it.
fn settle(stored: &Stored, newest: Seq, clock: Clock) -> Result<(), LoadError> {
    let began_ns = clock.mono_ns();
    while stored.newest(UserId(FIRST_USER))? < newest && clock.mono_ns() - began_ns < ANSWER_PATIENCE.as_nanos() as u64
    {
        pause(RETRY);
    }
    Ok(())
}

/// Logs in the sender and those online, and gives everybody a role.
fn log_in(args: &GroupArgs, target: Target, group: GroupId, stores: &dyn Stores) -> Result<Bench, LoadError> {
    let kind = if args.pace.ephemeral { Durability::Ephemeral } else { Durability::Durable };
    let mut crowd = target.crowd()?;
    let sender = crowd.add(UserId(FIRST_USER), Window::Usual);
    let mut recipients = Vec::with_capacity(args.online);
    let others: Vec<SocketAddr> = target.others.iter().map(Gateway::addr).collect();
    let mut across = Vec::new();
    for at in 1..=args.online {
        let window = if at <= args.stalled { Window::Small } else { Window::Usual };
        let user = UserId(FIRST_USER + at as u64);
        // In turn over all nodes, the sender's included.
        let session = match others.get(at % (others.len() + 1)) {
            Some(other) => crowd.add_at(*other, user, window),
            None => crowd.add(user, window),
        };
        if at % (others.len() + 1) < others.len() {
            across.push(session);
        }
        recipients.push(session);
    }
    let bar = bar(args.online as u64 + 1, "logging in");
    crowd.login_all(|| bar.inc(1))?;
    bar.finish_and_clear();
    let stored = if kind == Durability::Durable { Some(target.stored(&args.target, stores)?) } else { None };
    if let Some(stored) = &stored {
        settle(stored, crowd.newest(sender), target.clock)?;
    }
    let mut inboxes = Vec::with_capacity(args.members);
    inboxes.push((UserId(FIRST_USER), crowd.newest(sender)));
    for (at, session) in recipients.iter().enumerate() {
        inboxes.push((UserId(FIRST_USER + 1 + at as u64), crowd.newest(*session)));
    }
    for at in inboxes.len() as u64..args.members as u64 {
        let user = UserId(FIRST_USER + at);
        inboxes.push((user, stored.as_ref().map_or(Ok(Seq(0)), |s: &Stored| s.newest(user))?));
    }
    let with_rows: Vec<_> = recipients.iter().map(|session| (*session, crowd.newest(*session))).collect();
    let mut room = Room::new(kind);
    across.into_iter().for_each(|session| room.mark_across(session));
    let from = (sender, UserId(FIRST_USER));
    room.add(from, Conversation::Group(group), &with_rows, inboxes, args.pace.body);
    let patience = target.cpus.patience();
    let mut bench = Bench::new(crowd, room, target.gateway, stored, patience);
    bench.others = target.others;
    Ok(bench)
}

#[cfg(test)]
mod tests;
