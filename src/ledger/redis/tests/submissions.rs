//! What a node has submitted and Redis has not settled: nothing is numbered twice, comes back, or changes its order.

mod changes;
mod groups;

use super::world::{Database, NOW, Node, Stream, after_a_loss, base_of, origin};
use crate::clock::Now;
use crate::contract::digest::digest;
use crate::contract::message::Incoming;
use crate::contract::position::AppliedPosition;
use crate::contract::report::StandsStill;
use crate::contract::store::{Lookup, LookupAnswer, LookupFound, StoredMessage};
use crate::contract::submission::{ChangeSubmission, GroupChange, MessageSubmission, Submission};
use crate::journal::record::{DirectRecord, Record};
use crate::ledger::Engine;
use crate::ledger::redis::entry::{Call, Entry};
use crate::ledger::redis::link::{Arrival, News, Reply, What};
use crate::ledger::redis::submitter::log::Log;
use crate::limits::{LOST_CHANGES_MS, SENDS_ANSWERED_MS};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::request::Adding;
use ringway_wire::schema::ErrorCode;

pub(super) const TO: Conversation = Conversation::User(UserId(2));

/// A node that follows an empty ledger, of which Redis has said the time.
pub(super) fn node() -> (Stream, Node) {
    let stream = Stream::begin(1, Seq(0), 0);
    let mut node = Node::start(1, 1, &Database { at: base_of(1), ..Database::default() });
    node.receive(stream.status()).unwrap();
    node.receive(clock(&stream, NOW.unix_ms)).unwrap();
    node.wants.clear();
    (stream, node)
}

pub(super) fn later(ms: u64) -> Now {
    Now { mono_ms: NOW.mono_ms + ms, unix_ms: NOW.unix_ms + ms }
}

pub(super) fn clock(stream: &Stream, redis_ms: u64) -> News {
    News::Clock { generation: stream.found.there.text(), count: stream.found.count, redis_ms }
}

/// A name that was given so long ago.
pub(super) fn named(ago_ms: u64, random: u128) -> ClientMsgId {
    ClientMsgId::from_parts(NOW.unix_ms - ago_ms, random << 16)
}

fn send(node: &mut Node, client_msg_id: ClientMsgId) {
    send_to(node, TO, client_msg_id);
}

fn send_to(node: &mut Node, to: Conversation, client_msg_id: ClientMsgId) {
    let incoming = Incoming::new(origin(), UserId(1), to, client_msg_id, b"body");
    let submission = MessageSubmission { incoming };
    node.engine.submit(NOW, Submission::Message(submission));
}

pub(super) fn lookups(node: &mut Node) -> Vec<Lookup> {
    let mut lookups = Vec::new();
    node.engine.take_lookups(&mut lookups);
    lookups
}

pub(super) fn found(node: &mut Node, lookup: Lookup, found: LookupFound) {
    node.engine.found(NOW, LookupAnswer { lookup, found });
    node.commit().unwrap();
}

/// The names that were submitted, in order.
pub(super) fn submitted(node: &mut Node) -> Vec<Vec<u8>> {
    let calls = node.wants.drain(..).flat_map(|what| match what {
        What::Submit { calls, .. } => calls,
        _ => Vec::new(),
    });
    calls.map(|Call { values: [_, _, _, name, ..], .. }| name).collect()
}

fn key(client_msg_id: ClientMsgId) -> Vec<u8> {
    [&1u64.to_be_bytes()[..], &client_msg_id.0].concat()
}

/// An entry of another node.
fn arrives(node: &mut Node, stream: &mut Stream, client_msg_id: ClientMsgId) {
    let (sender, to, sender_seq, recipient_seq) = (UserId(1), UserId(2), Seq(0), Seq(0));
    stream.push(0, |msg_id| {
        Record::Direct(DirectRecord { msg_id, sender, to, client_msg_id, sender_seq, recipient_seq, body: b"body" })
    });
    let (count, entry) = stream.entries.last().unwrap().clone();
    node.receive(News::Entries(vec![Arrival { count, entry }])).unwrap();
}

fn stored(msg_id: u64) -> LookupFound {
    let (msg_id, seq, digest) = (MsgId(msg_id), Seq(5), digest(TO, b"body"));
    LookupFound::Stored(StoredMessage { msg_id, seq, sent_at_ms: 0, digest })
}

#[test]
fn what_was_sent_through_another_node_meanwhile_is_not_submitted_again() {
    let (mut stream, mut node) = node();
    let name = named(0, 1);
    send(&mut node, name);
    node.commit().unwrap();
    assert_eq!(submitted(&mut node), [key(name)]);
    // The call never reached Redis, and the client has sent it through another node, which Redis may have forgotten.
    node.receive(News::Disconnected).unwrap();
    let mut later = stream.with_count(1);
    node.receive(later.status()).unwrap();
    later.found.count -= 1;
    arrives(&mut node, &mut later, name);
    assert_eq!((node.repeats.as_slice(), node.delivered.len()), (&[base_of(1) + 1][..], 1));
    node.commit().unwrap();
    assert_eq!(submitted(&mut node), Vec::<Vec<u8>>::new());
    stream = later;
    arrives(&mut node, &mut stream, named(0, 2));
    assert_eq!(node.repeats.len(), 1);
}

#[test]
fn a_question_of_a_session_that_is_lost_is_asked_again_in_the_next_though_both_are_heard_of_at_once() {
    let (stream, mut node) = node();
    let counts = |node: &mut Node| node.wants.drain(..).filter(|what| matches!(what, What::Count)).count();
    node.engine.submit(NOW, Submission::Position { origin: origin(), user: UserId(1) });
    node.commit().unwrap();
    assert_eq!(counts(&mut node), 1);
    node.redis.notify(News::Disconnected).unwrap();
    node.receive(stream.status()).unwrap();
    assert_eq!(counts(&mut node), 1);
}

#[test]
fn a_repeat_beside_a_reuse_of_its_name_is_not_refused_for_good() {
    let (mut stream, mut node) = node();
    let name = named(0, 1);
    arrives(&mut node, &mut stream, name);
    // Something else under the name goes first: it will be refused, but that is not known yet.
    let reuse = Incoming::new(origin(), UserId(1), TO, name, b"something else");
    let submission = MessageSubmission { incoming: reuse };
    node.engine.submit(NOW, Submission::Message(submission));
    send(&mut node, name);
    node.commit().unwrap();
    assert_eq!(node.refused, [ErrorCode::RetryLater]);
}

#[test]
fn a_name_that_redis_may_have_forgotten_is_looked_for_before_it_is_submitted_again() {
    for (answer, repeats, again) in [(stored(77), 1, 0), (LookupFound::Nothing, 0, 1)] {
        let (stream, mut node) = node();
        let (name, behind) = (named(0, 1), named(0, 2));
        send(&mut node, name);
        send(&mut node, behind);
        node.commit().unwrap();
        assert_eq!(submitted(&mut node).len(), 2);
        let replies = vec![Reply::Forgotten, Reply::Forgotten];
        node.receive(News::Replies { replies, count: stream.found.count }).unwrap();
        assert_eq!(submitted(&mut node), Vec::<Vec<u8>>::new());
        let [first, second] = lookups(&mut node)[..] else { panic!("both are looked for") };
        // What is behind it waits for it, whichever is found first.
        found(&mut node, second, LookupFound::Nothing);
        assert_eq!(submitted(&mut node), Vec::<Vec<u8>>::new());
        found(&mut node, first, answer);
        assert_eq!(node.repeats.len(), repeats);
        let names = submitted(&mut node);
        assert_eq!(names, [key(name), key(behind)][1 - again..]);
    }
}

#[test]
fn a_submission_older_than_what_redis_remembers_is_looked_for_without_asking_redis() {
    let (mut stream, mut node) = node();
    send(&mut node, named(0, 1));
    node.commit().unwrap();
    assert_eq!(submitted(&mut node).len(), 1);
    node.receive(News::Disconnected).unwrap();
    node.now = later(16 * 60_000);
    stream.found.now_ms = node.now.unix_ms;
    node.receive(stream.status()).unwrap();
    assert_eq!((submitted(&mut node).len(), lookups(&mut node).len()), (0, 1));
}

#[test]
fn what_was_lost_is_submitted_again_when_the_store_has_answered_and_redis_need_not_say_the_time_again() {
    let (next, mut one, _, database) = after_a_loss();
    one.receive(Stream::begin(1, Seq(0), 1).with_count(20).status()).unwrap();
    let name = named(0, 1);
    send(&mut one, name);
    one.commit().unwrap();
    assert_eq!(submitted(&mut one), [key(name)]);
    one.receive(News::Disconnected).unwrap();
    one.progress.advance_applied(AppliedPosition(base_of(2)));
    let mut next = next.with_count(1);
    one.receive(next.status()).unwrap();
    one.answer(&database).unwrap();
    next.found.count -= 1;
    // The answer would know of less than the stream that is not read yet.
    assert_eq!(lookups(&mut one), []);
    arrives(&mut one, &mut next, named(0, 2));
    let [lookup] = lookups(&mut one)[..] else { panic!("it is looked for") };
    found(&mut one, lookup, LookupFound::Nothing);
    let since: Vec<Vec<u8>> = one.wants.drain(..).flat_map(since_of).collect();
    assert_eq!(since, [(NOW.unix_ms / 1_000).to_string().into_bytes()]);
}

/// A node that searches for what it has sent, and the look-ups for it.
fn searching(names: &[ClientMsgId]) -> (Stream, Node, Vec<Lookup>) {
    let (stream, mut node) = node();
    names.iter().for_each(|name| send(&mut node, *name));
    node.commit().unwrap();
    assert_eq!(submitted(&mut node).len(), names.len());
    let replies = vec![Reply::Forgotten; names.len()];
    node.receive(News::Replies { replies, count: stream.found.count }).unwrap();
    let lookups = lookups(&mut node);
    assert_eq!(lookups.len(), names.len());
    (stream, node, lookups)
}

#[test]
fn a_store_that_cannot_answer_is_left_alone_for_a_while_twice_as_long_each_time() {
    let name = named(0, 1);
    let (_, mut node, mut asked) = searching(&[name]);
    let mut ms = 0;
    for pause_ms in [50, 100, 200, 400, 800, 1_000, 1_000] {
        node.now = later(ms);
        node.engine.found(node.now, LookupAnswer { lookup: asked[0], found: LookupFound::Unavailable });
        node.commit().unwrap();
        assert_eq!(lookups(&mut node), [], "at once");
        node.now = later(ms + pause_ms - 1);
        node.commit().unwrap();
        assert_eq!(lookups(&mut node), [], "a moment before {pause_ms} ms are over");
        ms += pause_ms;
        node.now = later(ms);
        node.commit().unwrap();
        asked = lookups(&mut node);
        assert_eq!(asked.len(), 1, "after {pause_ms} ms");
    }
    found(&mut node, asked[0], LookupFound::Nothing);
    assert_eq!(submitted(&mut node), [key(name)]);
}

#[test]
fn an_answer_of_a_generation_that_is_over_is_asked_for_again_at_once() {
    let (_, mut node, asked) = searching(&[named(0, 1)]);
    found(&mut node, Lookup { generation: 7, ..asked[0] }, LookupFound::Nothing);
    assert_eq!(lookups(&mut node), asked);
}

/// Since when nobody has used the names that are submitted, seconds.
fn since_of(what: What) -> Vec<Vec<u8>> {
    let What::Submit { calls, .. } = what else { return Vec::new() };
    calls.into_iter().map(|Call { values: [.., since, _], .. }| since).collect()
}

#[test]
fn what_retention_has_deleted_is_not_submitted_again() {
    let (next, mut one, _, database) = after_a_loss();
    one.receive(Stream::begin(1, Seq(0), 1).with_count(20).status()).unwrap();
    let name = named(0, 1);
    send(&mut one, name);
    one.commit().unwrap();
    assert_eq!(submitted(&mut one), [key(name)]);
    one.receive(News::Disconnected).unwrap();
    one.progress.advance_applied(AppliedPosition(base_of(2)));
    one.receive(next.status()).unwrap();
    one.answer(&database).unwrap();
    let [lookup] = lookups(&mut one)[..] else { panic!("it is looked for") };
    found(&mut one, lookup, LookupFound::Expired);
    one.receive(clock(&next, NOW.unix_ms)).unwrap();
    assert_eq!(submitted(&mut one), Vec::<Vec<u8>>::new());
    assert_eq!(one.refused, [ErrorCode::BadRequest]);
}

#[test]
fn what_a_sender_sends_behind_an_old_name_is_not_submitted_before_it() {
    let (_, mut node) = node();
    let (old, new, older) = (named(30 * 60_000, 1), named(0, 2), named(60 * 60_000, 3));
    [old, new, older].into_iter().for_each(|name| send(&mut node, name));
    node.commit().unwrap();
    assert_eq!(submitted(&mut node), Vec::<Vec<u8>>::new());
    let [first, second] = lookups(&mut node)[..] else { panic!("two are looked for") };
    found(&mut node, second, LookupFound::Nothing);
    found(&mut node, first, LookupFound::Nothing);
    assert_eq!(submitted(&mut node), [key(old), key(new), key(older)]);
}

#[test]
fn a_ledger_that_was_made_a_moment_ago_does_not_look_for_what_no_database_can_have() {
    let mut stream = Stream::begin(1, Seq(0), 0);
    stream.found.since_ms = NOW.unix_ms + 1_000;
    let mut node = Node::start(1, 1, &Database { at: base_of(1), ..Database::default() });
    node.receive(stream.status()).unwrap();
    node.wants.clear();
    send(&mut node, named(0, 1));
    node.commit().unwrap();
    assert_eq!((lookups(&mut node).len(), submitted(&mut node).len()), (0, 1));
}

#[test]
fn one_reading_of_a_clock_that_is_an_hour_ahead_dates_nothing_of_a_cluster() {
    let (mut stream, mut node) = node();
    for ms in (0..10_000).step_by(100) {
        let right = later(ms);
        node.now = right;
        // One in ten.
        node.now.unix_ms += if ms % 1_000 == 500 { 3_600_000 } else { 0 };
        let name = ClientMsgId::from_parts(right.unix_ms, u128::from(ms + 1) << 16);
        let incoming = Incoming::new(origin(), UserId(1), TO, name, b"body");
        let submission = MessageSubmission { incoming };
        node.engine.submit(node.now, Submission::Message(submission));
        node.commit().unwrap();
        let [What::Submit { calls, .. }] = &node.wants[..] else { panic!("{ms}: {:?}", node.wants) };
        let entry = calls[0].values.last().unwrap();
        let Entry { record, .. } = Entry::decode(entry).unwrap();
        let sent_at_ms = record.msg_id().unwrap().sent_at_ms();
        assert!(sent_at_ms.abs_diff(right.unix_ms) <= 1_000, "{ms}: {sent_at_ms}");
        node.wants.clear();
        arrives(&mut node, &mut stream, name);
        node.wants.clear();
    }
}

#[test]
fn a_node_whose_disk_is_full_refuses_and_says_so_until_there_is_room() {
    let (stream, mut node) = node();
    node.log_disk.fill();
    send(&mut node, named(0, 1));
    node.commit().unwrap();
    assert_eq!((submitted(&mut node).len(), node.refused.as_slice()), (0, &[ErrorCode::StorageFull][..]));
    // As long as it lasts, and nobody sends.
    for seconds in 1..=20 {
        node.now = later(seconds * 1_000);
        node.receive(clock(&stream, node.now.unix_ms)).unwrap();
        assert_eq!(node.engine.counters().stands_still, Some(StandsStill::LogFull), "{seconds} s");
    }
    node.log_disk.make_room();
    node.now = later(30_000);
    node.receive(clock(&stream, node.now.unix_ms)).unwrap();
    assert_eq!(node.engine.counters().stands_still, None);
    send(&mut node, named(0, 2));
    node.commit().unwrap();
    assert_eq!(submitted(&mut node).len(), 1);
}

#[test]
fn a_stream_with_as_much_unstored_as_may_be_is_told_until_it_is_not() {
    let (stream, mut node) = node();
    for why in [StandsStill::Full, StandsStill::NoMemory] {
        node.receive(News::NoRoom(why)).unwrap();
        assert_eq!(node.engine.counters().stands_still, Some(why));
    }
    node.now = later(6_000);
    node.receive(clock(&stream, node.now.unix_ms)).unwrap();
    assert_eq!(node.engine.counters().stands_still, None);
}

#[test]
fn who_waits_for_a_redis_that_does_not_answer_is_told_in_time_and_what_was_sent_goes_on() {
    let (mut stream, mut node) = node();
    let name = named(0, 1);
    send(&mut node, name);
    node.commit().unwrap();
    node.now = later(SENDS_ANSWERED_MS - 1);
    node.commit().unwrap();
    assert_eq!(node.refused, []);
    for more in 1..3 {
        node.now = later(SENDS_ANSWERED_MS + more);
        node.commit().unwrap();
    }
    assert_eq!(node.refused, [ErrorCode::RetryLater]);
    // Nobody is told twice, and it is delivered when Redis has it.
    arrives(&mut node, &mut stream, name);
    assert_eq!((node.repeats.len(), node.delivered.len()), (0, 1));
}

fn change(node: &mut Node, change: GroupChange) {
    let change = ChangeSubmission { origin: origin(), actor: UserId(1), change, adding: Adding::All };
    node.engine.submit(node.now, Submission::Change(change));
    node.commit().unwrap();
}

#[test]
fn a_group_that_everybody_has_left_is_not_made_again_but_one_that_was_lost_is() {
    // Whether the database knows that it was left, and how much later its newest message is.
    let day_ms = 24 * 3_600_000;
    for (were_left, later_ms, again) in
        [(true, 0, 0), (true, day_ms, 0), (false, 0, 1), (false, day_ms, 1), (false, 31 * day_ms, 0)]
    {
        let (next, mut one, _, mut database) = after_a_loss();
        one.receive(Stream::begin(1, Seq(0), 1).with_count(20).status()).unwrap();
        change(&mut one, GroupChange::Create(vec![UserId(2)]));
        assert_eq!(submitted(&mut one).len(), 1);
        one.receive(News::Disconnected).unwrap();
        (database.were_left, database.newest_ms) = (were_left, NOW.unix_ms + later_ms);
        one.progress.advance_applied(AppliedPosition(base_of(2)));
        one.receive(next.status()).unwrap();
        one.answer(&database).unwrap();
        lookups(&mut one);
        one.commit().unwrap();
        assert_eq!(submitted(&mut one).len(), again, "{were_left} {later_ms}");
    }
}

#[test]
fn who_sends_to_a_group_that_is_lost_is_refused_for_good_only_when_nobody_makes_it_again() {
    let stranger = Conversation::Group(GroupId(77));
    // Of the first generation, of one that was made just now, and of one that was made a minute ago.
    for (generation, age_ms, code) in [
        (1, 0, ErrorCode::UnknownGroup),
        (2, 0, ErrorCode::RetryLater),
        (2, LOST_CHANGES_MS + 1_000, ErrorCode::UnknownGroup),
    ] {
        let mut stream = Stream::begin(generation, Seq(0), 0);
        stream.found.since_ms = NOW.unix_ms - age_ms;
        let mut node = Node::start(1, 1, &Database { at: base_of(generation), ..Database::default() });
        node.receive(stream.status()).unwrap();
        node.receive(clock(&stream, NOW.unix_ms)).unwrap();
        send_to(&mut node, stranger, named(0, 1));
        node.commit().unwrap();
        let asked = lookups(&mut node);
        found(&mut node, asked[0], LookupFound::Nothing);
        change(&mut node, GroupChange::Leave(GroupId(77)));
        assert_eq!(node.refused, [code, code], "generation {generation}, {age_ms} ms old");
    }
}

#[test]
fn a_session_goes_on_behind_what_was_read_though_a_creation_is_in_flight() {
    let (mut stream, mut node) = node();
    (1..=3).for_each(|random| arrives(&mut node, &mut stream, named(0, random)));
    change(&mut node, GroupChange::Create(vec![UserId(2)]));
    node.receive(News::Disconnected).unwrap();
    node.wants.clear();
    node.receive(stream.status()).unwrap();
    // A snapshot would be behind what was numbered, which would be numbered again.
    assert!(matches!(node.wants[..], [What::Follow { after, .. }, ..] if after == base_of(1) + 3), "{:?}", node.wants);
}

#[test]
fn nobody_is_refused_before_the_disk_knows_that_it_must_not_be_submitted_again() {
    for reply in [Reply::Reused, Reply::Full, Reply::NoMemory] {
        let (stream, mut node) = node();
        send(&mut node, named(0, 1));
        node.commit().unwrap();
        assert_eq!(submitted(&mut node).len(), 1);
        node.receive(News::Replies { replies: vec![reply.clone()], count: stream.found.count }).unwrap();
        assert_eq!(node.refused.len(), 1, "{reply:?}");
        // Then the machine loses its power.
        let disk = node.log_disk.clone();
        drop(node);
        disk.crash();
        assert_eq!(Log::open(disk, 0, 2).unwrap().0.open_count(), 0, "{reply:?}");
    }
}

#[test]
fn who_is_refused_while_the_disk_is_full_is_not_submitted_again_after_a_crash() {
    let (stream, mut node) = node();
    send(&mut node, named(0, 1));
    node.commit().unwrap();
    assert_eq!(submitted(&mut node).len(), 1);
    node.log_disk.fill();
    let replies = vec![Reply::Reused];
    node.receive(News::Replies { replies, count: stream.found.count }).unwrap();
    // Whoever was told, the disk knows; and who was not, is told when it does.
    node.log_disk.make_room();
    let told = node.refused.len();
    node.commit().unwrap();
    node.now = later(1_000);
    node.receive(clock(&stream, node.now.unix_ms)).unwrap();
    assert_eq!(node.refused, [ErrorCode::ClientMsgIdReused], "{told} before there was room");
    let disk = node.log_disk.clone();
    drop(node);
    disk.crash();
    assert_eq!(Log::open(disk, 0, 2).unwrap().0.open_count(), 0);
}

#[test]
fn a_stream_with_other_entries_under_known_numbers_is_not_followed() {
    let (mut stream, mut node) = node();
    (1..=3).for_each(|random| arrives(&mut node, &mut stream, named(0, random)));
    node.receive(News::Disconnected).unwrap();
    node.wants.clear();
    node.receive(stream.status()).unwrap();
    let [What::Follow { known, .. }] = &node.wants[..] else { panic!("{:?}", node.wants) };
    let expected: Vec<(u64, u32)> =
        stream.entries.iter().map(|(count, entry)| (*count, crc32c::crc32c(entry))).collect();
    assert_eq!(known, &expected);
    node.wants.clear();
    node.receive(News::OtherEntries).unwrap();
    assert!(matches!(&node.wants[..], [What::Begin { generation, .. }] if generation.number == 2), "{:?}", node.wants);
    send(&mut node, named(0, 9));
    node.commit().unwrap();
    assert_eq!(node.refused, [ErrorCode::RetryLater]);
}
