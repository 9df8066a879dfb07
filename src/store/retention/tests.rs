//! Passes of retention on a real SQLite file and on a real MariaDB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::task::Context;
use std::time::Duration;

use mysql_async::prelude::Queryable;

use super::*;
use crate::limits::{RETENTION_ROWS, STORE_RETRY_MAX_MS};
use crate::store::contract::{Bed, FAR, MySql, Sqlite, apply, page, seqs, transaction};
use crate::store::{InboxRow, Seq, Transaction};

macro_rules! claims {
    ($($claim:ident)*) => {
        mod sqlite {
            $(#[test] fn $claim() { super::$claim(&<super::Sqlite as super::Bed>::new()); })*
        }
        mod mysql {
            $(#[test] fn $claim() { super::$claim(&<super::MySql as super::Bed>::new()); })*
        }
    };
}

claims! {
    what_is_older_goes_in_small_steps_and_the_rest_is_whole
    a_newest_row_stays_with_its_message_however_old_it_is
    a_pass_that_was_interrupted_begins_anew_and_ends_as_if_it_had_not_been
    nothing_that_is_not_applied_yet_can_be_too_old
    a_row_whose_message_went_before_it_counts_as_deleted
    passes_follow_one_another_by_the_hour_and_their_steps_by_the_millisecond
    a_pass_in_which_everything_is_to_be_kept_from_now_on_ends_and_deletes_no_more
}

fn id(n: u64) -> MsgId {
    MsgId(n << 22)
}

fn take<B: Bed<S: Expire>>(bed: &B, store: &mut B::S, step: Step) -> Done {
    bed.run(async { store.expire(step).await }).unwrap()
}

/// Begins a pass; what held the lock may take a moment to be gone.
fn begin<B: Bed<S: Expire>>(bed: &B, store: &mut B::S, cutoff: MsgId) -> MsgId {
    for _ in 0..1_000 {
        match take(bed, store, Step::Begin { cutoff }) {
            Done::Begun(cutoff) => return cutoff,
            Done::NothingToDo => bed.run(async { tokio::time::sleep(Duration::from_millis(10)).await }),
            other => panic!("{other:?}"),
        }
    }
    panic!("no pass can begin");
}

/// A whole pass; returns the rows and messages that went, after checking that each step is a small one.
fn pass<B: Bed<S: Expire>>(bed: &B, store: &mut B::S, cutoff: MsgId) -> (u64, u64) {
    let cutoff = begin(bed, store, cutoff);
    let (mut walk, mut after, mut rows, mut messages) = (Walk::Begin, MsgId(0), 0, 0);
    while walk != Walk::End {
        let Done::Rows(done) = take(bed, store, Step::Rows { cutoff, walk }) else { panic!() };
        assert!(done.rows <= RETENTION_ROWS as u64);
        (walk, rows) = (done.walk, rows + done.rows);
    }
    loop {
        let Done::Messages(done) = take(bed, store, Step::Messages { cutoff, after }) else { panic!() };
        assert!(done.messages <= RETENTION_ROWS as u64);
        messages += done.messages;
        match done.through {
            Some(through) => after = through,
            None => break,
        }
    }
    assert_eq!(take(bed, store, Step::End), Done::Ended);
    (rows, messages)
}

fn what_is_older_goes_in_small_steps_and_the_rest_is_whole<B: Bed<S: Expire>>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=1_300))).unwrap();
    assert_eq!(pass(bed, &mut store, id(1_201)), (2_400, 1_200));
    assert_eq!((bed.count("inbox"), bed.count("messages")), (200, 100));
    for user in [1, FAR] {
        let rest = page(bed, &mut store, user, 7, 1_000, usize::MAX);
        assert_eq!((seqs(&rest), rest.gap_to), ((1_201..=1_300).collect(), Some(Seq(1_200))));
        let known = page(bed, &mut store, user, 1_200, 1_000, usize::MAX);
        assert_eq!((seqs(&known), known.gap_to), ((1_201..=1_300).collect(), None));
    }
    assert_eq!(bed.run(store.kept_from()).unwrap(), id(1_201));
    // Nothing is left for another pass.
    assert_eq!(pass(bed, &mut store, id(1_201)), (0, 0));
    bed.run(apply(&mut store, transaction(1_301..=1_302))).unwrap();
    assert_eq!(seqs(&page(bed, &mut store, FAR, 1_300, 10, 1_000)), [1_301, 1_302]);
}

fn a_newest_row_stays_with_its_message_however_old_it_is<B: Bed<S: Expire>>(bed: &B) {
    let mut store = bed.open();
    let mut work = transaction(1..=9);
    let row = |user, seq, n| InboxRow { user: UserId(user), seq: Seq(seq), msg_id: id(n) };
    work.rows.extend([row(5, 1, 2), row(5, 2, 3), row(6, 1, 4)]);
    bed.run(apply(&mut store, work)).unwrap();
    // Both of everybody else's, and the first of user 5; messages 3 and 4 are referred to.
    assert_eq!(pass(bed, &mut store, id(7)), (6 + 6 + 1, 4));
    let five = page(bed, &mut store, 5, 0, 10, 1_000);
    assert_eq!((seqs(&five), five.gap_to), (vec![2], Some(Seq(1))));
    assert_eq!(seqs(&page(bed, &mut store, 6, 0, 10, 1_000)), [1]);
    let mut newest = vec![];
    bed.run(store.newest_rows(&mut |row| newest.push((row.user.0, row.seq.0)))).unwrap();
    newest.sort();
    assert_eq!(newest, [(1, 9), (5, 2), (6, 1), (FAR, 9)]);
    // Once they have newer ones, they go.
    let rows = vec![row(5, 3, 9), row(6, 2, 9)];
    bed.run(apply(
        &mut store,
        Transaction { rows, applied: crate::contract::position::AppliedPosition(10_000), ..Default::default() },
    ))
    .unwrap();
    assert_eq!(pass(bed, &mut store, id(7)), (2, 2));
}

fn a_pass_that_was_interrupted_begins_anew_and_ends_as_if_it_had_not_been<B: Bed<S: Expire>>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=1_300))).unwrap();
    let cutoff = begin(bed, &mut store, id(1_201));
    let Done::Rows(first) = take(bed, &mut store, Step::Rows { cutoff, walk: Walk::Begin }) else { panic!() };
    assert_eq!(first.rows, RETENTION_ROWS as u64);
    drop(store);
    let mut store = bed.open();
    assert_eq!(pass(bed, &mut store, id(1_201)), (2_400 - first.rows, 1_200));
    let cutoff = begin(bed, &mut store, id(1_251));
    let mut walk = Walk::Begin;
    while walk != Walk::End {
        let Done::Rows(done) = take(bed, &mut store, Step::Rows { cutoff, walk }) else { panic!() };
        walk = done.walk;
    }
    drop(store);
    let mut store = bed.open();
    assert_eq!(pass(bed, &mut store, id(1_251)), (0, 50));
    assert_eq!((bed.count("inbox"), bed.count("messages")), (100, 50));
}

fn nothing_that_is_not_applied_yet_can_be_too_old<B: Bed<S: Expire>>(bed: &B) {
    let mut store = bed.open();
    assert_eq!(take(bed, &mut store, Step::Begin { cutoff: id(100) }), Done::NothingToDo);
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    assert_eq!(begin(bed, &mut store, id(100)), id(3));
}

fn a_row_whose_message_went_before_it_counts_as_deleted<B: Bed<S: Expire>>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=9))).unwrap();
    for gone in [1, 2, 6, 9] {
        bed.sql(&format!("DELETE FROM messages WHERE msg_id = {}", id(gone).0));
    }
    bed.sql(&format!("INSERT INTO retention (id, kept_from) VALUES (1, {})", id(10).0));
    let first = page(bed, &mut store, 1, 0, 100, 1_000);
    assert_eq!((seqs(&first), first.gap_to), (vec![3, 4, 5], Some(Seq(2))));
    let second = page(bed, &mut store, 1, 5, 100, 1_000);
    assert_eq!((seqs(&second), second.gap_to), (vec![7, 8], Some(Seq(6))));
    let last = page(bed, &mut store, 1, 8, 100, 1_000);
    assert_eq!((seqs(&last), last.gap_to), (vec![], Some(Seq(9))));
}

fn passes_follow_one_another_by_the_hour_and_their_steps_by_the_millisecond<B: Bed<S: Expire>>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=1_300))).unwrap();
    let mut counters = StoreCounters::default();
    let mut retention = Retention::new(1);
    // A day after message 1,200 was sent: whatever is due is done, on a clock of the test's.
    let sent_ms = id(1_201).sent_at_ms();
    let mut now = Now { mono_ms: 0, unix_ms: sent_ms + DAY_MS };
    let (mut looks, mut idle) = (0, 0);
    while counters.expiries == 0 {
        looks += 1;
        assert!(looks < 100_000, "the pass does not end: {retention_due:?}", retention_due = retention.due_ms());
        now.mono_ms = retention.due_ms().unwrap();
        let before = counters;
        bed.run(async {
            retention.step(&mut store, now, id(1_300), &mut counters);
            // Lets what was begun go on.
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        idle += u64::from(before == counters);
    }
    assert_eq!((counters.rows_expired, counters.messages_expired, counters.expiries), (2_400, 1_200, 1));
    assert!(idle > 0);
    assert!(retention.due_ms().unwrap() >= now.mono_ms + RETENTION_PASS_EVERY_MS);
    // Not due: nothing happens.
    now.mono_ms += STORE_RETRY_MAX_MS;
    retention.step(&mut store, now, id(1_300), &mut counters);
    assert!(retention.running.is_none());
    assert_eq!(Retention::new(0).due_ms(), None);
}

fn a_pass_in_which_everything_is_to_be_kept_from_now_on_ends_and_deletes_no_more<B: Bed<S: Expire>>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=1_300))).unwrap();
    let mut counters = StoreCounters::default();
    let mut retention = Retention::new(1);
    let mut now = Now { mono_ms: 0, unix_ms: id(1_201).sent_at_ms() + DAY_MS };
    let mut look = |retention: &mut Retention, store: &mut B::S, counters: &mut StoreCounters| {
        now.mono_ms = retention.due_ms().unwrap();
        bed.run(async {
            retention.step(store, now, id(1_300), counters);
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
    };
    for looks in 0.. {
        assert!(looks < 100_000, "nothing is deleted");
        look(&mut retention, &mut store, &mut counters);
        if counters.rows_expired > 0 {
            break;
        }
    }
    retention.keep_days(0);
    for looks in 0.. {
        assert!(looks < 100_000, "the pass does not end");
        look(&mut retention, &mut store, &mut counters);
        if retention.due_ms().is_none() {
            break;
        }
    }
    assert!(counters.rows_expired < 2_400 && counters.expiries == 1, "{counters:?}");
}

/// What a clock that reads this, day by day, says of the time, in days; `None`: nothing is to be deleted by it.
fn days(newest_day: u64, readings: &[(u64, u64)]) -> Vec<Option<u64>> {
    let time = |day: u64| id(1_300).sent_at_ms() + day * DAY_MS;
    let newest = MsgId::first_at(time(newest_day));
    let mut clock = SteadyClock::default();
    let read = |(passed, day): &(u64, u64)| {
        let now = Now { mono_ms: passed * DAY_MS, unix_ms: time(*day) };
        clock.read(now, newest).map(|unix_ms| (unix_ms - time(0)) / DAY_MS)
    };
    readings.iter().map(read).collect()
}

#[test]
fn a_clock_that_is_put_ahead_makes_no_message_older() {
    let (is, never) = (Some, None);
    assert_eq!(days(0, &[(0, 0), (1, 1), (2, 2)]), [is(0), is(1), is(2)]);
    // For a moment, and for as long as the gateway runs.
    assert_eq!(days(0, &[(0, 0), (1, 400), (2, 2), (3, 3)]), [is(0), is(1), is(2), is(3)]);
    assert_eq!(days(0, &[(0, 0), (1, 400), (2, 401), (3, 402)]), [is(0), is(1), is(2), is(3)]);
    // It was wrong at the start already, which cannot be told from a gateway that nobody has used: only what lasts counts.
    assert_eq!(days(0, &[(0, 400), (0, 400), (1, 401)]), [never, never, is(401)]);
    assert_eq!(days(0, &[(0, 400), (0, 0), (1, 1)]), [never, is(0), is(1)]);
    assert_eq!(days(300, &[(0, 300), (1, 301)]), [is(300), is(301)]);
}

#[test]
fn a_clock_that_is_put_ahead_deletes_nothing() {
    let bed = Sqlite::new();
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=1_300))).unwrap();
    let (mut retention, mut counters) = (Retention::new(1), StoreCounters::default());
    let mut now = Now { mono_ms: 0, unix_ms: id(1_300).sent_at_ms() };
    let mut rows_expired = |hours: u64, ahead_ms: u64| {
        for _ in 0..hours * 60 {
            now = Now { mono_ms: now.mono_ms + 60_000, unix_ms: now.unix_ms + 60_000 };
            let read = Now { unix_ms: now.unix_ms + ahead_ms, ..now };
            bed.run(async { retention.step(&mut store, read, id(1_300), &mut counters) });
        }
        counters.rows_expired
    };
    assert_eq!(rows_expired(20, 0), 0);
    assert_eq!(rows_expired(3, 400 * DAY_MS), 0);
    assert!(rows_expired(4, 400 * DAY_MS) > 0, "when a day has passed");
}

#[test]
fn in_mysql_a_step_that_waits_for_a_lock_does_not_hold_inserts_or_reads_up() {
    let bed = MySql::new();
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=600))).unwrap();
    let cutoff = begin(&bed, &mut store, id(501));
    bed.run(async {
        let opts = mysql_async::OptsBuilder::from_opts(bed.database.opts()).prefer_socket(false);
        let mut other = mysql_async::Conn::new(opts).await.unwrap();
        other.query_drop("START TRANSACTION").await.unwrap();
        other.query_drop("SELECT * FROM inbox WHERE user_id = 1 AND seq = 1 FOR UPDATE").await.unwrap();
        let mut step = store.expire(Step::Rows { cutoff, walk: Walk::Begin });
        // Once it is there it cannot end: the lock is held.
        let deleting = "SELECT COUNT(*) FROM information_schema.processlist \
             WHERE db = DATABASE() AND info LIKE 'DELETE FROM inbox%'";
        while other.query_first::<u64, _>(deleting).await.unwrap() == Some(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        apply(&mut store, transaction(601..=1_200)).await.unwrap();
        let page = store.page(UserId(1), Seq(1_190), 100, 10_000, &mut Default::default()).await.unwrap();
        assert_eq!(seqs(&page), (1_191..=1_200).collect::<Vec<_>>());
        assert!(step.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        other.query_drop("ROLLBACK").await.unwrap();
        let Done::Rows(done) = step.await.unwrap() else { panic!() };
        assert_eq!(done.rows, RETENTION_ROWS as u64);
    });
}

#[test]
fn of_several_gateways_on_one_mysql_one_at_a_time_is_in_a_pass() {
    let bed = MySql::new();
    let (mut one, mut two) = (bed.open_of_cluster(), bed.open_of_cluster());
    bed.run(apply(&mut one, transaction(1..=9))).unwrap();
    assert_eq!(take(&bed, &mut one, Step::Begin { cutoff: id(5) }), Done::Begun(id(5)));
    assert_eq!(take(&bed, &mut two, Step::Begin { cutoff: id(5) }), Done::NothingToDo);
    assert_eq!(take(&bed, &mut one, Step::End), Done::Ended);
    assert_eq!(pass(&bed, &mut two, id(5)), (8, 4));
}
