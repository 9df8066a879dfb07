//! What waits for the store, and what waits behind that.

use super::*;

#[test]
fn what_a_sender_sends_behind_an_old_name_is_not_stored_before_it() {
    let mut ledger = Ledger::new();
    let old = ClientMsgId::from_parts(TIME - 30 * 60_000, 1);
    let older = ClientMsgId::from_parts(TIME - 60 * 60_000, 1);
    let (new, newest) = (ledger.name(), ledger.name());
    for (request, name) in [(1, old), (2, new), (3, older), (4, newest)] {
        ledger.direct(request, 1, 2, name, b"body");
    }
    // Nobody else waits for them.
    let others = ledger.name();
    ledger.direct(9, 5, 2, others, b"body");
    assert!(matches!(ledger.answers()[..], [(9, Answer::Sent { .. })]));
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    let [first, second] = lookups[..] else { panic!("{lookups:?}") };
    // The second is answered first: it has its turn when the first has had it.
    ledger.engine.found(ledger.now, LookupAnswer { lookup: second, found: LookupFound::Nothing });
    assert_eq!(ledger.answers(), []);
    ledger.engine.found(ledger.now, LookupAnswer { lookup: first, found: LookupFound::Nothing });
    let seqs: Vec<(u32, u64)> = ledger
        .answers()
        .into_iter()
        .map(|(request, answer)| match answer {
            Answer::Sent { seq, .. } => (request, seq),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert!(!ledger.engine.has_more());
}

#[test]
fn what_waits_behind_a_name_that_the_store_could_not_look_up_is_not_stored_before_it() {
    let mut ledger = Ledger::new();
    let new = ledger.name();
    ledger.direct(1, 1, 2, ClientMsgId::from_parts(TIME - 30 * 60_000, 1), b"body");
    ledger.direct(2, 1, 2, new, b"body");
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    ledger.engine.found(ledger.now, LookupAnswer { lookup: lookups[0], found: LookupFound::Unavailable });
    let refused = Answer::Refused(ErrorCode::RetryLater);
    assert_eq!(ledger.answers(), [(1, refused.clone()), (2, refused)]);
}

#[test]
fn one_sender_takes_nobody_elses_room_to_wait() {
    let mut ledger = Ledger::new();
    for index in 0..LOOKUPS_PENDING_SENDER_MAX as u32 + 1 {
        ledger.direct(index, 1, 2, ClientMsgId::from_parts(TIME - 30 * 60_000, u128::from(index) << 16), b"body");
    }
    ledger.direct(9_999, 3, 2, ClientMsgId::from_parts(TIME - 30 * 60_000, 1), b"body");
    let last = LOOKUPS_PENDING_SENDER_MAX as u32;
    assert_eq!(ledger.answers(), [(last, Answer::Refused(ErrorCode::RetryLater))]);
}

#[test]
fn an_old_name_is_looked_up_before_its_sender_is_refused_and_no_more_often_than_the_limit() {
    let mut ledger = Ledger::new();
    let roster = ledger.create(1, [3]);
    ledger.now.unix_ms += WINDOW_MS + 10_000;
    ledger.commit();
    let lookup = |at: u32| {
        let client_msg_id = ClientMsgId::from_parts(TIME, u128::from(at) << 16);
        Lookup { sender: UserId(2), client_msg_id, generation: 0 }
    };
    let digest = digest(Conversation::Group(roster.group), b"to all");
    let stored = StoredMessage { msg_id: MsgId(77), seq: Seq(5), sent_at_ms: TIME, digest };
    let nobody = Arc::new(of_nobody(GroupId(4711)));
    ledger.group_named(1, 2, &roster, lookup(1).client_msg_id);
    ledger.group_named(2, 2, &roster, lookup(2).client_msg_id);
    ledger.group_named(3, 2, &nobody, lookup(3).client_msg_id);
    assert_eq!(ledger.answers(), [], "the store is asked first");
    let mut lookups = Vec::new();
    ledger.engine.take_lookups(&mut lookups);
    assert_eq!(lookups, [lookup(1), lookup(2), lookup(3)]);
    let found = [LookupFound::Stored(stored), LookupFound::Nothing, LookupFound::Nothing];
    for (lookup, found) in lookups.drain(..).zip(found) {
        ledger.engine.found(ledger.now, LookupAnswer { lookup, found });
    }
    let expected = [
        (1, Answer::Repeat { msg_id: 77, seq: 5 }),
        (2, Answer::Refused(ErrorCode::NotAMember)),
        (3, Answer::Refused(ErrorCode::UnknownGroup)),
    ];
    assert_eq!(ledger.answers(), expected);

    for at in 0..LOOKUPS_PENDING_SENDER_MAX as u32 + 1 {
        ledger.group_named(at, 2, &roster, lookup(at + 10).client_msg_id);
    }
    assert_eq!(ledger.answers(), [(LOOKUPS_PENDING_SENDER_MAX as u32, Answer::Refused(ErrorCode::RetryLater))]);
}

#[test]
fn no_more_than_the_limit_wait_for_the_store() {
    let mut ledger = Ledger::new();
    ledger.now.unix_ms += WINDOW_MS + 10_000;
    ledger.commit();
    for at in 0..LOOKUPS_PENDING_MAX as u32 + 1 {
        let sender = u64::from(at) / LOOKUPS_PENDING_SENDER_MAX as u64 + 10;
        ledger.direct(at, sender, 2, ClientMsgId::from_parts(TIME, u128::from(at) << 16), b"x");
    }
    assert_eq!(ledger.answers(), [(LOOKUPS_PENDING_MAX as u32, Answer::Refused(ErrorCode::RetryLater))]);
}
