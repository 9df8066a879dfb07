#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::thread;

use tokio::sync::mpsc;

use super::*;
use crate::clock::Now;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::report::LedgerCounters;
use crate::contract::submission::Submission;
use crate::limits::{COMMITS_IN_FLIGHT_MAX, LOOKUPS_PENDING_MAX};
use crate::store::yielding::StoreYield;
use crate::topology::mailbox::{Mail, Mailbox, mailbox};
use crate::topology::store::{self, StoreInbox};
use crate::topology::submissions::{self, SubmissionSender};
use ringway_wire::ids::{ClientMsgId, GroupId, Seq, UserId};

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

    fn commit(&mut self, _: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError> {
        self.commits += u64::from(!self.staged.is_empty());
        out[0].append(&mut self.staged);
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

struct Bench {
    submissions: SubmissionSender,
    mailbox: Mailbox,
    inbox: StoreInbox,
    reports: mpsc::Receiver<Report>,
    ledger: LedgerLoop<Echo>,
}

fn bench(per_commit: usize) -> Bench {
    let (mailbox, slots) = mailbox(ShardId(0), 1);
    let (inbox, door, found) = store::inbox(vec![slots.answers.clone()], StoreYield::OwnCpu);
    let (submission_inbox, submissions) = submissions::inbox();
    let (report, reports) = mpsc::channel(100);
    let ledger = LedgerLoop {
        nudges: crossbeam_channel::never(),
        engine: Echo { per_commit, ..Echo::default() },
        clock: Clock::start(),
        submissions: submission_inbox,
        found,
        shards: vec![slots.deliveries],
        store: door,
        reports: report,
    };
    Bench { submissions, mailbox, inbox, reports, ledger }
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
    let Bench { submissions, mailbox, ledger, inbox: _inbox, mut reports } = bench(1);
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
