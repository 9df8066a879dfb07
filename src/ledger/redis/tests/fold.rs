//! Nodes that follow one stream: whatever else is different about them, they number alike.

use super::world::{Database, NOW, Node, Stream, after_a_loss, base_of, origin};
use crate::contract::message::Incoming;
use crate::contract::position::{AppliedPosition, StreamPosition};
use crate::contract::report::StandsStill;
use crate::contract::store::{Lookup, LookupAnswer, LookupFound};
use crate::contract::submission::{MessageSubmission, Submission};
use crate::journal::record::Record;
use crate::ledger::redis::entry::Entry;
use crate::ledger::redis::link::{Age, Arrival, Compared, Extent, Generation, News, What};
use crate::ledger::redis::seed::floor_of;
use crate::ledger::{Engine, LedgerError};
use ringway_wire::ids::{ClientMsgId, Conversation, Seq, UserId};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// A first stream with a group in it.
fn stream(messages: u64) -> Stream {
    let mut stream = Stream::begin(1, Seq(0), 0);
    stream.change(GroupChangeKind::Created, &(2..=60).collect::<Vec<_>>());
    stream.mix(messages);
    stream
}

#[test]
fn nodes_with_other_shards_number_alike_and_agree_on_every_window() {
    let stream = stream(3_000);
    let (mut one, mut other) = (Node::start(1, 1, &Database::default()), Node::start(2, 3, &Database::default()));
    for node in [&mut one, &mut other] {
        node.progress.advance_applied(AppliedPosition(base_of(1)));
        node.receive(stream.status()).unwrap();
        node.answer(&Database { at: base_of(1), ..Database::default() }).unwrap();
        node.follow(&stream, 0).unwrap();
    }
    assert!(one.delivered.len() > 100_000);
    // Another shard gives a direct message's other row; each user's are in order and without holes.
    assert_eq!(one.delivered, other.delivered);
    let compared = |node: &Node| -> Vec<(u64, u64)> {
        let compare = |what: &What| match what {
            What::Compare { window, digest, .. } => Some((*window, *digest)),
            _ => None,
        };
        node.wants.iter().filter_map(compare).collect()
    };
    assert_eq!(compared(&one).len(), 2);
    assert_eq!(compared(&one), compared(&other));
    // One that is told that others differ ends.
    let error = one.receive(News::Compared { window: 5, outcome: Compared::Other }).unwrap_err();
    assert!(error.to_string().contains("window 5"), "{error}");
}

#[test]
fn a_node_that_starts_from_the_database_numbers_like_one_that_has_followed_all() {
    let stream = stream(500);
    let mut first = Node::start(1, 1, &Database { at: base_of(1), ..Database::default() });
    first.receive(stream.status()).unwrap();
    first.follow(&stream, 0).unwrap();
    for stored in [1, 2, 100, 257, 500] {
        let mut database = Database { members: (1..=60).collect(), version: 1, ..Database::default() };
        database.write(&first.delivered, base_of(1) + stored);
        let (mut at, entries) = (stored as usize, &stream.entries);
        // The group's members as they were there.
        for (_, entry) in &entries[1..at.max(1)] {
            if let Record::Change(change) = Entry::decode(entry).unwrap().record {
                database.version = change.version.0;
                let users = change.users.iter().map(|user| user.0);
                match change.kind {
                    GroupChangeKind::Added => database.members.extend(users),
                    _ => database.members.retain(|member| !change.users.contains(&UserId(*member))),
                }
            }
        }
        at = database.at as usize;
        let mut later = Node::start(2, 2, &database);
        later.receive(stream.status()).unwrap();
        later.follow(&stream, at as u64).unwrap();
        let expected: Vec<_> = first.delivered.iter().copied().filter(|(msg_id, ..)| *msg_id > at as u64).collect();
        assert_eq!(later.delivered, expected, "from entry {stored} on");
    }
}

/// The entries behind one, as they come at once.
fn behind(stream: &Stream, after: u64) -> News {
    let arrivals = stream.entries.iter().filter(|(count, _)| *count > after);
    News::Entries(arrivals.map(|(count, entry)| Arrival { count: *count, entry: entry.clone() }).collect())
}

/// A node that is started again while others go on, what it and another node have delivered, and the database. Of twenty
/// entries the database had four when it was started, and has ten now, which are cut off.
fn started_behind_what_is_cut_off() -> (Stream, Node, Node, Database) {
    let mut stream = Stream::begin(1, Seq(0), 1);
    (0..20).for_each(|_| stream.group());
    let base = base_of(1);
    let mut database = Database { at: base, members: (1..=5).collect(), version: 1, ..Database::default() };
    let mut first = Node::start(1, 1, &database);
    first.receive(stream.status()).unwrap();
    first.follow(&stream, 0).unwrap();
    database.write(&first.delivered, base + 4);
    let late = Node::start(2, 1, &database);
    database.write(&first.delivered, base + 10);
    (stream, first, late, database)
}

#[test]
fn a_node_behind_whose_snapshot_the_stream_is_cut_off_before_it_has_read_any_of_it_reads_another_one() {
    let (mut stream, first, mut late, database) = started_behind_what_is_cut_off();
    let base = base_of(1);
    assert_eq!(late.progress.followed(), StreamPosition(base + 4), "what its lease says that it has read");
    late.receive(stream.status()).unwrap();
    late.engine.submit(NOW, Submission::Position { origin: origin(), user: UserId(1) });
    late.receive(behind(&stream, base + 10)).unwrap();
    assert!(matches!(late.wants[..], [What::Follow { .. }, .., What::Status]), "{:?}", late.wants);
    assert_eq!(late.engine.counters().stands_still, Some(StandsStill::CatchingUp));
    // What was on its way of the stream that is not followed any more.
    late.receive(behind(&stream, base + 15)).unwrap();
    late.wants.clear();
    late.receive(stream.status()).unwrap();
    late.receive(behind(&stream, base + 15)).unwrap();
    late.progress.advance_applied(AppliedPosition(base + 10));
    late.answer(&database).unwrap();
    assert!(
        matches!(late.wants[..], [What::Follow { after, .. }, What::Count] if after == base + 10),
        "{:?}",
        late.wants
    );
    assert_eq!(late.progress.followed(), StreamPosition(base + 10));
    late.follow(&stream, base + 10).unwrap();
    let expected: Vec<_> = first.delivered.iter().copied().filter(|(msg_id, ..)| *msg_id > base + 10).collect();
    assert_eq!(late.delivered, expected);
    assert_eq!(late.engine.counters().stands_still, None, "it numbers again");
    // One that has read some of it cannot know what it has missed, and ends.
    (0..5).for_each(|_| stream.group());
    let error = late.receive(behind(&stream, base + 22)).unwrap_err();
    assert!(error.to_string().contains("stood still for too long"), "{error}");
}

#[test]
fn a_node_that_reads_another_snapshot_follows_though_the_database_is_ahead_of_what_it_was_told_of_redis() {
    let (mut stream, first, mut late, mut database) = started_behind_what_is_cut_off();
    late.receive(stream.status()).unwrap();
    late.receive(News::Cut(base_of(1) + 10)).unwrap();
    late.receive(stream.status()).unwrap();
    (0..5).for_each(|_| stream.group());
    database.write(&first.delivered, base_of(1) + 22);
    late.wants.clear();
    late.answer(&database).unwrap();
    assert!(matches!(late.wants[..], [What::Status]), "{:?}", late.wants);
    late.wants.clear();
    late.receive(stream.status()).unwrap();
    assert!(matches!(late.wants[..], [What::Follow { .. }]), "not another one, for ever: {:?}", late.wants);
}

#[test]
fn after_a_loss_every_user_goes_on_from_the_floor_on_every_node() {
    let (mut next, mut one, mut two, database) = after_a_loss();
    next.group();
    next.direct(900, 2);
    let floor = next.found.floor.0;
    assert!(floor > 20);
    let mut late = Node::start(3, 3, &database);
    for node in [&mut one, &mut two] {
        node.progress.advance_applied(AppliedPosition(base_of(2)));
        node.receive(next.status()).unwrap();
        node.answer(&database).unwrap();
        node.follow(&next, 0).unwrap();
    }
    late.receive(next.status()).unwrap();
    late.follow(&next, 0).unwrap();
    let base = base_of(2);
    let mut expected: Vec<_> = (1..=5).map(|user| (base + 1, user, floor + 1)).collect();
    expected.push((base + 2, 900, floor + 1));
    for node in [&one, &two, &late] {
        assert_eq!(node.delivered, expected);
    }
}

#[test]
fn a_node_that_comes_to_the_new_stream_late_begins_behind_what_is_stored_and_its_users_read_that() {
    let (mut next, mut one, mut two, mut database) = after_a_loss();
    (0..10).for_each(|_| next.group());
    one.progress.advance_applied(AppliedPosition(base_of(2)));
    one.receive(next.status()).unwrap();
    one.answer(&database).unwrap();
    one.follow(&next, 0).unwrap();
    database.write(&one.delivered, base_of(2) + 4);
    let floor = next.found.floor.0;
    two.progress.advance_applied(AppliedPosition(base_of(2)));
    two.receive(next.status()).unwrap();
    two.answer(&database).unwrap();
    assert_eq!(two.missed, (1..=5).map(|user| (user, floor + 4)).collect::<Vec<_>>());
    two.follow(&next, 0).unwrap();
    one.delivered.retain(|(msg_id, ..)| *msg_id > base_of(2) + 4);
    assert_eq!(two.delivered, one.delivered);
    assert_eq!(two.delivered.len(), 6 * 5);
}

/// Sends a message under a name of long ago, which the store is asked for; returns the question.
fn ask_for_an_old_name(node: &mut Node) -> Option<Lookup> {
    let client_msg_id = ClientMsgId::from_parts(NOW.unix_ms - 3_600_000, 1);
    let to = Conversation::User(UserId(2));
    let incoming = Incoming::new(origin(), UserId(1), to, client_msg_id, b"body");
    let direct = MessageSubmission { incoming };
    node.engine.submit(NOW, Submission::Message(direct));
    let mut lookups = Vec::new();
    node.engine.take_lookups(&mut lookups);
    lookups.pop()
}

fn is_submitted(node: &Node) -> bool {
    node.wants.iter().any(|what| matches!(what, What::Submit { .. }))
}

#[test]
fn what_the_store_had_not_in_a_generation_that_is_over_says_nothing_about_what_it_has_now() {
    let (next, mut one, _, database) = after_a_loss();
    one.receive(Stream::begin(1, Seq(0), 1).with_count(20).status()).unwrap();
    let lookup = ask_for_an_old_name(&mut one).unwrap();
    // Before the answer is there, the ledger is lost and made anew; another node may have stored it meanwhile.
    one.receive(News::Disconnected).unwrap();
    one.progress.advance_applied(AppliedPosition(base_of(2)));
    one.receive(next.status()).unwrap();
    one.answer(&database).unwrap();
    one.engine.found(NOW, LookupAnswer { lookup, found: LookupFound::Nothing });
    one.commit().unwrap();
    assert_eq!((one.refused.as_slice(), is_submitted(&one)), (&[ErrorCode::RetryLater][..], false));
    // Asked again, it counts.
    let lookup = ask_for_an_old_name(&mut one).unwrap();
    one.engine.found(NOW, LookupAnswer { lookup, found: LookupFound::Nothing });
    one.commit().unwrap();
    assert_eq!((one.refused.len(), is_submitted(&one)), (1, true));
}

#[test]
fn a_floor_below_what_was_given_out_is_refused() {
    let (mut next, mut one, _, database) = after_a_loss();
    next.found.floor = Seq(19);
    one.progress.advance_applied(AppliedPosition(base_of(2)));
    one.receive(next.status()).unwrap();
    let error = one.answer(&database).unwrap_err();
    assert!(matches!(error, LedgerError::Floor { floor: Seq(19), highest: Seq(20) }), "{error}");
}

#[test]
fn a_redis_that_was_just_started_is_not_gone_on_with_but_what_it_has_lost_is_found_at_once() {
    let (mut next, mut one, mut two, _) = after_a_loss();
    // The first has read twenty entries, the second twelve.
    next.found.there = Generation { number: 1, nonce: 1 };
    next.found.age = Age::Fresh;
    next.found.count = base_of(1) + 15;
    for node in [&mut one, &mut two] {
        node.wants.clear();
        node.receive(next.status()).unwrap();
    }
    assert!(matches!(one.wants[..], [What::Begin { .. }]), "{:?}", one.wants);
    assert!(matches!(two.wants[..], [What::Status]), "{:?}", two.wants);
    next.found.age = Age::Settled;
    two.wants.clear();
    two.receive(next.status()).unwrap();
    assert!(matches!(two.wants[..], [What::Follow { .. }]), "{:?}", two.wants);
}

#[test]
fn a_ledger_of_which_a_part_is_missing_is_made_anew_whatever_this_node_has_read() {
    let (mut next, mut one, mut two, _) = after_a_loss();
    next.found.extent = Extent::Part;
    for (node, age) in [(&mut one, Age::Settled), (&mut two, Age::Fresh)] {
        node.wants.clear();
        next.found.age = age;
        // Some bucket was to have a generation that was never finished.
        let (found, highest) = (Some(next.found.clone()), 9);
        node.receive(News::Status { session: 1, found, highest }).unwrap();
        let [What::Begin { generation, replaces, .. }] = &node.wants[..] else { panic!("{:?}", node.wants) };
        assert_eq!((generation.number, replaces.as_ref()), (10, Some(&next.found.there)));
    }
}

#[test]
fn a_node_with_another_number_of_buckets_ends_and_says_which() {
    let (_, mut one, ..) = after_a_loss();
    let error = one.receive(News::Buckets { theirs: 3, ours: 1 }).unwrap_err();
    assert!(error.to_string().contains("cluster.buckets = 3, and this one has 1"), "{error}");
}

#[test]
fn a_redis_that_was_started_while_no_node_was_there_is_stored_and_made_anew_before_anything_is_numbered() {
    let (mut stream, _, _, mut database) = after_a_loss();
    (0..3).for_each(|_| stream.group());
    stream.found.is_confirmed = false;
    let mut node = Node::start(3, 1, &database);
    node.receive(stream.status()).unwrap();
    node.follow(&stream, 0).unwrap();
    // What Redis has is valid, and delivered.
    assert_eq!(node.delivered.len(), 3 * 5);
    assert!(ask_for_an_old_name(&mut node).is_none());
    node.commit().unwrap();
    assert_eq!(node.refused, [ErrorCode::RetryLater]);
    assert_eq!(node.engine.counters().stands_still, Some(StandsStill::Unverified), "operators are told");
    assert!(node.wants.iter().all(|what| matches!(what, What::Follow { .. })), "{:?}", node.wants);
    database.write(&node.delivered, base_of(2) + 3);
    node.progress.advance_applied(AppliedPosition(database.at));
    node.commit().unwrap();
    // Perhaps another node was there after all.
    assert!(matches!(&node.wants[..], [.., What::Status]), "{:?}", node.wants);
    node.receive(stream.status()).unwrap();
    assert!(matches!(&node.wants[..], [.., What::Begin { generation, .. }] if generation.number == 3));
}

#[test]
fn a_ledger_that_another_node_has_confirmed_meanwhile_is_not_made_anew() {
    let (mut stream, _, _, mut database) = after_a_loss();
    (0..3).for_each(|_| stream.group());
    stream.found.is_confirmed = false;
    let mut node = Node::start(3, 1, &database);
    node.receive(stream.status()).unwrap();
    node.follow(&stream, 0).unwrap();
    database.write(&node.delivered, base_of(2) + 3);
    node.progress.advance_applied(AppliedPosition(database.at));
    node.commit().unwrap();
    // One that was cut off when this one began has come back, and has said that all is there.
    stream.found.is_confirmed = true;
    node.receive(stream.status()).unwrap();
    let is_begin = |what: &What| matches!(what, What::Begin { .. });
    assert!(!node.wants.iter().any(is_begin), "{:?}", node.wants);
    assert!(matches!(&node.wants[..], [.., What::Follow { after, .. }] if *after == base_of(2) + 3));
    assert_eq!(node.engine.counters().stands_still, None);
}

#[test]
fn a_node_confirms_no_redis_that_has_less_than_it_was_told_of_though_it_has_not_read_that() {
    let told = Stream::begin(1, Seq(0), 1).with_count(20);
    let mut back = Stream::begin(1, Seq(0), 1).with_count(20);
    back.found.is_confirmed = false;
    let database = Database { at: base_of(1), ..Database::default() };
    let begin = |node: u16| {
        let mut node = Node::start(node, 1, &database);
        node.receive(told.status()).unwrap();
        node
    };
    let end = |node: &mut Node| {
        node.receive(News::Disconnected).unwrap();
        node.wants.clear();
    };
    // All of it is there.
    let mut node = begin(1);
    end(&mut node);
    node.receive(back.status()).unwrap();
    assert!(matches!(node.wants[..], [What::Confirm { read, .. }] if read == base_of(1) + 20), "{:?}", node.wants);
    // It has gone back, as far as the session's beginning told, or a heartbeat since.
    let mut node = begin(2);
    end(&mut node);
    back.found.count = base_of(1) + 19;
    node.receive(back.status()).unwrap();
    assert!(matches!(node.wants[..], [What::Begin { .. }]), "{:?}", node.wants);
    let mut node = begin(3);
    let generation = told.found.there.text();
    node.receive(News::Clock { generation, count: base_of(1) + 25, redis_ms: NOW.unix_ms }).unwrap();
    end(&mut node);
    back.found.count = base_of(1) + 24;
    node.receive(back.status()).unwrap();
    assert!(matches!(node.wants[..], [What::Begin { .. }]), "{:?}", node.wants);
}

#[test]
fn a_node_that_was_there_before_redis_was_started_confirms_what_it_has_and_goes_on() {
    let (_, mut one, mut two, _) = after_a_loss();
    let mut stream = Stream::begin(1, Seq(0), 1).with_count(15);
    stream.found.is_confirmed = false;
    for node in [&mut one, &mut two] {
        node.wants.clear();
        node.receive(stream.status()).unwrap();
    }
    assert!(matches!(one.wants[..], [What::Begin { .. }]), "it has read more: {:?}", one.wants);
    assert!(matches!(two.wants[..], [What::Confirm { read, .. }] if read == base_of(1) + 12), "{:?}", two.wants);
    stream.found.is_confirmed = true;
    two.receive(stream.status()).unwrap();
    assert!(matches!(two.wants[..], [_, What::Follow { .. }]), "{:?}", two.wants);
}

#[test]
fn a_generation_is_made_only_by_the_node_that_has_moved_the_database_to_it() {
    let (_, mut one, mut two, database) = after_a_loss();
    let base = StreamPosition(base_of(2));
    for node in [&mut one, &mut two] {
        node.wants.clear();
        node.receive(News::Status { session: 1, found: None, highest: 0 }).unwrap();
        assert!(matches!(&node.wants[..], [What::Begin { generation, .. }] if generation.number == 2));
        node.receive(News::Begun).unwrap();
        assert_eq!(node.progress.fence_asked(), base);
        node.progress.advance_applied(base.into());
    }
    // The first has, the second has not: perhaps that generation was made, given out and lost already.
    one.progress.report_fenced(base);
    for node in [&mut one, &mut two] {
        node.wants.clear();
        node.commit().unwrap();
    }
    assert!(matches!(two.wants[..], [What::Status]), "{:?}", two.wants);
    two.wants.clear();
    two.receive(News::Status { session: 1, found: None, highest: 0 }).unwrap();
    assert!(matches!(&two.wants[..], [What::Begin { generation, .. }] if generation.number == 3));
    one.answer(&database).unwrap();
    let [What::Seed { generation, base: from, floor, groups }] = &one.wants[..] else { panic!("{:?}", one.wants) };
    assert_eq!((generation.number, *from, *floor), (2, base.0, floor_of(2, Seq(8))));
    assert_eq!(groups[..], [vec![b"7".to_vec(), b"1".to_vec()]]);
}

#[test]
fn a_ledger_past_which_the_database_was_moved_is_made_anew() {
    // A node has moved it because Redis had lost its data, and then Redis is back with all of them: what is numbered there
    // can never be stored.
    let stream = stream(100);
    let mut node = Node::start(1, 1, &Database { at: base_of(1), ..Database::default() });
    node.receive(stream.status()).unwrap();
    node.follow(&stream, 0).unwrap();
    node.progress.advance_applied(AppliedPosition(base_of(2)));
    node.wants.clear();
    node.commit().unwrap();
    assert!(matches!(node.wants[..], [What::Status]), "{:?}", node.wants);
    node.wants.clear();
    node.receive(stream.status()).unwrap();
    assert!(matches!(&node.wants[..], [What::Begin { generation, .. }] if generation.number == 3), "{:?}", node.wants);
}

#[test]
fn the_database_is_not_moved_any_more_past_a_ledger_that_is_there_again() {
    let stream = stream(100);
    let mut node = Node::start(1, 1, &Database { at: base_of(1), ..Database::default() });
    node.receive(stream.status()).unwrap();
    node.follow(&stream, 0).unwrap();
    node.receive(News::Disconnected).unwrap();
    node.receive(News::Status { session: 1, found: None, highest: 0 }).unwrap();
    node.receive(News::Begun).unwrap();
    assert_eq!(node.progress.fence_asked(), StreamPosition(base_of(2)));
    node.receive(News::Disconnected).unwrap();
    node.receive(stream.status()).unwrap();
    assert_eq!(node.progress.fence_asked(), StreamPosition(0));
}

#[test]
fn a_node_behind_which_the_stream_was_cut_ends_though_nothing_new_comes() {
    let stream = stream(100);
    let mut node = Node::start(1, 1, &Database::default());
    node.progress.advance_applied(AppliedPosition(base_of(1)));
    node.receive(stream.status()).unwrap();
    node.answer(&Database { at: base_of(1), ..Database::default() }).unwrap();
    let (count, entry) = stream.entries[0].clone();
    node.receive(News::Entries(vec![Arrival { count, entry }])).unwrap();
    // What it has read anyway makes no difference.
    node.receive(News::Cut(count)).unwrap();
    let ended = node.receive(News::Cut(stream.found.count));
    assert!(matches!(ended, Err(LedgerError::Behind { next, .. }) if next == stream.found.count + 1), "{ended:?}");
}

#[test]
fn a_stream_that_another_node_makes_anew_is_not_gone_on_with_by_one_that_has_read_less_of_it() {
    // A replica that lacks the end of it: the other node has read that, and waits for the database to be moved.
    let stream = stream(100);
    let mut node = Node::start(1, 1, &Database { at: base_of(1), ..Database::default() });
    node.receive(News::Status { session: 1, found: Some(stream.found.clone()), highest: 2 }).unwrap();
    assert!(!node.wants.iter().any(|what| matches!(what, What::Follow { .. })), "{:?}", node.wants);
    assert!(node.wants.iter().any(|what| matches!(what, What::Begin { .. })), "its turn, if that node is gone");
}

#[test]
fn a_stream_that_is_shorter_than_what_the_database_has_of_it_is_not_followed() {
    let (next, mut one, _, mut database) = after_a_loss();
    database.at = base_of(2) + 4;
    one.progress.advance_applied(AppliedPosition(database.at));
    one.wants.clear();
    one.receive(next.status()).unwrap();
    one.answer(&database).unwrap();
    assert!(matches!(one.wants[..], [What::Status]), "{:?}", one.wants);
    one.wants.clear();
    // It was not only looked at too early.
    one.receive(next.status()).unwrap();
    assert!(matches!(&one.wants[..], [What::Begin { generation, .. }] if generation.number == 3));
}
