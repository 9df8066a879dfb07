//! Claims about who waits for whom: one who sends much does not make others wait.

use super::*;
use crate::contract::submission::{ChangeSubmission, GroupChange};
use crate::ledger::journal_engine::{JournalEngine, Settings};
use crate::ledger::start::Start;
use crate::limits::{COMMIT_BYTES_BEHIND, COMMIT_BYTES_MAX, COMMIT_ROWS_BEHIND, COMMIT_ROWS_MAX};
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX};
use ringway_wire::request::Adding;

const GREEDY: UserId = UserId(1);
const HONEST: UserId = UserId(2);

/// What one commit has handed out.
#[derive(Default, Debug)]
struct Committed {
    rows: usize,
    bytes: usize,
    has_honest: bool,
}

fn engine(dir: &TempDir, clock: Clock) -> JournalEngine<Directory> {
    let disk = Directory::open(&dir.path().join("journal")).unwrap();
    let start = Start::new(Settings::new(1, 7), StorePosition::default());
    start.finish(disk, Arc::new(Progress::default()), clock.now()).unwrap().0
}

/// One more group of the largest size.
fn largest_group(engine: &mut JournalEngine<Directory>, clock: Clock) -> GroupId {
    let members = (0..GROUP_MEMBERS_MAX as u64 - 1).map(|member| UserId(1_000 + member)).collect();
    let change = GroupChange::Create(members);
    let asked = ChangeSubmission { origin: Origin::default(), actor: GREEDY, change, adding: Adding::All };
    engine.submit(clock.now(), Submission::Change(asked));
    let mut out = vec![Vec::new(), Vec::new()];
    engine.commit(clock.now(), &mut out).unwrap();
    let made = out.into_iter().flatten().find_map(|delivery| match delivery {
        Delivery::Changed { roster, .. } => Some(roster.group),
        _ => None,
    });
    made.unwrap()
}

fn sent(sender: UserId, to: Conversation, number: usize, body: &[u8], clock: Clock) -> Submission {
    named(clock.now().unix_ms, sender, to, number, body)
}

/// Under a name of that time, Unix milliseconds.
fn named(named_ms: u64, sender: UserId, to: Conversation, number: usize, body: &[u8]) -> Submission {
    let session = SessionRef { shard: ShardId(0), conn: ConnId::default() };
    let name = ClientMsgId::from_parts(named_ms, number as u128 + (u128::from(sender.0) << 40));
    let incoming = Incoming::new(Origin::new(session, number as u32), sender, to, name, body);
    Submission::Message(MessageSubmission { incoming })
}

/// The commits that `count` messages of the greedy one come to, and one of the honest one that came behind them all.
fn commits(
    engine: JournalEngine<Directory>,
    count: usize,
    greedy: impl Fn(usize) -> Submission,
    clock: Clock,
) -> Vec<Committed> {
    let Bench { submissions, mailbox, ledger, inbox: _inbox, .. } = bench_of(engine, crossbeam_channel::never());
    (0..count).for_each(|number| submissions.submit(greedy(number)).unwrap());
    submissions.submit(sent(HONEST, Conversation::User(UserId(3)), 0, b"hello", clock)).unwrap();
    submissions.wake();
    let thread = thread::spawn(move || ledger.run().unwrap());
    let began_ms = clock.now().mono_ms;
    let (mut commits, mut came, mut turn): (Vec<Committed>, usize, usize) = (Vec::new(), 0, 0);
    while came <= count {
        let Some(mail) = mailbox.next(&mut turn) else {
            assert!(clock.now().mono_ms < began_ms + 60_000, "{came} came");
            thread::yield_now();
            continue;
        };
        let Mail::Deliveries(deliveries) = mail else { panic!("{mail:?}") };
        let mut committed = Committed::default();
        for delivery in &deliveries {
            let (message, rows) = match delivery {
                Delivery::Group { message, seqs, .. } => (message, seqs.len()),
                Delivery::Direct { message, .. } => (message, 2),
                other => panic!("{other:?}"),
            };
            committed.rows += rows;
            committed.bytes += message.push.body().len();
            committed.has_honest |= message.sender == HONEST;
            came += 1;
        }
        commits.push(committed);
    }
    drop(submissions);
    thread.join().unwrap();
    commits
}

#[test]
fn a_message_behind_half_a_million_rows_of_another_is_in_the_next_commit() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::start());
    let mut engine = engine(&dir, clock);
    let group = Conversation::Group(largest_group(&mut engine, clock));
    let commits = commits(engine, 100, |number| sent(GREEDY, group, number, b"x", clock), clock);
    assert!(commits[0].has_honest, "{commits:?}");
    assert!(commits[0].rows < COMMIT_ROWS_MAX + GROUP_MEMBERS_MAX, "{commits:?}");
    // Whoever comes while these are committed waits for two of them.
    let longest = commits[1..].iter().map(|commit| commit.rows).max().unwrap();
    assert!(longest < COMMIT_ROWS_BEHIND + GROUP_MEMBERS_MAX, "{commits:?}");
}

#[test]
fn a_message_behind_many_megabytes_of_another_is_in_the_next_commit() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::start());
    let body = [b'x'; BODY_BYTES_MAX];
    let to = Conversation::User(UserId(4));
    let commits = commits(engine(&dir, clock), 550, |number| sent(GREEDY, to, number, &body, clock), clock);
    assert!(commits[0].has_honest, "{commits:?}");
    assert!(commits[0].bytes < COMMIT_BYTES_MAX + 2 * BODY_BYTES_MAX, "{commits:?}");
    let longest = commits[1..].iter().map(|commit| commit.bytes).max().unwrap();
    assert!(longest < COMMIT_BYTES_BEHIND + 2 * BODY_BYTES_MAX, "{commits:?}");
}

/// Whose messages a commit of all that is staged hands out, and their numbers.
fn handed_out(engine: &mut JournalEngine<Directory>, clock: Clock) -> Vec<(UserId, u32)> {
    let mut out = vec![Vec::new(), Vec::new()];
    engine.commit(clock.now(), &mut out).unwrap();
    let message = |delivery: Delivery| match delivery {
        Delivery::Group { message, origin, .. } | Delivery::Direct { message, origin, .. } => {
            (message.sender, origin.request_id)
        }
        other => panic!("{other:?}"),
    };
    out.into_iter().flatten().map(message).collect()
}

#[test]
fn what_the_store_was_asked_about_goes_in_turns_by_sender_and_leaves_room_for_what_comes() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::start());
    let mut engine = engine(&dir, clock);
    let group = Conversation::Group(largest_group(&mut engine, clock));
    let long_ago_ms = clock.now().unix_ms - 30 * 60_000;
    const ALSO_WAITS: UserId = UserId(3);
    for number in 0..100 {
        engine.submit(clock.now(), named(long_ago_ms, GREEDY, group, number, b"x"));
    }
    engine.submit(clock.now(), named(long_ago_ms, ALSO_WAITS, Conversation::User(HONEST), 0, b"x"));
    let mut lookups = Vec::new();
    engine.take_lookups(&mut lookups);
    assert_eq!(lookups.len(), 101);
    for lookup in lookups {
        engine.found(clock.now(), LookupAnswer { lookup, found: LookupFound::Nothing });
    }
    assert!(!engine.full(), "the store's answers have left no room for anybody else");
    engine.submit(clock.now(), sent(HONEST, Conversation::User(UserId(4)), 0, b"hello", clock));
    let first = handed_out(&mut engine, clock);
    assert!(first.iter().any(|(sender, _)| *sender == HONEST), "{first:?}");
    // Behind one message of the greedy one's in each of its commits.
    let mut all = first;
    all.extend(handed_out(&mut engine, clock));
    all.extend(handed_out(&mut engine, clock));
    assert!(all.iter().any(|(sender, _)| *sender == ALSO_WAITS), "{all:?}");
    while engine.has_more() {
        all.extend(handed_out(&mut engine, clock));
    }
    let greedy: Vec<u32> = all.iter().filter(|(sender, _)| *sender == GREEDY).map(|(_, number)| *number).collect();
    assert_eq!(greedy, (0..100).collect::<Vec<u32>>(), "each once, and in order");
}
