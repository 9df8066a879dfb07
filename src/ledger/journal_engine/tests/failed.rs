//! Commits that could not be written.

use super::*;

#[test]
fn a_commit_that_cannot_be_written_leaves_no_trace() {
    let mut ledger = Ledger::new();
    let roster = ledger.create(1, [2, 3]);
    ledger.group(1, 1, &roster);
    ledger.answers();
    let (tail, durable) = (ledger.engine.tail(), ledger.progress.durable());
    let horizon = ledger.engine.window.len();

    let names: Vec<_> = (0..2).map(|_| ledger.name()).collect();
    ledger.direct(1, 1, 2, names[0], b"hello");
    ledger.direct(2, 1, 2, names[0], b"hello");
    ledger.group(3, 1, &roster);
    ledger.change(4, 1, GroupChange::Add(roster.group, vec![UserId(4)]));
    ledger.group(5, 1, &roster);
    ledger.change(6, 4, GroupChange::Create(vec![UserId(1)]));
    ledger.direct(7, 1, 1, names[1], b"note");
    ledger.change(8, 3, GroupChange::Leave(roster.group));
    let user = UserId(1);
    ledger.engine.submit(ledger.now, Submission::Position { origin: origin(1, 9), user });
    ledger.direct(10, 1, 2, names[0], b"another body under a name that is not stored after all");
    ledger.disk.cut_writes(1);
    let answers = ledger.answers();
    let full = Answer::Refused(ErrorCode::StorageFull);
    let expected = [1, 2, 3, 4, 5, 6, 7, 8].map(|request| (request, full.clone()));
    assert_eq!(answers[..8], expected);
    assert_eq!(answers[8..], [(9, Answer::Position(1)), (10, full)]);

    assert_eq!((ledger.engine.tail(), ledger.progress.durable()), (tail, durable));
    assert_eq!(ledger.engine.window.len(), horizon);
    assert_eq!(ledger.engine.roster(roster.group), Some(&roster));
    assert_eq!(ledger.engine.groups.len(), 1);
    assert_eq!(ledger.engine.groups.of_user(UserId(4), &ledger.engine.sequences), []);
    assert_eq!(ledger.engine.groups.of_user(UserId(3), &ledger.engine.sequences).len(), 1);

    ledger.direct(1, 1, 2, names[0], b"hello");
    ledger.group(2, 1, &roster);
    let answers = ledger.answers();
    assert!(matches!(answers[0].1, Answer::Sent { seq: 2, .. }));
    assert!(matches!(answers[1].1, Answer::Sent { seq: 3, .. }));
    let mut records = 0;
    let to = ledger.progress.durable();
    Reader::new(ledger.disk.clone()).read(JournalPosition(0), to, usize::MAX, &mut |_, _| records += 1).unwrap();
    let what =
        "the group, its first message, and what was sent again, with the roster: a later one had taken its place";
    assert_eq!(records, 1 + 2 + 3, "{what}");
}

#[test]
fn what_cannot_be_stored_is_refused_but_repeats_are_still_answered() {
    let mut ledger = Ledger::with(Settings { journal_bytes_max: 400, ..Settings::new(SHARDS, 7) });
    let name = ledger.name();
    ledger.direct(1, 1, 2, name, &[7; 400]);
    let answers = ledger.answers();
    let Answer::Sent { msg_id, seq } = answers[0].1 else { panic!("{answers:?}") };
    let another = ledger.name();
    ledger.direct(2, 1, 2, another, b"x");
    ledger.direct(3, 1, 2, name, &[7; 400]);
    ledger.change(4, 1, GroupChange::Create(Vec::new()));
    let full = Answer::Refused(ErrorCode::StorageFull);
    assert_eq!(ledger.answers(), [(2, full.clone()), (3, Answer::Repeat { msg_id, seq }), (4, full)]);
    ledger.progress.advance_applied(ledger.engine.tail().into());
    ledger.direct(5, 1, 2, another, b"x");
    assert!(matches!(ledger.answers()[0].1, Answer::Sent { seq: 2, .. }));
}

#[test]
fn a_journal_that_was_full_is_known_to_have_room_again_also_when_nobody_sends() {
    let mut ledger = Ledger::with(Settings { journal_bytes_max: 400, ..Settings::new(SHARDS, 7) });
    let names = [ledger.name(), ledger.name()];
    ledger.direct(1, 1, 2, names[0], &[7; 400]);
    ledger.commit();
    assert_eq!(ledger.engine.counters().journal_full, 0, "nobody was refused");
    ledger.direct(2, 1, 2, names[1], b"x");
    ledger.commit();
    assert_eq!((ledger.engine.counters().journal_full, ledger.progress.journal_is_full()), (1, true));
    ledger.now.mono_ms += JOURNAL_ROOM_LOOK_MS;
    ledger.commit();
    assert_eq!(ledger.engine.counters().journal_full, 1, "the store has not caught up");
    ledger.progress.advance_applied(ledger.engine.tail().into());
    ledger.now.mono_ms += JOURNAL_ROOM_LOOK_MS;
    ledger.commit();
    assert_eq!((ledger.engine.counters().journal_full, ledger.progress.journal_is_full()), (0, false));
}

#[test]
fn a_tail_at_its_limit_of_messages_refuses_more() {
    let mut ledger = Ledger::with(Settings { tail_messages_max: 10, ..Settings::new(SHARDS, 7) });
    ledger.progress.report_tail_messages(9, JournalPosition(0));
    for request in 0..2 {
        let name = ledger.name();
        ledger.direct(request, 1, 2, name, b"x");
    }
    let answers = ledger.answers();
    assert!(matches!(answers[0].1, Answer::Sent { .. }));
    assert_eq!(answers[1].1, Answer::Refused(ErrorCode::StorageFull));
}

#[test]
fn a_commit_is_full_in_messages_rows_and_bytes() {
    let mut ledger = Ledger::new();
    for _ in 0..COMMIT_MESSAGES_MAX {
        assert!(!ledger.engine.full());
        let name = ledger.name();
        ledger.direct(0, 1, 2, name, b"x");
    }
    assert!(ledger.engine.full());
    ledger.commit();
    assert!(!ledger.engine.full());
    let body = vec![7; BODY_BYTES_MAX];
    // Whoever comes now has waited for one commit: the next is smaller.
    for request in 0..COMMIT_BYTES_BEHIND / BODY_BYTES_MAX {
        assert!(!ledger.engine.full(), "{request}");
        let name = ledger.name();
        ledger.direct(request as u32, 1, 2, name, &body);
    }
    assert!(ledger.engine.full());
    ledger.commit();
    // One that was not full: nobody was left waiting.
    ledger.commit();
    for request in 0.. {
        if request == JOURNAL_BATCH_BYTES_MAX / BODY_BYTES_MAX {
            break;
        }
        assert_eq!(ledger.engine.full(), request * BODY_BYTES_MAX >= COMMIT_BYTES_MAX, "{request}");
        let name = ledger.name();
        ledger.direct(request as u32, 1, 2, name, &body);
    }
    let answers = ledger.answers();
    assert_eq!(answers.last().unwrap().1, Answer::Refused(ErrorCode::RetryLater), "beyond what a batch may hold");
}

#[test]
fn a_login_learns_its_newest_row_in_order_with_its_deliveries() {
    let mut ledger = Ledger::new();
    let (a, _) = two_shards();
    for request in [1, 3] {
        let name = ledger.name();
        ledger.direct(request, a, a, name, b"x");
        let position = Submission::Position { origin: origin(a, request + 1), user: UserId(a) };
        ledger.engine.submit(ledger.now, position);
    }
    let order: Vec<_> = ledger.commit().remove(0).into_iter().map(|delivery| answer(delivery).1).collect();
    assert!(matches!(
        order[..],
        [Answer::Sent { seq: 1, .. }, Answer::Position(1), Answer::Sent { seq: 2, .. }, Answer::Position(2)]
    ));
}
