#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod clocks;
mod failed;
mod limited;
mod permissions;
mod shares;
mod waiting;

use super::*;
use crate::contract::digest::digest;
use crate::contract::ids::{ConnId, Origin, SessionRef, ShardId};
use crate::contract::message::{Incoming, Roster};
use crate::contract::store::{LookupFound, StorePosition, StoredMessage};
use crate::contract::submission::GroupChange;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::reader::Reader;
use crate::journal::record::GroupRecord;
use crate::ledger::start::Start;
use crate::limits::{JOURNAL_ROOM_LOOK_MS, LOOKUPS_PENDING_MAX, LOOKUPS_PENDING_SENDER_MAX, WINDOW_MS};
use ringway_wire::ids::{ClientMsgId, Conversation, RosterVersion, Seq, UserId};
use ringway_wire::limits::BODY_BYTES_MAX;
use ringway_wire::request::Adding;
use ringway_wire::schema::ErrorCode;

const SHARDS: u16 = 2;
const TIME: u64 = 1_800_000_000_000;

/// Of a group that does not exist: nobody, at a version that no group has.
fn of_nobody(group: GroupId) -> Roster {
    Roster::new(group, RosterVersion(0), Vec::new(), SHARDS)
}

struct Ledger {
    disk: MemoryDisk,
    progress: Arc<Progress>,
    engine: JournalEngine<MemoryDisk>,
    now: Now,
    names: u64,
}

impl Ledger {
    fn new() -> Ledger {
        Ledger::with(Settings::new(SHARDS, 7))
    }

    fn with(settings: Settings) -> Ledger {
        let disk = MemoryDisk::new(1);
        let progress = Arc::new(Progress::default());
        let now = Now { mono_ms: 0, unix_ms: TIME };
        let start = Start::new(settings, StorePosition::default());
        let (engine, _) = start.finish(disk.clone(), progress.clone(), now).unwrap();
        Ledger { disk, progress, engine, now, names: 0 }
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now { mono_ms: self.now.mono_ms + ms, unix_ms: self.now.unix_ms + ms };
    }

    fn name(&mut self) -> ClientMsgId {
        self.names += 1;
        ClientMsgId::from_parts(self.now.unix_ms, u128::from(self.names) << 16)
    }

    fn direct(&mut self, request: u32, sender: u64, to: u64, client_msg_id: ClientMsgId, body: &[u8]) {
        let to = Conversation::User(UserId(to));
        let incoming = Incoming::new(origin(sender, request), UserId(sender), to, client_msg_id, body);
        let submission = MessageSubmission { incoming };
        self.engine.submit(self.now, Submission::Message(submission));
    }

    fn group(&mut self, request: u32, sender: u64, roster: &Arc<Roster>) {
        let client_msg_id = self.name();
        self.group_named(request, sender, roster, client_msg_id);
    }

    fn group_named(&mut self, request: u32, sender: u64, roster: &Arc<Roster>, client_msg_id: ClientMsgId) {
        let to = Conversation::Group(roster.group);
        let incoming = Incoming::new(origin(sender, request), UserId(sender), to, client_msg_id, b"to all");
        let submission = MessageSubmission { incoming };
        self.engine.submit(self.now, Submission::Message(submission));
    }

    fn change(&mut self, request: u32, actor: u64, change: GroupChange) {
        let submission =
            ChangeSubmission { origin: origin(actor, request), actor: UserId(actor), change, adding: Adding::All };
        self.engine.submit(self.now, Submission::Change(submission));
    }

    fn commit(&mut self) -> Vec<Vec<Delivery>> {
        let mut out: Vec<Vec<Delivery>> = (0..SHARDS).map(|_| Vec::new()).collect();
        self.engine.commit(self.now, &mut out).unwrap();
        out
    }

    /// Commits; what was answered to requests, by request: every delivery that goes to the asker's shard.
    fn answers(&mut self) -> Vec<(u32, Answer)> {
        let mut answers = Vec::new();
        for (shard, deliveries) in self.commit().into_iter().enumerate() {
            for delivery in deliveries {
                let (origin, answer) = answer(delivery);
                if usize::from(origin.session.shard.0) == shard {
                    answers.push((origin.request_id, answer));
                }
            }
        }
        answers.sort_by_key(|(request, _)| *request);
        answers
    }

    fn create(&mut self, owner: u64, users: impl IntoIterator<Item = u64>) -> Arc<Roster> {
        self.change(0, owner, GroupChange::Create(users.into_iter().map(UserId).collect()));
        let changed = self.commit().into_iter().flatten().find_map(|delivery| match delivery {
            Delivery::Changed { roster, .. } => Some(roster),
            _ => None,
        });
        changed.unwrap()
    }

    fn newest(&self, user: u64) -> u64 {
        self.engine.sequences.newest(UserId(user)).0
    }
}

fn origin(user: u64, request_id: u32) -> Origin {
    let session = SessionRef { shard: ShardId::of_user(UserId(user), SHARDS), conn: ConnId::default() };
    Origin::new(session, request_id)
}

/// What a request came to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    Sent { msg_id: u64, seq: u64 },
    Repeat { msg_id: u64, seq: u64 },
    Refused(ErrorCode),
    Changed(RosterVersion, Vec<u64>),
    Unchanged,
    Position(u64),
    Other,
}

fn answer(delivery: Delivery) -> (Origin, Answer) {
    match delivery {
        Delivery::Group { message, roster, seqs, origin } => {
            let seq = seqs[roster.position(message.sender).unwrap()].0;
            (origin, Answer::Sent { msg_id: message.msg_id.0, seq })
        }
        Delivery::Direct { message, sender_seq, origin, .. } => {
            (origin, Answer::Sent { msg_id: message.msg_id.0, seq: sender_seq.0 })
        }
        Delivery::Numbered { origin, msg_id, seq, .. } => (origin, Answer::Sent { msg_id: msg_id.0, seq: seq.0 }),
        Delivery::Repeat { origin, msg_id, seq, .. } => (origin, Answer::Repeat { msg_id: msg_id.0, seq: seq.0 }),
        Delivery::Refused { origin, code, .. } => (origin, Answer::Refused(code)),
        Delivery::Changed { origin, roster, announcement } => {
            let users = announcement.users.iter().map(|user| user.0).collect();
            (origin, Answer::Changed(roster.version, users))
        }
        Delivery::Unchanged { origin, .. } => (origin, Answer::Unchanged),
        Delivery::NotAdded { origin, code, .. } => (origin, Answer::Refused(code)),
        Delivery::Position { origin, newest, .. } => (origin, Answer::Position(newest.0)),
        Delivery::Groups { origin, .. } => (origin, Answer::Other),
        Delivery::Sharing { origin, .. } | Delivery::Permitted { origin, .. } => (origin, Answer::Other),
        Delivery::Roster { .. } | Delivery::Reloaded { .. } | Delivery::Missed { .. } => {
            (Origin::default(), Answer::Other)
        }
    }
}

fn two_shards() -> (u64, u64) {
    let on = |shard| (1..).find(|user| ShardId::of_user(UserId(*user), SHARDS) == ShardId(shard)).unwrap();
    (on(0), on(1))
}

#[test]
fn nothing_is_handed_out_before_it_is_synced_and_then_to_both_shards() {
    let mut ledger = Ledger::new();
    let (a, b) = two_shards();
    let name = ledger.name();
    ledger.direct(1, a, b, name, b"hello");
    let syncs = ledger.disk.syncs();
    let out = ledger.commit();
    assert_eq!(ledger.disk.syncs(), syncs + 1);
    assert!(!ledger.disk.has_unsynced());
    assert_eq!(ledger.progress.durable(), ledger.engine.tail());
    for deliveries in &out {
        let [Delivery::Direct { message, sender_seq, recipient_seq, .. }] = &deliveries[..] else {
            panic!("{deliveries:?}")
        };
        assert_eq!((message.push.body(), *sender_seq, *recipient_seq), (&b"hello"[..], Seq(1), Seq(1)));
    }
}

#[test]
fn users_of_one_shard_get_one_delivery_and_a_message_to_oneself_has_one_row() {
    let mut ledger = Ledger::new();
    let (a, _) = two_shards();
    let name = ledger.name();
    ledger.direct(1, a, a, name, b"note");
    let out = ledger.commit();
    assert_eq!((out[0].len(), out[1].len()), (1, 0));
    assert_eq!(ledger.newest(a), 1);
    assert_eq!(ledger.engine.counters().rows, 1);
}

#[test]
fn a_failed_sync_is_final() {
    let mut ledger = Ledger::new();
    let name = ledger.name();
    ledger.direct(1, 1, 2, name, b"hello");
    ledger.disk.fail_syncs(1);
    let mut out = vec![Vec::new(), Vec::new()];
    assert!(matches!(ledger.engine.commit(ledger.now, &mut out), Err(LedgerError::Sync(_))));
    assert!(out.iter().all(Vec::is_empty));
}

#[test]
fn a_repeat_has_the_first_ones_number_and_row_also_within_one_commit() {
    let mut ledger = Ledger::new();
    let name = ledger.name();
    ledger.direct(1, 1, 2, name, b"hello");
    ledger.direct(2, 1, 2, name, b"hello");
    let answers = ledger.answers();
    let Answer::Sent { msg_id, seq } = answers[0].1 else { panic!("{answers:?}") };
    assert_eq!(answers[1].1, Answer::Repeat { msg_id, seq });
    ledger.direct(3, 1, 2, name, b"hello");
    let syncs = ledger.disk.syncs();
    assert_eq!(ledger.answers(), [(3, Answer::Repeat { msg_id, seq })]);
    assert_eq!(ledger.disk.syncs(), syncs, "a commit of answers alone writes nothing");
    assert_eq!((ledger.newest(1), ledger.newest(2)), (1, 1));
}

#[test]
fn a_name_used_for_another_message_is_refused() {
    let mut ledger = Ledger::new();
    let name = ledger.name();
    ledger.direct(1, 1, 2, name, b"hello");
    ledger.direct(2, 1, 2, name, b"hello!");
    ledger.direct(3, 1, 3, name, b"hello");
    ledger.direct(4, 9, 2, name, b"another sender's names are his own");
    let answers = ledger.answers();
    assert_eq!(answers[1].1, Answer::Refused(ErrorCode::ClientMsgIdReused));
    assert_eq!(answers[2].1, Answer::Refused(ErrorCode::ClientMsgIdReused));
    assert!(matches!(answers[3].1, Answer::Sent { .. }));
}

#[test]
fn names_that_are_no_uuidv7_or_too_far_ahead_are_refused() {
    let mut ledger = Ledger::new();
    ledger.direct(1, 1, 2, ClientMsgId([0; 16]), b"x");
    ledger.direct(2, 1, 2, ClientMsgId::from_parts(TIME + 5_001, 1), b"x");
    ledger.direct(3, 1, 2, ClientMsgId::from_parts(TIME + 5_000, 1), b"x");
    let answers = ledger.answers();
    assert_eq!(answers[0].1, Answer::Refused(ErrorCode::ClientMsgIdInvalid));
    assert_eq!(answers[1].1, Answer::Refused(ErrorCode::ClientMsgIdAhead));
    assert!(matches!(answers[2].1, Answer::Sent { .. }));
}

#[test]
fn an_old_name_is_looked_up_once_however_often_it_is_sent() {
    let mut ledger = Ledger::new();
    ledger.pass(WINDOW_MS + 10_000);
    ledger.commit();
    let old = ClientMsgId::from_parts(TIME, 5);
    for request in 1..=3 {
        ledger.direct(request, 1, 2, old, b"hello");
    }
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    assert_eq!(lookups, [Lookup { sender: UserId(1), client_msg_id: old, generation: 0 }]);
    assert_eq!(ledger.answers(), []);
    ledger.engine.found(ledger.now, LookupAnswer { lookup: lookups[0], found: LookupFound::Nothing });
    let answers = ledger.answers();
    let Answer::Sent { msg_id, seq } = answers[0].1 else { panic!("{answers:?}") };
    assert_eq!(answers[1..], [(2, Answer::Repeat { msg_id, seq }), (3, Answer::Repeat { msg_id, seq })]);
}

#[test]
fn what_the_store_found_is_a_repeat_and_what_it_cannot_say_is_retried() {
    let mut ledger = Ledger::new();
    ledger.pass(WINDOW_MS + 10_000);
    ledger.commit();
    let old = ClientMsgId::from_parts(TIME, 5);
    let lookup = Lookup { sender: UserId(1), client_msg_id: old, generation: 0 };
    let digest = digest(Conversation::User(UserId(2)), b"hello");
    let stored = StoredMessage { msg_id: MsgId(77), seq: Seq(5), sent_at_ms: TIME, digest };
    ledger.direct(1, 1, 2, old, b"hello");
    ledger.direct(2, 1, 2, old, b"something else");
    ledger.engine.found(ledger.now, LookupAnswer { lookup, found: LookupFound::Stored(stored) });
    assert_eq!(
        ledger.answers(),
        [(1, Answer::Repeat { msg_id: 77, seq: 5 }), (2, Answer::Refused(ErrorCode::ClientMsgIdReused))]
    );
    ledger.direct(3, 1, 2, old, b"hello");
    ledger.engine.found(ledger.now, LookupAnswer { lookup, found: LookupFound::Unavailable });
    assert_eq!(ledger.answers(), [(3, Answer::Refused(ErrorCode::RetryLater))]);
    assert_eq!(ledger.newest(1), 0);
}

#[test]
fn a_groups_message_has_a_row_for_each_member_and_one_delivery_a_shard() {
    let mut ledger = Ledger::new();
    let roster = ledger.create(1, 2..=500);
    for round in 1..=300 {
        ledger.group(1, 1, &roster);
        let out = ledger.commit();
        for (shard, deliveries) in out.iter().enumerate() {
            let [Delivery::Group { seqs, roster, .. }] = &deliveries[..] else { panic!("shard {shard}") };
            assert_eq!(seqs.len(), roster.members().len());
            assert!(seqs.iter().all(|seq| *seq == Seq(round)));
        }
    }
    assert_eq!(ledger.engine.counters().rows, 150_000);
    assert!(ledger.engine.counters().bytes < 300 * 700, "500 rows cost well under 1 KB");
    let mut reader = Reader::new(ledger.disk.clone());
    let mut messages = Vec::new();
    let to = ledger.progress.durable();
    let visit = &mut |_, record: Record<'_>| {
        if let Record::Group(message) = record {
            messages.push((message.roster_at, message.differences.to_vec()));
        }
    };
    reader.read(JournalPosition(0), to, usize::MAX, visit).unwrap();
    assert_eq!(messages.len(), 300);
    for (round, (roster_at, differences)) in messages.iter().enumerate() {
        let Record::Roster(roster) = reader.record_at(*roster_at).unwrap() else { panic!() };
        let record = GroupRecord {
            msg_id: MsgId(0),
            sender: UserId(1),
            group: roster.group,
            client_msg_id: ClientMsgId::default(),
            roster_at: *roster_at,
            differences,
            body: b"",
        };
        let rows: Vec<_> = record.rows(&roster).unwrap().collect();
        assert_eq!(rows.len(), 500);
        assert!(rows.iter().all(|(_, seq)| *seq == Seq(round as u64 + 1)));
    }
}

#[test]
fn a_change_is_seen_by_what_is_submitted_after_it_in_the_same_commit() {
    let mut ledger = Ledger::new();
    let roster = ledger.create(1, [2, 3]);
    let group = roster.group;
    ledger.group(1, 2, &roster);
    ledger.change(2, 1, GroupChange::Remove(group, vec![UserId(3), UserId(3), UserId(99)]));
    ledger.group(3, 2, &roster);
    ledger.group(4, 3, &roster);
    ledger.change(5, 3, GroupChange::Leave(group));
    ledger.change(6, 1, GroupChange::Remove(group, vec![UserId(3)]));
    let answers = ledger.answers();
    assert!(matches!(answers[0].1, Answer::Sent { .. }));
    assert_eq!(answers[1].1, Answer::Changed(RosterVersion(2), vec![3]));
    assert!(matches!(answers[2], (3, Answer::Sent { .. })), "what its sender knew of the group makes no difference");
    assert_eq!(ledger.newest(3), 1, "nobody removed has a row of what came after");
    assert_eq!(answers[3].1, Answer::Refused(ErrorCode::NotAMember));
    assert_eq!(answers[4].1, Answer::Refused(ErrorCode::NotAMember));
    assert_eq!(answers[5].1, Answer::Unchanged);
}

#[test]
fn one_who_is_not_a_member_is_refused_even_with_the_current_roster() {
    let mut ledger = Ledger::new();
    let roster = ledger.create(1, [2]);
    ledger.group(1, 9, &roster);
    assert_eq!(ledger.answers(), [(1, Answer::Refused(ErrorCode::NotAMember))]);
}

/// A group of 1, 2 and 3; the message with which 2 has written to it, and what that was answered.
fn sent_by_2(ledger: &mut Ledger) -> (Arc<Roster>, ClientMsgId, Answer) {
    let roster = ledger.create(1, [2, 3]);
    let name = ledger.name();
    ledger.group_named(1, 2, &roster, name);
    let answers = ledger.answers();
    let Answer::Sent { msg_id, seq } = answers[0].1 else { panic!("{answers:?}") };
    (roster, name, Answer::Repeat { msg_id, seq })
}

#[test]
fn who_has_left_gets_the_first_answer_for_a_repeat_whatever_roster_it_came_with() {
    let mut ledger = Ledger::new();
    let (with_2, name, repeat) = sent_by_2(&mut ledger);
    let group = with_2.group;
    ledger.change(2, 1, GroupChange::Remove(group, vec![UserId(2)]));
    // In the commit that removes it, and after it.
    ledger.group_named(3, 2, &with_2, name);
    assert_eq!(ledger.answers()[1], (3, repeat.clone()));
    let without_2 = ledger.engine.roster(group).unwrap().clone();
    let nobody = Arc::new(of_nobody(group));
    for roster in [&with_2, &without_2, &nobody] {
        ledger.group_named(4, 2, roster, name);
        assert_eq!(ledger.answers(), [(4, repeat.clone())]);
    }
    // The same name under another body is still no repeat, member or not.
    let other = Arc::new(of_nobody(GroupId(group.0 + 1)));
    ledger.group_named(5, 2, &other, name);
    assert_eq!(ledger.answers(), [(5, Answer::Refused(ErrorCode::ClientMsgIdReused))]);

    ledger.change(6, 3, GroupChange::Leave(group));
    ledger.change(7, 1, GroupChange::Leave(group));
    ledger.commit();
    assert!(ledger.engine.roster(group).is_none(), "the group is no more");
    for roster in [&with_2, &nobody] {
        ledger.group_named(8, 2, roster, name);
        assert_eq!(ledger.answers(), [(8, repeat.clone())]);
    }
}

#[test]
fn a_new_message_to_a_group_one_is_not_in_takes_no_number_and_no_byte() {
    let mut ledger = Ledger::new();
    let (with_2, ..) = sent_by_2(&mut ledger);
    let group = with_2.group;
    ledger.change(2, 1, GroupChange::Remove(group, vec![UserId(2)]));
    ledger.commit();
    let without_2 = ledger.engine.roster(group).unwrap().clone();
    let before = (ledger.engine.counters(), ledger.progress.durable(), [1, 2, 3, 9].map(|user| ledger.newest(user)));
    for (request, sender) in [(1, 2), (2, 9)] {
        ledger.group(request, sender, &without_2);
        assert_eq!(ledger.answers(), [(request, Answer::Refused(ErrorCode::NotAMember))]);
    }
    let nobody = Arc::new(of_nobody(GroupId(4711)));
    ledger.group(3, 9, &nobody);
    assert_eq!(ledger.answers(), [(3, Answer::Refused(ErrorCode::UnknownGroup))]);
    let after = (ledger.engine.counters(), ledger.progress.durable(), [1, 2, 3, 9].map(|user| ledger.newest(user)));
    assert_eq!(before, after);
}

#[test]
fn logins_do_not_make_the_journal_grow_and_messages_do() {
    let mut ledger = Ledger::new();
    // What an earlier run left may wait for the store.
    assert!(ledger.engine.grew());
    ledger.engine.submit(ledger.now, Submission::Position { origin: origin(1, 1), user: UserId(1) });
    assert_eq!(ledger.answers().len(), 1);
    assert!(!ledger.engine.grew());
    let name = ledger.name();
    ledger.direct(2, 1, 2, name, b"hello");
    ledger.answers();
    assert!(ledger.engine.grew());
    assert!(!ledger.engine.grew());
}

#[test]
fn segments_behind_the_store_go_when_the_window_no_longer_needs_them() {
    let mut ledger = Ledger::new();
    let body = vec![7; BODY_BYTES_MAX];
    let fill = |ledger: &mut Ledger, until: usize| {
        while ledger.engine.segments.len() < until {
            for _ in 0..255 {
                let name = ledger.name();
                ledger.direct(0, 1, 2, name, &body);
            }
            ledger.commit();
        }
    };
    fill(&mut ledger, 3);
    ledger.progress.advance_applied(ledger.engine.tail().into());
    ledger.progress.advance_secured(ledger.engine.tail());
    ledger.commit();
    assert_eq!(ledger.engine.segments.len(), 3, "kept for the window");
    ledger.progress.keep_behind(ledger.engine.tail().0 - ledger.engine.segments[1].0.0);
    ledger.pass(WINDOW_MS + 1_000);
    ledger.commit();
    assert_eq!(ledger.engine.segments.len(), 2, "kept for who reads behind the store");
    ledger.progress.journal_refuses_messages();
    ledger.commit();
    assert_eq!(ledger.engine.segments.len(), 1, "a full disk is not kept full");
    assert_eq!(ledger.engine.journal.first(), ledger.engine.journal.segment());
}

#[test]
fn a_body_is_not_copied_again_between_its_shard_and_the_outboxes() {
    let mut ledger = Ledger::new();
    let (to, name) = (Conversation::User(UserId(2)), ledger.name());
    let incoming = Incoming::new(origin(1, 1), UserId(1), to, name, b"copied once");
    let copied_to = incoming.body().as_ptr();
    let submission = MessageSubmission { incoming };
    ledger.engine.submit(ledger.now, Submission::Message(submission));
    let deliveries: Vec<Delivery> = ledger.commit().into_iter().flatten().collect();
    assert!(!deliveries.is_empty());
    for delivery in deliveries {
        let Delivery::Direct { message, .. } = delivery else { panic!("{delivery:?}") };
        assert_eq!(message.push.body(), b"copied once");
        assert_eq!(message.push.body().as_ptr(), copied_to);
    }
}
