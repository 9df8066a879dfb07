//! `bench direct`: pairs of a sender and a recipient, all at once.

use super::args::DirectArgs;
use super::bars::bar;
use super::bench::Bench;
use super::contract::Stores;
use super::error::LoadError;
use super::group::finish;
use super::report::{BenchReport, Scenario};
use super::room::Room;
use super::swarm::Window;
use super::target::Target;
use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::request::Durability;

const FIRST_USER: u64 = 2_000_001;

/// Runs it and prints the report; false: not clean.
pub(crate) fn run(args: &DirectArgs, stores: &dyn Stores) -> Result<bool, LoadError> {
    let pace = args.pace.pace()?;
    let target = Target::at_pace(&args.target, stores, &args.pace)?;
    let mut bench = log_in(args, target, stores)?;
    let rounds = bench.rounds(args.pace.rounds as usize, pace)?;
    let scenario = Scenario {
        scenario: "direct",
        pace: pace.name(),
        members: args.pairs * 2,
        online: args.pairs,
        body: args.pace.body as u64,
        ephemeral: args.pace.ephemeral,
    };
    finish(bench, BenchReport::of(scenario, &rounds), &args.target)
}

/// Pair `n` is users `2n` and `2n + 1` after the first.
fn log_in(args: &DirectArgs, target: Target, stores: &dyn Stores) -> Result<Bench, LoadError> {
    let kind = if args.pace.ephemeral { Durability::Ephemeral } else { Durability::Durable };
    let mut crowd = target.crowd()?;
    let users: Vec<_> = (0..args.pairs * 2).map(|at| UserId(FIRST_USER + at)).collect();
    let sessions: Vec<_> = users.iter().map(|user| (*user, crowd.add(*user, Window::Usual))).collect();
    let bar = bar(users.len() as u64, "logging in");
    crowd.login_all(|| bar.inc(1))?;
    bar.finish_and_clear();
    let mut room = Room::new(kind);
    for pair in sessions.chunks_exact(2) {
        let [(from, sender), (to, recipient)] = pair else { continue };
        let (sent, received) = (crowd.newest(*sender), crowd.newest(*recipient));
        let inboxes = vec![(*from, sent), (*to, received)];
        let recipients = [(*recipient, received)];
        room.add((*sender, *from), Conversation::User(*to), &recipients, inboxes, args.pace.body);
    }
    let stored = if kind == Durability::Durable { Some(target.stored(&args.target, stores)?) } else { None };
    let patience = target.cpus.patience();
    Ok(Bench::new(crowd, room, target.gateway, stored, patience))
}
