//! A database that went back behind all from which a node could follow the stream, or that has something else than this node
//! takes for stored.

use super::submissions::{clock, found, lookups, named, node};
use super::world::{Database, GROUP, NOW, Node, Stream, base_of, origin};
use crate::contract::internal::InternalErrors;
use crate::contract::message::Incoming;
use crate::contract::position::{AppliedPosition, StreamDigest, StreamPosition};
use crate::contract::progress::StoreWriter;
use crate::contract::store::LookupFound;
use crate::contract::submission::{MessageSubmission, Submission};
use crate::ledger::Engine;
use crate::ledger::redis::entry::Entry;
use crate::ledger::redis::link::{Arrival, Found, Generation, News, What};
use crate::ledger::redis::session::{Session, Then};
use crate::limits::{DATABASE_BEHIND_MS, SEQ_JUMP};
use ringway_wire::ids::{Conversation, RosterVersion, Seq, UserId};
use ringway_wire::schema::GroupChangeKind;

/// What an early generation had stored: a group of five, each with seven rows.
fn early(at: u64) -> Database {
    let newest = (1..=5).map(|user| (user, 7)).collect();
    Database { at, newest, members: (1..=5).collect(), version: 1, ..Database::default() }
}

/// A ledger that was made anew before, with a hundred entries of the last generation.
fn late_ledger() -> Stream {
    Stream::begin(4, Seq(9 * SEQ_JUMP), 1).with_count(100)
}

/// A node alone that was started on this database.
fn alone(database: &Database, writer: StoreWriter) -> Node {
    let node = Node::start(1, 1, database);
    node.progress.set_store_writer(writer);
    node
}

/// Redis and the store answer whatever is asked, for so long. Returns which generation is to be made, if one is.
fn passes(node: &mut Node, stream: &Stream, database: &Database, ms: u64, cut_to: Option<u64>) -> Option<Generation> {
    node.receive(stream.status()).unwrap();
    for _ in 0..ms / 100 {
        node.now.mono_ms += 100;
        let wants = std::mem::take(&mut node.wants);
        for what in wants {
            match what {
                What::Begin { generation, .. } => return Some(generation),
                What::Status => node.receive(stream.status()).unwrap(),
                What::Follow { .. } => node.receive(News::Cut(cut_to.unwrap())).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        if matches!(node.engine.session, Session::Loading { .. }) {
            node.answer(database).unwrap();
        }
    }
    None
}

#[test]
fn a_node_whose_database_went_back_behind_the_generation_does_not_wait_for_ever_for_another_to_write_it_again() {
    let (stream, mut database) = (late_ledger(), early(base_of(2) + 7));
    let mut node = alone(&database, StoreWriter::ThisNode);
    assert_eq!(passes(&mut node, &stream, &database, DATABASE_BEHIND_MS / 2, None), None, "another may have it");
    let making = passes(&mut node, &stream, &database, 2 * DATABASE_BEHIND_MS, None).unwrap();
    assert_eq!(making.number, 5);
    // Above all that the generations gave out of which the database knows nothing any more.
    node.receive(News::Begun).unwrap();
    database.at = base_of(5);
    node.progress.report_fenced(node.progress.fence_asked());
    node.progress.advance_applied(AppliedPosition(database.at));
    node.commit().unwrap();
    node.answer(&database).unwrap();
    let [What::Seed { floor, .. }] = node.wants[..] else { panic!("{:?}", node.wants) };
    assert_eq!(floor, Seq(9 * SEQ_JUMP + 100));
}

#[test]
fn a_node_whose_turn_to_write_it_is_not_waits_for_the_database_to_be_written_again() {
    let (stream, database) = (late_ledger(), early(base_of(2) + 7));
    let mut node = alone(&database, StoreWriter::NotThisNode);
    assert_eq!(passes(&mut node, &stream, &database, 10 * DATABASE_BEHIND_MS, None), None);
    let written = Database { at: base_of(4) + 60, ..early(0) };
    node.receive(stream.status()).unwrap();
    node.answer(&written).unwrap();
    assert!(matches!(node.wants[..], [.., What::Follow { after, .. }] if after == written.at), "{:?}", node.wants);
}

#[test]
fn a_node_whose_database_went_back_behind_what_is_cut_off_of_the_stream_does_not_read_snapshots_for_ever() {
    let (stream, database) = (late_ledger(), early(base_of(4) + 7));
    let mut node = alone(&database, StoreWriter::ThisNode);
    let cut_to = Some(base_of(4) + 60);
    assert_eq!(passes(&mut node, &stream, &database, DATABASE_BEHIND_MS / 2, cut_to), None, "another may have it");
    let making = passes(&mut node, &stream, &database, 2 * DATABASE_BEHIND_MS, cut_to).unwrap();
    assert_eq!(making.number, 5);
}

#[test]
fn what_was_taken_for_stored_is_looked_for_when_others_may_have_been_stored_under_its_number() {
    let (stream, mut node) = node();
    let name = named(0, 1);
    let incoming = Incoming::new(origin(), UserId(1), Conversation::User(UserId(2)), name, b"body");
    node.engine.submit(NOW, Submission::Message(MessageSubmission { incoming }));
    node.commit().unwrap();
    let entry = match &node.wants[..] {
        [What::Submit { calls, .. }] => calls[0].values[7].clone(),
        other => panic!("{other:?}"),
    };
    let first = stream.found.count + 1;
    node.receive(News::Entries(vec![Arrival { count: first, entry }])).unwrap();
    assert_eq!(node.delivered.len(), 1, "it is acked");
    // Another node, which has not read it, has written something else under this number.
    node.progress.advance_applied(AppliedPosition(first));
    node.commit().unwrap();
    node.receive(News::Disconnected).unwrap();
    let next = Stream::begin(2, Seq(SEQ_JUMP), 0);
    let database = Database { at: base_of(2), ..Database::default() };
    node.progress.advance_applied(AppliedPosition(database.at));
    node.receive(next.status()).unwrap();
    node.answer(&database).unwrap();
    let mut lookups = Vec::new();
    node.engine.take_lookups(&mut lookups);
    assert_eq!(lookups.iter().map(|lookup| lookup.client_msg_id).collect::<Vec<_>>(), [name]);
}

#[test]
fn what_the_database_has_under_a_number_does_not_count_as_this_nodes_while_that_is_cut_off_or_has_not_read_so_far() {
    for (is_cut, further) in [(true, 0), (false, 1), (false, 0)] {
        let (mut stream, mut node) = node();
        stream.change(GroupChangeKind::Created, &[2, 3]);
        let (count, entry) = stream.entries[0].clone();
        node.receive(News::Entries(vec![Arrival { count, entry }])).unwrap();
        if is_cut {
            node.receive(News::Disconnected).unwrap();
        }
        node.progress.advance_applied(AppliedPosition(count + further));
        node.commit().unwrap();
        // At version zero: whatever the database has of the group is taken from there.
        let is_unsure = node.engine.follower.versions()[&GROUP] == RosterVersion(0);
        assert_eq!(is_unsure, is_cut || further > 0, "cut off: {is_cut}, further by {further}");
    }
}

#[test]
fn a_snapshot_never_takes_the_place_of_entries_that_were_followed() {
    let mut stream = Stream::begin(1, Seq(0), 1);
    (0..3).for_each(|_| stream.group());
    let mut database = Database { at: base_of(1), members: (1..=5).collect(), version: 1, ..Database::default() };
    let mut node = Node::start(1, 1, &database);
    node.receive(stream.status()).unwrap();
    node.follow(&stream, 0).unwrap();
    database.write(&node.delivered, base_of(1) + 2);
    // No state leads here.
    let before = InternalErrors::of_this_thread().total();
    let found: Found = stream.found.clone();
    node.engine.load(1, Then::Follow(found));
    node.wants.clear();
    node.answer(&database).unwrap();
    assert_eq!(InternalErrors::of_this_thread().total(), before + 1);
    assert!(matches!(node.wants[..], [What::Status]), "{:?}", node.wants);
    node.wants.clear();
    node.receive(stream.status()).unwrap();
    assert!(matches!(node.wants[..], [What::Follow { after, .. }] if after == base_of(1) + 3), "{:?}", node.wants);
    assert_eq!(node.missed, []);
}

#[test]
fn what_the_database_has_of_another_stream_does_not_count_as_stored_and_the_ledger_is_made_anew() {
    let (mut stream, mut node) = node();
    stream.change(GroupChangeKind::Created, &[2, 3]);
    let (count, entry) = stream.entries[0].clone();
    node.receive(News::Entries(vec![Arrival { count, entry }])).unwrap();
    node.wants.clear();
    // The database has as many entries, and this node's store has found that the last one is another.
    node.progress.advance_uncompared(AppliedPosition(count));
    node.commit().unwrap();
    assert_eq!(node.engine.follower.versions()[&GROUP], RosterVersion(0), "it is not known to be stored");
    assert!(node.wants.is_empty(), "{:?}", node.wants);
    node.progress.report_diverged(StreamPosition(count));
    node.commit().unwrap();
    assert!(matches!(&node.wants[..], [What::Begin { .. }]), "{:?}", node.wants);
    assert_eq!(node.engine.follower.versions()[&GROUP], RosterVersion(0));
}

#[test]
fn a_node_that_begins_from_a_snapshot_has_redis_compare_the_entry_that_it_ends_with() {
    let (mut stream, _) = node();
    let base = stream.found.count;
    (0..2).for_each(|_| stream.direct(1, 2));
    let database = Database { at: base + 1, digest: StreamDigest::default().then(77), ..early(0) };
    let mut node = Node::start(2, 1, &database);
    node.receive(stream.status()).unwrap();
    if matches!(node.engine.session, Session::Loading { .. }) {
        node.answer(&database).unwrap();
    }
    let [.., What::Follow { after, known, .. }] = &node.wants[..] else { panic!("{:?}", node.wants) };
    assert_eq!((*after, known.as_slice()), (base + 1, &[(base + 1, 77)][..]));
}

#[test]
fn a_node_that_goes_on_from_another_snapshot_gives_no_message_a_number_that_is_in_it() {
    let (mut node, stream) = (Node::start(1, 1, &early(base_of(1))), Stream::begin(2, Seq(SEQ_JUMP), 0));
    node.receive(stream.status()).unwrap();
    // Another process had this node's id until a moment ago, and its clock was ahead.
    let newest_ms = NOW.unix_ms + 3_000;
    node.answer(&Database { at: base_of(2), newest_ms, ..early(0) }).unwrap();
    node.receive(clock(&stream, NOW.unix_ms)).unwrap();
    node.wants.clear();
    let name = named(0, 1);
    let incoming = Incoming::new(origin(), UserId(1), Conversation::User(UserId(2)), name, b"body");
    node.engine.submit(NOW, Submission::Message(MessageSubmission { incoming }));
    node.commit().unwrap();
    for lookup in lookups(&mut node) {
        found(&mut node, lookup, LookupFound::Nothing);
    }
    let [What::Submit { calls, .. }] = &node.wants[..] else { panic!("{:?}", node.wants) };
    let Entry { record, .. } = Entry::decode(calls[0].values.last().unwrap()).unwrap();
    assert!(record.msg_id().unwrap().sent_at_ms() >= newest_ms);
}
