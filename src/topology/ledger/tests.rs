#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fair;

use std::sync::Arc;
use std::thread;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::clock::Now;
use crate::contract::ids::{ConnId, Origin, SessionRef, ShardId};
use crate::contract::message::Incoming;
use crate::contract::names_kept::NamesKept;
use crate::contract::policies::{Policies, Rules};
use crate::contract::position::AppliedPosition;
use crate::contract::progress::Progress;
use crate::contract::report::LedgerCounters;
use crate::contract::snapshot::snapshots;
use crate::contract::store::StorePosition;
use crate::contract::submission::{MessageSubmission, Submission};
use crate::contract::traffic::TrafficLimits;
use crate::journal::disk::Directory;
use crate::ledger::GroupLimits;
use crate::ledger::redis::link::{Age, Extent, Found, Generation, News, RedisEnds, Reply, What, link};
use crate::ledger::redis::seed::base_of;
use crate::ledger::redis::start::RedisStart;
use crate::ledger::redis::{RedisEngine, Settings};
use crate::limits::{COMMITS_IN_FLIGHT_MAX, LOOKUPS_PENDING_MAX, STORE_RETRY_FIRST_MS, STREAM_UNSTORED_MAX};
use crate::store::yielding::StoreYield;
use crate::topology::mailbox::{Mail, Mailbox, mailbox as mailbox_of};
use crate::topology::store::{self, StoreInbox};
use crate::topology::submissions::{self, SubmissionSender};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, Seq, UserId};

const TIME: Duration = Duration::from_secs(20);

/// Answers a position with the number of commits before it; asks the store about every roster.
#[derive(Default)]
struct Echo {
    staged: Vec<Delivery>,
    lookups: Vec<Lookup>,
    commits: u64,
    per_commit: usize,
}

impl Engine for Echo {
    fn set_rules(&mut self, _: Rules) {}
    fn submit(&mut self, _: Now, submission: Submission) {
        match submission {
            Submission::Position { origin, .. } => {
                self.staged.push(Delivery::Position { origin, newest: Seq(self.commits), given: Seq(0) });
            }
            Submission::Roster { .. } => {
                self.lookups.push(Lookup { sender: UserId(1), client_msg_id: ClientMsgId([0; 16]), generation: 0 });
            }
            other => panic!("{other:?}"),
        }
    }

    fn found(&mut self, _: Now, answer: LookupAnswer) {
        let newest = Seq(if answer.found == LookupFound::Unavailable { 7_777 } else { 8_888 });
        self.staged.push(Delivery::Position { origin: Origin::default(), newest, given: newest });
    }

    fn full(&self) -> bool {
        self.staged.len() >= self.per_commit
    }

    fn staged_rows(&self) -> usize {
        0
    }

    fn take_released(&mut self, _: &mut Vec<(UserId, usize)>) {}

    fn commit(&mut self, _: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError> {
        self.commits += u64::from(!self.staged.is_empty());
        for delivery in self.staged.drain(..) {
            match &delivery {
                Delivery::Position { origin, .. } if origin.is_api(1) => out[1].push(delivery),
                _ => out[0].push(delivery),
            }
        }
        Ok(())
    }

    fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        out.append(&mut self.lookups);
    }

    fn grew(&mut self) -> bool {
        true
    }

    fn has_more(&self) -> bool {
        false
    }

    fn counters(&self) -> LedgerCounters {
        LedgerCounters { commits: self.commits, ..LedgerCounters::default() }
    }
}

struct Bench<E: Engine> {
    submissions: SubmissionSender,
    mailbox: Mailbox,
    api: Mailbox,
    inbox: StoreInbox,
    reports: mpsc::Receiver<Report>,
    ledger: LedgerLoop<E>,
}

fn bench(per_commit: usize) -> Bench<Echo> {
    bench_of(Echo { per_commit, ..Echo::default() }, crossbeam_channel::never())
}

fn bench_of<E: Engine>(engine: E, nudges: Receiver<()>) -> Bench<E> {
    let (mailbox, slots) = mailbox_of(ShardId(0), 1);
    let (inbox, door, found) = store::inbox(vec![slots.answers.clone()], StoreYield::OwnCpu);
    let (submission_inbox, senders) = submissions::inbox(1);
    let submissions = senders.of_shard(ShardId(0));
    drop(senders);
    let (report, reports) = mpsc::channel(100);
    let (api_mailbox, api) = mailbox_of(ShardId::of_api(1), 1);
    let ledger = LedgerLoop {
        rules: crossbeam_channel::never(),
        nudges,
        engine,
        clock: Clock::start(),
        submissions: submission_inbox,
        found,
        shards: vec![slots.deliveries],
        api: api.deliveries,
        store: door,
        reports: report,
    };
    Bench { submissions, mailbox, api: api_mailbox, inbox, reports, ledger }
}

fn position() -> Submission {
    Submission::Position { origin: Origin::default(), user: UserId(1) }
}

/// Receives until `count` answers have come.
fn answers(mailbox: &Mailbox, count: usize) -> Vec<u64> {
    let clock = Clock::start();
    let mut newest = Vec::new();
    let mut turn = 0;
    while newest.len() < count {
        match mailbox.next(&mut turn) {
            Some(Mail::Deliveries(deliveries)) => newest.extend(deliveries.iter().map(|delivery| match delivery {
                Delivery::Position { newest, .. } => newest.0,
                other => panic!("{other:?}"),
            })),
            Some(other) => panic!("{other:?}"),
            None => assert!(clock.now().mono_ms < TIME.as_millis() as u64, "only {} answers came", newest.len()),
        }
    }
    newest
}

#[test]
fn a_shard_that_does_not_empty_its_mailbox_makes_the_ledger_wait_and_loses_nothing() {
    let Bench { submissions, mailbox, ledger, inbox: _inbox, mut reports, .. } = bench(1);
    let count = COMMITS_IN_FLIGHT_MAX * 3;
    for _ in 0..count {
        submissions.submit(position()).unwrap();
        submissions.wake();
    }
    let thread = thread::spawn(move || ledger.run().unwrap());
    // One commit each; the mailbox holds fewer, so the rest must wait for us.
    let expected: Vec<u64> = (0..count as u64).collect();
    assert_eq!(answers(&mailbox, count), expected);
    drop(submissions);
    assert_eq!(thread.join().unwrap().commits, count as u64);
    let mut last = None;
    while let Ok(Report::Ledger(report)) = reports.try_recv() {
        last = Some(report);
    }
    assert_eq!(last.unwrap().counters.commits, count as u64);
}

#[test]
fn what_waits_when_the_shards_end_is_still_committed() {
    let Bench { submissions, mailbox, ledger, inbox: _inbox, .. } = bench(4);
    for _ in 0..4 {
        submissions.submit(position()).unwrap();
        submissions.wake();
    }
    drop(submissions);
    let thread = thread::spawn(move || ledger.run().unwrap());
    assert_eq!(answers(&mailbox, 4).len(), 4);
    assert_eq!(thread.join().unwrap().commits, 1);
}

#[test]
fn an_api_that_takes_nothing_keeps_no_shard_waiting_and_loses_no_answer() {
    let Bench { submissions, mailbox, api, ledger, inbox: _inbox, .. } = bench(1);
    let thread = thread::spawn(move || ledger.run().unwrap());
    let of_api = SessionRef { shard: ShardId::of_api(1), conn: ConnId::default() };
    let count = 3 * COMMITS_IN_FLIGHT_MAX;
    for number in 0..count {
        let origin = Origin::new(of_api, number as u32);
        submissions.submit(Submission::Position { origin, user: UserId(1) }).unwrap();
    }
    submissions.submit(position()).unwrap();
    submissions.wake();
    // The shard's answer stands behind more commits than the API has room for.
    assert_eq!(answers(&mailbox, 1), [count as u64]);
    assert_eq!(answers(&api, count).len(), count);
    drop(submissions);
    thread.join().unwrap();
}

#[test]
fn an_answer_of_the_store_wakes_the_ledger() {
    let Bench { submissions, mailbox, ledger, inbox, .. } = bench(4);
    let thread = thread::spawn(move || ledger.run().unwrap());
    submissions.submit(Submission::Roster { shard: ShardId(0), group: GroupId(1) }).unwrap();
    submissions.wake();
    let lookup = inbox.lookups.recv_timeout(TIME).unwrap();
    inbox.found.send(LookupAnswer { lookup, found: LookupFound::Nothing }).unwrap();
    assert_eq!(answers(&mailbox, 1), [8_888]);
    drop(submissions);
    thread.join().unwrap();
}

#[test]
fn look_ups_that_the_store_has_no_room_for_are_refused_at_once() {
    let Bench { submissions, mailbox, ledger, inbox, .. } = bench(usize::MAX);
    let count = LOOKUPS_PENDING_MAX + 3;
    for _ in 0..count {
        submissions.submit(Submission::Roster { shard: ShardId(0), group: GroupId(1) }).unwrap();
        submissions.wake();
    }
    let thread = thread::spawn(move || ledger.run().unwrap());
    assert_eq!(answers(&mailbox, 3), [7_777; 3]);
    assert_eq!(inbox.lookups.len(), LOOKUPS_PENDING_MAX);
    drop(submissions);
    thread.join().unwrap();
}

/// An engine of a cluster that has a session with a Redis that a test plays, in an empty ledger.
fn of_cluster(dir: &TempDir, clock: Clock) -> (RedisEngine<Directory>, RedisEnds, Receiver<()>) {
    let (ledger, redis, nudges) = link();
    let (asker, _) = snapshots(redis.nudge());
    let settings = Settings {
        shards: 1,
        node: 1,
        segment_bytes: 0,
        buckets: 1,
        names: NamesKept::default(),
        entries_max: STREAM_UNSTORED_MAX,
        groups: GroupLimits::default(),
        traffic: TrafficLimits::default(),
        policies: Policies::default(),
        seed: 1,
    };
    let [log, copy] = ["log", "stream"].map(|name| Directory::open(&dir.path().join(name)).unwrap());
    let at = StorePosition { applied: AppliedPosition(base_of(1).0), ..StorePosition::default() };
    let start = RedisStart::new(settings);
    let engine = start.finish((log, copy), Arc::new(Progress::default()), (ledger, asker), at).unwrap();
    let found = Found {
        there: Generation { number: 1, nonce: 1 },
        count: base_of(1).0,
        floor: Seq(0),
        since_ms: 0,
        now_ms: clock.now().unix_ms,
        age: Age::Settled,
        is_confirmed: true,
        extent: Extent::Whole,
    };
    redis.notify(News::Status { session: 1, found: Some(found), highest: 1 }).unwrap();
    (engine, redis, nudges)
}

fn message(name: ClientMsgId, request_id: u32) -> Submission {
    let session = SessionRef { shard: ShardId(0), conn: ConnId::default() };
    let (origin, to) = (Origin::new(session, request_id), Conversation::User(UserId(2)));
    let incoming = Incoming::new(origin, UserId(1), to, name, b"body");
    Submission::Message(MessageSubmission { incoming })
}

/// Sends a message when the engine numbers, and plays a Redis that may have forgotten its name. Returns that.
fn send_forgotten(redis: &mut RedisEnds, submissions: &SubmissionSender, clock: Clock) -> ClientMsgId {
    let name = ClientMsgId::from_parts(clock.now().unix_ms, 1);
    loop {
        match redis.orders.blocking_recv().unwrap().what {
            What::Follow { .. } => {
                submissions.submit(message(name, 1)).unwrap();
                submissions.wake();
            }
            What::Submit { calls, .. } => {
                let replies = vec![Reply::Forgotten; calls.len()];
                redis.notify(News::Replies { replies, count: base_of(1).0 }).unwrap();
                return name;
            }
            _ => {}
        }
    }
}

#[test]
fn a_store_that_cannot_answer_is_not_asked_again_and_again() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::start());
    let (engine, mut redis, nudges) = of_cluster(&dir, clock);
    let Bench { submissions, ledger, inbox, mailbox: _mailbox, .. } = bench_of(engine, nudges);
    let thread = thread::spawn(move || ledger.run().unwrap());
    send_forgotten(&mut redis, &submissions, clock);
    let began_ms = clock.now().mono_ms;
    let mut asked: u64 = 0;
    while clock.now().mono_ms - began_ms < 2_000 {
        let lookup = inbox.lookups.recv_timeout(TIME).unwrap();
        asked += 1;
        inbox.found.send(LookupAnswer { lookup, found: LookupFound::Unavailable }).unwrap();
    }
    let at_most = (clock.now().mono_ms - began_ms) / STORE_RETRY_FIRST_MS + 1;
    assert!(asked <= at_most, "asked {asked} times, {at_most} would be often");
    drop(submissions);
    thread.join().unwrap();
}

#[test]
fn a_store_that_takes_no_look_ups_does_not_keep_the_ledger_from_taking_submissions() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::start());
    let (engine, mut redis, nudges) = of_cluster(&dir, clock);
    let Bench { submissions, ledger, inbox, mailbox, .. } = bench_of(engine, nudges);
    let lookup = Lookup { sender: UserId(1), client_msg_id: ClientMsgId([0; 16]), generation: 0 };
    (0..LOOKUPS_PENDING_MAX).for_each(|_| ledger.store.look_up(lookup).unwrap());
    let thread = thread::spawn(move || ledger.run().unwrap());
    let name = send_forgotten(&mut redis, &submissions, clock);
    // What is sent behind it is answered, though the store takes nothing.
    submissions.submit(message(name, 2)).unwrap();
    submissions.wake();
    let (mut turn, mut is_answered) = (0, false);
    while !is_answered {
        match mailbox.next(&mut turn) {
            Some(Mail::Deliveries(deliveries)) => {
                let is_second = |delivery: &Delivery| match delivery {
                    Delivery::Refused { origin, .. } => origin.request_id == 2,
                    other => panic!("{other:?}"),
                };
                is_answered = deliveries.iter().any(is_second);
            }
            Some(other) => panic!("{other:?}"),
            None => assert!(clock.now().mono_ms < TIME.as_millis() as u64, "it is not answered"),
        }
        thread::yield_now();
    }
    drop((submissions, inbox));
    thread.join().unwrap();
}
