//! What one sender has of what is unstored is bounded before what all have is.

use super::*;
use crate::contract::traffic::TrafficLimit;

const BYTES_MAX: u64 = 400_000;
const BODY: [u8; 1_000] = [7; 1_000];

fn ledger(user_unstored_percent: u32, tail_messages_max: u64) -> Ledger {
    let traffic = TrafficLimits { user_unstored_percent, ..TrafficLimits::UNLIMITED };
    let settings = Settings { traffic, tail_messages_max, journal_bytes_max: BYTES_MAX, ..Settings::new(SHARDS, 7) };
    Ledger::with(settings)
}

/// How many of so many messages were taken before the first was refused, and how that one was.
fn taken(ledger: &mut Ledger, sender: u64, messages: u32) -> (u32, Option<ErrorCode>) {
    for request in 0..messages {
        let name = ledger.name();
        ledger.direct(request, sender, 2, name, &BODY);
        let answers = ledger.answers();
        if let Some((_, Answer::Refused(code))) = answers.first() {
            return (request, Some(*code));
        }
    }
    (messages, None)
}

#[test]
fn who_floods_has_a_share_of_the_journal_and_the_others_have_theirs() {
    let mut ledger = ledger(25, 1 << 20);
    // An eighth is not counted, and then there is a quarter: of some 380 messages.
    let (flood, refusal) = taken(&mut ledger, 1, 400);
    assert_eq!(refusal, Some(ErrorCode::RetryLater));
    assert!((120..150).contains(&flood), "{flood}");
    assert_eq!(ledger.engine.counters().limited.of(TrafficLimit::UserUnstored), 1);
    assert_eq!(taken(&mut ledger, 3, 80), (80, None));
    assert_eq!(taken(&mut ledger, 4, 80), (80, None));
    // The store has all of it: he goes on.
    let everything = ledger.engine.tail();
    ledger.progress.advance_applied(everything.into());
    assert_eq!(taken(&mut ledger, 1, 40), (40, None));
}

#[test]
fn a_share_is_given_back_as_the_store_goes_on() {
    let mut ledger = ledger(25, 1 << 20);
    assert_eq!(taken(&mut ledger, 3, 60), (60, None));
    let counted_from = ledger.engine.tail();
    assert_eq!(taken(&mut ledger, 1, 400).1, Some(ErrorCode::RetryLater));
    let half = JournalPosition((counted_from.0 + ledger.engine.tail().0) / 2);
    ledger.progress.advance_applied(half.into());
    assert_eq!(
        taken(&mut ledger, 1, 1).1,
        Some(ErrorCode::RetryLater),
        "what is given back is given back in stretches"
    );
    ledger.progress.advance_applied(ledger.engine.tail().into());
    assert_eq!(taken(&mut ledger, 1, 20), (20, None));
}

#[test]
fn without_a_share_one_sender_may_have_all_of_it() {
    let mut ledger = ledger(100, 1 << 20);
    let (flood, refusal) = taken(&mut ledger, 1, 400);
    assert_eq!(refusal, Some(ErrorCode::StorageFull));
    assert!((360..400).contains(&flood), "{flood}");
}

#[test]
fn rosters_weigh_in_the_tail_before_the_store_has_seen_them() {
    let mut ledger = ledger(100, 1_000);
    let rosters: Vec<Arc<Roster>> = (0..60).map(|at| ledger.create(1, 1_000 * at + 2..1_000 * at + 101)).collect();
    let mut taken = 0;
    for (request, roster) in rosters.iter().enumerate() {
        ledger.group(request as u32, 1, roster);
        taken += usize::from(matches!(ledger.answers()[..], [(_, Answer::Sent { .. })]));
    }
    // 60 changes, and 101 for each roster.
    assert_eq!(taken, 10, "no more is taken than the tail may weigh, and one message");
    // The tail says what it weighs when it has all of that; and the store gets on.
    ledger.progress.report_tail_messages(400, ledger.engine.tail());
    ledger.group(99, 1, &rosters[20]);
    assert!(matches!(ledger.answers()[..], [(99, Answer::Sent { .. })]));
}

#[test]
fn one_senders_rosters_are_his_share_of_the_tail() {
    let mut ledger = ledger(25, 4_000);
    let rosters: Vec<Arc<Roster>> = (0..40).map(|at| ledger.create(1, 1_000 * at + 2..1_000 * at + 101)).collect();
    ledger.progress.report_tail_messages(0, ledger.engine.tail());
    let mut taken = 0;
    for (request, roster) in rosters.iter().enumerate() {
        ledger.group(request as u32, 1, roster);
        taken += usize::from(matches!(ledger.answers()[..], [(_, Answer::Sent { .. })]));
    }
    assert!((10..=16).contains(&taken), "{taken}");
    let name = ledger.name();
    ledger.direct(7, 5, 6, name, b"others have room");
    assert!(matches!(ledger.answers()[..], [(7, Answer::Sent { .. })]));
}

#[test]
fn recipients_that_nobody_knows_are_limited_and_those_whom_somebody_knows_are_not() {
    let traffic = TrafficLimits { user_recipients_new: crate::rate::Rate::new(1, 3), ..TrafficLimits::UNLIMITED };
    let mut ledger = Ledger::with(Settings { traffic, ..Settings::new(SHARDS, 7) });
    let name = ledger.name();
    ledger.direct(0, 9, 8, name, b"these two are known now");
    for (request, to) in [(1, 100), (2, 101), (3, 102), (4, 103), (5, 100), (6, 8), (7, 1)] {
        let name = ledger.name();
        ledger.direct(request, 1, to, name, b"x");
    }
    let answers = ledger.answers();
    let refused: Vec<u32> = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, Answer::Refused(_)))
        .map(|(request, _)| *request)
        .collect();
    assert_eq!(refused, [4]);
    assert_eq!(ledger.engine.counters().limited.of(TrafficLimit::UserRecipientsNew), 1);
    ledger.pass(1_000);
    let name = ledger.name();
    ledger.direct(8, 1, 103, name, b"x");
    assert!(matches!(ledger.answers()[..], [(8, Answer::Sent { .. })]));
}
