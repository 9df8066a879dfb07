//! The table of what is in flight, under whatever comes: each submission is in one stage, and none is forgotten.

use super::super::searches::Again;
use super::super::subject::Subject;
use super::InFlight;
use crate::contract::ids::Origin;
use crate::contract::message::Incoming;
use crate::contract::position::StreamPosition;
use crate::ledger::dedup::Name;
use crate::ledger::redis::link::Reply;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, RosterVersion, UserId};

/// A message of one of five senders, to one of three groups or to a user.
fn message(rng: &mut fastrand::Rng, number: u64) -> (Name, Subject) {
    let to = match rng.u64(..6) {
        group @ 0..3 => Conversation::Group(GroupId(group)),
        user => Conversation::User(UserId(user)),
    };
    let incoming = Incoming::new(
        Origin::NOBODY,
        UserId(rng.u64(..5)),
        to,
        ClientMsgId::from_parts(1, u128::from(number)),
        b"body",
    );
    (Name::of(&incoming), Subject::Old(incoming))
}

fn reply(rng: &mut fastrand::Rng) -> Reply {
    match rng.u8(..5) {
        0 => Reply::Bounced,
        1 => Reply::Forgotten,
        2 => Reply::Full,
        _ => Reply::Appended,
    }
}

/// Calls what is to be called, from the first on, as the submitter does.
fn call(table: &mut InFlight, rng: &mut fastrand::Rng) -> usize {
    let (mut called, mut at) = (Vec::new(), MsgId(0));
    while called.len() < 4
        && let Some(msg_id) = table.next_unsent(at)
    {
        at = msg_id;
        match rng.u8(..8) {
            _ if table.is_held(msg_id) => {}
            0 => table.search(msg_id),
            1 => table.defer(msg_id),
            _ => called.push((msg_id, table.group_of(msg_id).map(|_| RosterVersion(1)))),
        }
    }
    let count = called.len();
    table.call(called);
    count
}

/// The store is asked for what it has to be asked for, and answers.
fn search(table: &mut InFlight, rng: &mut fastrand::Rng) {
    let mut lookups = Vec::new();
    table.take_lookups(StreamPosition(u64::MAX), 1, &mut lookups);
    for lookup in lookups {
        let name = Name { sender: lookup.sender, client_msg_id: lookup.client_msg_id };
        match rng.u8(..3) {
            0 => table.ask_again(&name, Again::OutOfDate),
            _ => table.answered(&name).submissions.into_iter().for_each(|msg_id| table.not_stored(msg_id, 1)),
        }
    }
}

#[test]
fn each_submission_is_in_one_stage_and_none_is_forgotten_whatever_comes() {
    for seed in 0..300 {
        let (mut rng, mut table) = (fastrand::Rng::with_seed(seed), InFlight::default());
        let (mut out, mut seen) = (std::collections::VecDeque::new(), 0);
        for number in 1..120 {
            match rng.u8(..12) {
                0..4 => {
                    let (name, subject) = message(&mut rng, number);
                    table.add(0, MsgId(number), Some((name, 0)), subject);
                }
                4 => table.committed(),
                5 | 6 => out.push_back(call(&mut table, &mut rng)),
                7 => {
                    let replies = out.pop_front().map(|count| (0..count).map(|_| reply(&mut rng)).collect());
                    replies.into_iter().for_each(|replies| table.reply(replies, StreamPosition(number)));
                }
                8 => {
                    seen = rng.u64(seen..=number);
                    while let Some((msg_id, reply)) = table.next_reply(StreamPosition(seen)) {
                        match reply {
                            Reply::Bounced => table.send(msg_id),
                            _ => table.search(msg_id),
                        }
                    }
                }
                9 => search(&mut table, &mut rng),
                10 => drop(table.remove(MsgId(rng.u64(1..=number)))),
                _ if rng.bool() => {
                    table.lost();
                    out.clear();
                }
                _ => {
                    table.committed();
                    table.lost();
                    out.clear();
                    table.search_all(StreamPosition(0));
                }
            }
            table.check();
        }
        table.committed();
        table.lost();
        table.retry_deferred();
        for _ in 0..100 {
            search(&mut table, &mut rng);
        }
        table.check();
        assert_eq!(table.unsent_count(), table.len(), "seed {seed}: all are to be called");
        assert!(!table.searches_all());
    }
}
